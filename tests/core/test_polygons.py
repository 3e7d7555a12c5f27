"""Footprints against one area in several threads at once, as DuckDB asks."""

from __future__ import annotations

import subprocess
import sys

ASK = """
import threading
import numpy as np, pyarrow as pa, shapely
from tensorbank.polygons import as_geojson, intersects

rng = np.random.default_rng(0)
x, y = rng.uniform(-170, 170, 400), rng.uniform(-80, 80, 400)
boxes = shapely.box(x, y, x + 1, y + 1)
footprints = pa.array(shapely.to_wkb(boxes), pa.binary())
for _ in range(60):
    turn, far = np.sort(rng.uniform(0, 2 * np.pi, 300)), rng.uniform(20, 80, 300)
    text = shapely.to_geojson(shapely.Polygon(np.column_stack([far * np.cos(turn), far * np.sin(turn)])))
    right = shapely.intersects(shapely.from_geojson(text), boxes).tolist()
    start, found = threading.Barrier(4), []

    def ask():
        start.wait()
        found.append(intersects(footprints, as_geojson(text)).to_pylist())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert found == [right] * 4 and 0 < sum(right) < 400
print("sound")
"""


def test_threads_do_not_share_a_prepared_area():
    """A shared one ends the process, so it is asked in another."""
    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "sound"), done.stderr[-2000:]
