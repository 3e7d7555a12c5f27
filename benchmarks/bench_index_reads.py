"""Measure what a first query moves of an index behind a store, and how long it takes beside whole files.

    make bench-index-reads [INDEX=FOLDER]
    python benchmarks/bench_index_reads.py INDEX [--samples 1000000] [--repeats 3] [--latency-ms 0 30]

INDEX is a bank of benchmarks/synthetic_index.py, made first if it is not there. It is served on loopback, with some latency for
each request. Each statement is planned by a bank that is opened anew and has no copy of anything: by ranges, and with every file
copied as a whole; then by ranges again, with the pieces on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

from bench_catalog import linked_index
from rich.console import Console
from rich.table import Table

import synthetic_index
import tensorbank as tb
from peers.server import BUCKET
from peers.stage import ObjectServer
from tensorbank.testing.fault_server import Faults

RESULTS = Path(__file__).parent / "results"
STATEMENTS = {
    "by a statistic": "SELECT sample_id, S2L2A, S1RTC FROM world WHERE NDVI.mean > 0.7",
    "by place and season": "SELECT sample_id, S2L2A FROM world WHERE season = 'summer' "
    "AND within_bbox(lon, lat, 0, 0, 20, 20)",
    "one id": "SELECT sample_id, S2L2A FROM world WHERE sample_id = 's00001234'",
    "tiles by a statistic": "SELECT sample_id, S2L2A FROM world.tiles WHERE NDVI.mean > 0.85",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """One statement at one latency, medians of the repeats; ``share`` is of the bytes of all index files."""

    statement: str
    latency_ms: float
    rows: int
    requests: int
    read_bytes: int
    share: float
    cold_s: float
    warm_s: float
    whole_bytes: int
    whole_s: float


def index_bytes(index: Path) -> int:
    """Return the bytes of all index files of a bank."""
    return sum(p.stat().st_size for p in index.glob("*/index/*/*.parquet"))


def planned(endpoint: str, cache: Path, sql: str) -> tuple[float, int]:
    """Return the seconds of a plan by a bank that is opened for it, and its samples."""
    started = time.perf_counter()
    keys = {"access_key": "any", "secret_key": "any"}
    plan = tb.open(f"s3://{BUCKET}", endpoint=endpoint, cache=cache, **keys).sql(sql).plan()
    return time.perf_counter() - started, len(plan)


def measured(server: ObjectServer, index: Path, repeats: int, latency_ms: float) -> Iterator[Timing]:
    """Yield a timing for each statement."""
    server.set(Faults(latency_ms=latency_ms))
    for name, sql in STATEMENTS.items():
        cold, warm, whole = [], [], []
        found: dict[str, int] = {}
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as cache:
                server.reset()
                seconds, rows = planned(server.endpoint, Path(cache), sql)
                log = server.log()
                found = {
                    "rows": rows,
                    "requests": sum(log["methods"].values()),
                    "read_bytes": log["body_bytes"],
                }
                cold.append(seconds)
                warm.append(planned(server.endpoint, Path(cache), sql)[0])
            with (
                tempfile.TemporaryDirectory() as cache,
                mock.patch("tensorbank.index_files.mirror.WHOLE_BYTES", 1 << 62),
            ):
                server.reset()
                whole.append(planned(server.endpoint, Path(cache), sql)[0])
                found["whole_bytes"] = server.log()["body_bytes"]
        yield Timing(
            statement=name,
            latency_ms=latency_ms,
            share=found["read_bytes"] / index_bytes(index),
            cold_s=statistics.median(cold),
            warm_s=statistics.median(warm),
            whole_s=statistics.median(whole),
            **found,
        )


def main() -> None:
    """Measure, print a table, and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path)
    parser.add_argument("--samples", type=int, default=1_000_000, help="of the index, if it has to be made")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0, 30])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.index.exists():
        for _ in synthetic_index.write(options.index, options.samples, options.parts, 7, 1):
            pass
    table = Table(title=f"{options.index}: {index_bytes(options.index) / 1e6:,.0f} MB of index files")
    for heading in (
        "statement",
        "wire",
        "requests",
        "MB",
        "share",
        "cold s",
        "warm s",
        "whole MB",
        "whole s",
    ):
        table.add_column(heading, justify="left" if heading in ("statement", "latency") else "right")
    with tempfile.TemporaryDirectory(dir=options.index.parent) as folder:
        served = Path(folder) / BUCKET
        linked_index(options.index, served)
        timings = []
        with ObjectServer(served, sorted(os.sched_getaffinity(0))) as server:
            for latency_ms in options.latency_ms:
                timings += measured(server, served, options.repeats, latency_ms)
        shutil.rmtree(served)
    for t in timings:
        latency = f"{t.latency_ms:g} ms"
        figures = (f"{t.read_bytes / 1e6:.2f}", f"{t.share:.2%}", f"{t.cold_s:.2f}", f"{t.warm_s:.2f}")
        table.add_row(
            t.statement, latency, str(t.requests), *figures, f"{t.whole_bytes / 1e6:.1f}", f"{t.whole_s:.2f}"
        )
    Console(width=130).print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    found = json.dumps([asdict(t) for t in timings], indent=1)
    (options.out / "index_reads.json").write_text(f"{found}\n")


if __name__ == "__main__":
    main()
