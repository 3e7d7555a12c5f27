"""The speed of ingest on Dask beside that by processes, and what a task costs that does nothing.

    make bench-engines
    python benchmarks/bench_engines.py [--samples 240] [--workers 2] [--repeats 3] [--tasks 200] [--out results/engines.json]

Both engines ingest the same made-up archive into fresh local banks, in turns. Their start is part of it, as it is of every run;
the seconds from the first shard to the last are told beside it. The overhead of a shard is the time of empty tasks on one
worker, one after the other as they come, by their number.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pyarrow as pa

import tensorbank as tb
from tensorbank.engines import executor_for
from tensorbank_demo.landscape.archive import write_archives
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_indexer.parts import IngestSetting, ShardResult
from tensorbank_indexer.rows import IndexRows
from tensorbank_indexer.source import Source

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "engines.json"
ENGINES = ("processes", "dask")
SAMPLES_PER_SHARD = 8


@dataclass(frozen=True)
class EmptyTask:
    """A task that reads nothing and writes nothing."""

    number: int
    label: str = "an empty task"
    first_paths: tuple[str, ...] = ()


def do_nothing(task: EmptyTask, _setting: IngestSetting) -> ShardResult:
    """Return a result without rows."""
    return ShardResult(task.number, IndexRows(*[pa.table({})] * 3), [])


def ingest_s(source: Source, engine: str, n_workers: int) -> dict[str, float]:
    """Return the seconds of an ingest, and those from its first shard to its last."""
    written: list[float] = []

    def progress(what: str, _done: int, _total: int) -> None:
        if what == "write":
            written.append(time.perf_counter())

    options = IngestOptions(n_workers=n_workers, engine=engine, samples_per_shard=SAMPLES_PER_SHARD)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        report = ingest(source, tb.create(folder), "t", options, progress=progress)
        elapsed_s = time.perf_counter() - started
    assert report.n_added == report.n_found > 0
    return {"whole_s": elapsed_s, "shards_s": written[-1] - written[0]}


def empty_task_s(source: Source, n_tasks: int) -> float:
    """Return the seconds of an empty task on a local cluster of one worker."""
    options = IngestOptions(n_workers=1, engine="dask")
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(
            executor_for(options.workers, IngestSetting(source, tb.create(folder).catalog.store))
        ) as executor,
    ):
        assert len(list(executor.execute([EmptyTask(0)], do_nothing))) == 1
        started = time.perf_counter()
        done = list(executor.execute([EmptyTask(i) for i in range(n_tasks)], do_nothing))
        assert len(done) == n_tasks
        return (time.perf_counter() - started) / n_tasks


def main() -> None:
    """Print the medians, and keep them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=240)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        made = write_archives(Path(folder), n_samples=options.samples, samples_per_tar=120, seed=1)
        source = open_source(str(made.root))
        for number in range(options.repeats):
            for engine in ENGINES if number % 2 == 0 else ENGINES[::-1]:
                runs[engine].append(ingest_s(source, engine, options.workers))
        task_s = [empty_task_s(source, options.tasks) for _ in range(options.repeats)]
    ratios = {
        name: [p[name] / d[name] for p, d in zip(runs["processes"], runs["dask"], strict=True)]
        for name in ("whole_s", "shards_s")
    }
    record = {
        "samples": options.samples,
        "workers": options.workers,
        "repeats": options.repeats,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{
            engine: {name: round(median(run[name] for run in told), 3) for name in ("whole_s", "shards_s")}
            for engine, told in runs.items()
        },
        "dask_of_processes": {
            name: {
                "median": round(median(found), 3),
                "least": round(min(found), 3),
                "most": round(max(found), 3),
            }
            for name, found in ratios.items()
        },
        "empty_task_ms": {
            "median": round(1000 * median(task_s), 2),
            "least": round(1000 * min(task_s), 2),
            "most": round(1000 * max(task_s), 2),
        },
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
