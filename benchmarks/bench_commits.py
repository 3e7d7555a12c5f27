"""The cost of a commit while a table grows by one small part after the other.

    make bench-commits
    python benchmarks/bench_commits.py [--commits 1000] [--window 50] [--s3-commits 300] [--out results/commits.json]

The first and the last ``window`` commits are ingests of one new archive each, every one with a bank opened anew; those between
are commits of rows like theirs through one catalog, of which again the first and the last window are compared. All of it is done
twice: in a folder, where CPU seconds are taken, and in memory behind S3, where requests and bytes are counted. Then the bank is
opened and a plan made at some sizes, with a condition that leaves one file and without one, and once more after ``compact``.

In another folder, ``tensorbank ingest`` takes up some made-up archives of one sample of all modalities, each as a process of its
own, once at the beginning and once after all commits; the CPU seconds are those of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import tensorbank as tb
from support.object_server import ObjectServer
from support.tiny_source import TinySource
from tensorbank.catalog import Commit
from tensorbank.storage.object_client import ObjectClient
from tensorbank_demo.landscape.archive import write_archives
from tensorbank_indexer import IngestOptions, ingest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "commits.json"
TABLE = "t"
PAGE = 1000
"""The objects that one answer of S3 lists at most."""
OPTIONS = IngestOptions(n_workers=1, samples_per_shard=2, n_tiles=2)
WRITES = frozenset({"put", "create"})
PLANS = {"pruned": "SELECT * FROM t WHERE sample_id = 'sample-0000'", "all": "SELECT * FROM t"}
N_PLANS = 5
N_PROCESSES = 7
S3_WINDOW = 25
COUNTS = frozenset(
    {"read", "written", "get", "get_range", "put", "create", "delete", "info", "objects", "folders"}
)


class Meter:
    """The requests to a store and their bytes, as the client makes them."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.read = self.written = 0

    def count(self, kind: str, given: tuple[Any, ...], answer: Any) -> None:
        """Count one request; a list takes as many as it has pages."""
        self.asked[kind] += max(1, -(-len(answer) // PAGE)) if kind == "objects" else 1
        if kind in WRITES:
            self.written += len(given[1])
        elif kind in ("get", "get_range"):
            self.read += len(answer)


@contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Count the requests of all clients."""
    kept = {}
    for kind in ("get", "get_range", "put", "create", "delete", "info", "objects", "folders"):
        kept[kind] = getattr(ObjectClient, kind)
        setattr(ObjectClient, kind, _counting(kind, kept[kind], meter))
    try:
        yield
    finally:
        for kind, method in kept.items():
            setattr(ObjectClient, kind, method)


def _counting(kind: str, method: Callable[..., Any], meter: Meter) -> Callable[..., Any]:
    def asked(client: ObjectClient, *given: Any, **more: Any) -> Any:
        answer: Any = ()
        try:
            answer = method(client, *given, **more)
        finally:
            meter.count(kind, given, answer)
        return answer

    return asked


def measured(work: Callable[[], Any]) -> dict[str, Any]:
    """Do some work; returns what it cost."""
    meter = Meter()
    with metered(meter):
        started = time.process_time()
        work()
        cpu_s = time.process_time() - started
    return {"cpu_s": cpu_s, "read": meter.read, "written": meter.written, **meter.asked}


def rows_like(bank: tb.Bank) -> Callable[[int], Commit]:
    """Return what makes commits of one sample like the first of a table."""
    version = bank.catalog.version(TABLE)
    levels = {}
    for level, files in bank.catalog.levels(version, ["samples", "tiles", "shards"]).items():
        levels[level] = pq.read_table(bank.catalog.path(files.files[0]))

    def make(number: int) -> Commit:
        part, name = f"made-{number * 7919 % 100_003:06}", f"made-{number:06}"
        texts = {"part": part, "sample_id": name, "stem": name}
        found = {level: _with_texts(rows, texts) for level, rows in levels.items()}
        return Commit(part, found["samples"], found["tiles"], found["shards"])

    return make


def _with_texts(rows: pa.Table, texts: dict[str, str]) -> pa.Table:
    for name, text in texts.items():
        place = rows.schema.get_field_index(name)
        if place >= 0:
            column = pa.array([text] * rows.num_rows, rows.schema.field(name).type)
            rows = rows.set_column(place, rows.schema.field(name), column)
    return rows


def compared(costs: list[dict[str, Any]], window: int, kinds: Collection[str]) -> dict[str, Any]:
    """Return the medians of the first and the last costs, and their ratio; of all the mean, so that nothing rare is left out."""
    first, last = costs[:window], costs[-window:]
    found = {}
    for kind in sorted({k for c in costs for k in c} & {*kinds}):
        before, after = (median(c.get(kind, 0) for c in some) for some in (first, last))
        means = [sum(c.get(kind, 0) for c in some) / len(some) for some in (first, last)]
        ratio = round(after / before, 3) if before else None
        found[kind] = {
            "first": round(before, 4),
            "last": round(after, 4),
            "ratio": ratio,
            "mean_first": round(means[0], 4),
            "mean_last": round(means[1], 4),
        }
    return found


def plans(url: str, cache: str, n_commits: int) -> dict[str, Any]:
    """Return the CPU seconds of an open and a plan, the least of some, and of the open alone."""
    found: dict[str, Any] = {"commits": n_commits}
    for name, sql in PLANS.items():
        taken = []
        for _ in range(N_PLANS):
            started = time.process_time()
            tb.open(url, cache=cache).sql(sql).plan()
            taken.append(time.process_time() - started)
        found[name] = round(min(taken), 4)
    return found


def run(
    place: dict[str, Any], n_commits: int, window: int, kinds: Collection[str], *, with_plans: bool
) -> dict[str, Any]:
    """Fill a bank commit by commit; returns what commits and plans cost."""
    url, cache = str(place["url"]), str(place["cache"])
    ingests, adds, planned = [], [], []

    def ingest_one(number: int) -> None:
        ingest(TinySource(1, number), tb.open(**place), TABLE, OPTIONS)

    def look(n: int) -> None:
        if with_plans and n in (1, n_commits // 10, n_commits):
            planned.append(plans(url, cache, n))

    tb.create(**place)
    for n in range(window):
        ingests.append(measured(lambda n=n: ingest_one(n)))
        look(n + 1)
    bank = tb.open(**place)
    make = rows_like(bank)
    for n in range(window, n_commits - window):
        commit = make(n)
        adds.append(measured(lambda commit=commit: bank.catalog.add(TABLE, commit)))
        look(n + 1)
        if n % 100 == 0:
            print(f"{n} commits of {n_commits}", file=sys.stderr, flush=True)
    for n in range(window, 2 * window):
        ingests.append(measured(lambda n=n: ingest_one(n)))
        look(n_commits - 2 * window + n + 1)
    found = {"ingest": compared(ingests, window, kinds), "add": compared(adds, window, kinds)}
    if with_plans:
        compacted = measured(lambda: tb.open(**place).table(TABLE).compact())
        found["compact_cpu_s"] = round(compacted["cpu_s"], 3)
        planned.append({"compacted": True, **plans(url, cache, n_commits)})
        found["plans_cpu_s"] = planned
    return found


def run_processes(folder: Path, n_commits: int) -> dict[str, Any]:
    """Ingest by processes into a small table and into one of many commits; returns what both cost."""
    bank = tb.create(folder / "bank", cache=folder / "cache")
    costs: list[dict[str, Any]] = []

    archives = _archives(folder, 2 * N_PROCESSES)

    def ingest_archive(number: int) -> None:
        command = [sys.executable, "-m", "tensorbank", "ingest", archives[number], folder / "bank"]
        taken = _cpu_s_of([*map(str, command), "--table", TABLE, "--workers", "1"], cache=folder / "cache")
        costs.append({"cpu_s": taken})

    for n in range(N_PROCESSES):
        ingest_archive(n)
    make = rows_like(bank)
    for n in range(N_PROCESSES, n_commits - N_PROCESSES):
        bank.catalog.add(TABLE, make(n))
    for n in range(N_PROCESSES):
        ingest_archive(N_PROCESSES + n)
    n_made = bank.table(TABLE).history()[0].version
    if n_made != n_commits:
        raise RuntimeError(f"{n_made} commits were made, not {n_commits}")
    return compared(costs, N_PROCESSES, {"cpu_s"})


def _archives(folder: Path, n_archives: int) -> list[Path]:
    """Make archives of one sample each, with the same modalities, each with a root of its own."""
    n_samples = n_archives + 1 + n_archives // 8  # some are of the other subset
    made = write_archives(folder / "made", n_samples=n_samples, samples_per_tar=1, seed=1).root
    tars = sorted(path.name for path in (made / "train" / "DEM").glob("majortom*.tar"))[:n_archives]
    for name in tars:
        for there in sorted(made.glob(f"train/*/{name}")):
            target = folder / name / "train" / there.parent.name / name
            target.parent.mkdir(parents=True)
            there.rename(target)
        shutil.copy(made / "train_metadata.parquet", folder / name)
    assert len(tars) == n_archives
    return [folder / name for name in tars]


def _cpu_s_of(command: list[str], cache: Path) -> float:
    """Return the CPU seconds of a process and those that it waited for."""
    started = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, "XDG_CACHE_HOME": str(cache)}
    )
    _, status, used = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {started.returncode}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--window", type=int, default=50)
    parser.add_argument("--s3-commits", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found: dict[str, Any] = {
        "commits": options.commits,
        "window": options.window,
        "s3_commits": options.s3_commits,
    }
    with tempfile.TemporaryDirectory() as scratch, ObjectServer() as server:
        folder = {"url": f"{scratch}/bank", "cache": f"{scratch}/cache"}
        found["folder"] = run(folder, options.commits, options.window, {"cpu_s"}, with_plans=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")
        found["processes"] = run_processes(Path(scratch) / "processes", options.commits)
        options.out.write_text(json.dumps(found, indent=1) + "\n")
        server.world("bank", {})
        keys = {"access_key": "any", "secret_key": "any"}
        s3 = {"url": "s3://bank", "endpoint": server.endpoint, **keys, "cache": f"{scratch}/s3"}
        window = min(options.window, S3_WINDOW)
        found["s3"] = run(s3, options.s3_commits, window, COUNTS, with_plans=False)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
