"""The example of the README on an archive that has no locations, as most of TerraMesh has none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tensorbank as tb
from tensorbank_indexer import IngestOptions, ingest, open_source

SCRIPT = Path(__file__).parents[2] / "benchmarks/examples/balanced_forests.py"
JULY_NS = 1_594_000_000_000_000_000


def test_balanced_forests_finds_two_a_cell(write_members, tmp_path):
    forest = np.full((1, 1, 32, 32), 2, np.uint8)
    meadow = forest.copy()
    meadow[..., :20, :] = 9
    names = ("S2L2A", "S1RTC", "LULC")
    odd = {
        i: {
            "sample": f"{282 + i // 4}D_485L_3_{i % 4}",
            "time_ns": JULY_NS,
            "pixels": {"LULC": meadow if i % 2 else forest},
        }
        for i in range(12)
    }
    root = write_members(12, names, odd)
    columns = {
        "tar": ["majortom_shard_000001.tar"] * 12,
        "zarr": [f"majortom_train_{i + 1:07d}.zarr.zip" for i in range(12)],
        "sample_id": [o["sample"] for o in odd.values()],
        "center_lon": [15 + i / 10 for i in range(12)],
        "center_lat": [45.0] * 12,
        "cloud_cover": [0.01] * 8 + [0.5] * 4,
    }
    pq.write_table(pa.table(columns), root / "train_metadata.parquet")
    bank = tb.create(tmp_path / "bank")
    assert ingest(open_source(str(root)), bank, "t", IngestOptions(n_workers=1)).n_added == 12
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "bank"), "t"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = dict(
        line.split() for line in done.stdout.splitlines() if line.startswith(("trees ", "rangeland "))
    )
    assert sum(map(int, rows.values())) == 4, "two of each of the two clear cells"
    assert "'S2L2A': (4, 2, 32, 32)" in done.stdout
