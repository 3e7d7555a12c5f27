"""Measure what the life of a table costs: commits, compaction, columns, deletion, garbage, and plans after all of it.

    make bench-table-life [SAMPLES=10000000] [PARTS=1000]
    python benchmarks/bench_table_life.py [--samples 10000000] [--parts 1000] [--objects N] [--index FOLDER]

The index is one of benchmarks/synthetic_index.py in the layout of ingest: every part has samples of the whole planet. It is
made once, by all cores, and stays; each question is put to a copy of it made of hard links, in a process of its own whose time
and peak memory count. Answers that are there are kept (``--again`` asks anew): an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

import tensorbank as tb
from synthetic_index import commit_of
from synthetic_shards import StoredShard
from synthetic_world import SCHEMA, TABLE, World, places
from tensorbank.catalog import Change, LevelChange
from tensorbank.delta.actions import readded
from tensorbank.index_files import ROW_GROUP_ROWS, parquet_writer

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PLAN = (
    f"SELECT sample_id, S2L2A, S1RTC FROM {TABLE} "
    "WHERE season = 'summer' AND lon BETWEEN -30 AND 30 AND NDVI.mean > 0.55"
)
REPEATS = 5
ONE_IN = 10
"""The number of index files of which one is decoded and encoded, to tell how long all of them take."""
FULL_SAMPLES, FULL_PARTS, FULL_OBJECTS = 10_000_000, 1000, 1_000_000
"""The size that the targets are for."""
Answer = dict[str, Any]


def linked(source: Path, target: Path) -> Path:
    """Copy a bank by hard links; its objects are never written to, only replaced."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True, copy_function=os.link)
    return target


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# ---------------------------------------------------------------- questions, each in a process of its own


def compact(bank: Path, _options: argparse.Namespace) -> Answer:
    """Compact the table."""
    table = tb.open(bank).table(TABLE)
    seconds = timed(table.compact)
    levels = tb.open(bank).table(TABLE).compact(dry_run=True).levels
    return {"seconds": seconds, "files": {name: size.files_after for name, size in levels.items()}}


def recode(bank: Path, _options: argparse.Namespace) -> Answer:
    """Decode and encode one in ten of the index files on all cores, in the order that they have: what no compaction can save."""
    paths = sorted(path for level in ("samples", "tiles") for path in bank.rglob(f"index/{level}/*.parquet"))
    some = paths[::ONE_IN]

    def again(path: Path) -> None:
        with (
            pq.ParquetFile(path) as file,
            parquet_writer(pa.BufferOutputStream(), file.schema_arrow, file.metadata.num_rows) as out,
        ):
            for group in range(file.num_row_groups):
                out.write_table(file.read_row_group(group, use_threads=False), row_group_size=ROW_GROUP_ROWS)

    def work() -> None:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(again, some))

    return {"seconds": timed(work) * len(paths) / len(some), "files": len(some)}


def compact_again(bank: Path, options: argparse.Namespace) -> Answer:
    """Compact a table that was compact before one more commit."""
    _commit(bank, options, "one-more")
    return {"seconds": timed(tb.open(bank).table(TABLE).compact)}


def add_columns(bank: Path, _options: argparse.Namespace) -> Answer:
    """Add a column of floats to all samples."""
    opened = tb.open(bank)
    ids = opened.sql(f"SELECT split, sample_id FROM {TABLE}").arrow()
    values = np.random.default_rng(1).random(len(ids), np.float32)
    rows = ids.append_column("score", pa.array(values))
    return {"seconds": timed(lambda: opened.table(TABLE).add_columns(rows)), "rows": len(ids)}


def delete(bank: Path, _options: argparse.Namespace) -> Answer:
    """Delete one sample in a hundred, by a condition on a statistic."""
    opened = tb.open(bank)
    found = opened.sql(f"SELECT quantile_cont(NDVI.mean, 0.99) AS q FROM {TABLE}").arrow()
    limit = found["q"][0].as_py()
    return {"seconds": timed(lambda: opened.table(TABLE).delete(f"NDVI.mean > {limit!r}"))}


def plan(bank: Path, _options: argparse.Namespace) -> Answer:
    """Open the bank and plan, as a job does that begins."""
    times = [timed(lambda: tb.open(bank).sql(PLAN).plan()) for _ in range(REPEATS)]
    return {
        "seconds": statistics.median(times),
        "first_s": times[0],
        "rows": len(tb.open(bank).sql(PLAN).plan()),
    }


def commit(bank: Path, options: argparse.Namespace) -> Answer:
    """Commit one part more."""
    times = [_commit(bank, options, f"another-{number}") for number in range(REPEATS)]
    return {"seconds": statistics.median(times)}


def garbage(bank: Path, options: argparse.Namespace) -> Answer:
    """List what ``gc`` would remove, of many objects."""
    seconds = 0.0
    found = None
    opened = tb.open(bank)

    def ask() -> None:
        nonlocal found
        found = opened.gc(older_than=timedelta(0))

    seconds = timed(ask)
    assert found is not None
    return {
        "seconds": seconds,
        "listed": found.n_listed,
        "garbage": found.n_objects,
        "wanted": options.objects,
    }


def _commit(bank: Path, options: argparse.Namespace, part: str) -> float:
    """Return the seconds of a commit of a part as large as the others."""
    n = options.samples // options.parts
    rng = np.random.default_rng(len(part))
    n_blocks = {m.name: m.n_blocks for m in SCHEMA}
    stored = {
        name: StoredShard(np.arange(256, dtype=np.int64) * 1000, np.full((256, blocks), 100, np.int32))
        for name, blocks in n_blocks.items()
    }
    first = 10**9 + abs(hash(part)) % 10**6 * n
    made = commit_of(part, range(first, first + n), places(n, rng), World(7), stored, rng)
    opened = tb.open(bank)
    return timed(lambda: opened.catalog.commit(TABLE, made))


QUESTIONS = {
    f.__name__: f for f in (recode, compact, compact_again, add_columns, delete, plan, commit, garbage)
}


# ---------------------------------------------------------------- banks


def made(options: argparse.Namespace) -> Path:
    """Return the index, made unless it is there."""
    index: Path = options.index
    if not (index / "made").exists():
        command = [sys.executable, str(HERE / "synthetic_index.py"), str(index), "--layout", "ingest"]
        command += ["--samples", str(options.samples), "--parts", str(options.parts)]
        subprocess.run([*command, "--workers", str(len(os.sched_getaffinity(0)))], check=True)
        (index / "made").touch()
    return index


def empty(folder: Path) -> Path:
    """Make a bank with a table of no sample."""
    shutil.rmtree(folder, ignore_errors=True)
    tb.create(folder).catalog.create(TABLE, SCHEMA, single_writer=True)
    return folder


def of_one_commit(source: Path, folder: Path) -> Path:
    """Make a bank whose one commit has the index files of another's newest version."""
    empty(folder)
    there, bank = tb.open(source).catalog, tb.open(folder).catalog
    head = there.version(TABLE)
    changes = {}
    for level in ("samples", *(head.pins or {})):
        files = there.state(head, level).files
        for file in files.files:
            (folder / file.key).parent.mkdir(parents=True, exist_ok=True)
            os.link(source / file.key, folder / file.key)
        changes[level] = LevelChange(tuple(readded(files, range(len(files.files)))))
    bank.publish(TABLE, lambda _head: Change("ingest", changes, n_rows=head.samples.n_rows))
    return folder


def with_objects(bank: Path, n: int) -> Path:
    """Add parts that nothing refers to, until the bank has about so many objects."""
    per_part = 1000
    for number in range(max(n // per_part, 1)):
        folder = bank / TABLE / "tensors" / f"orphan-{number:05d}" / "S2L2A"
        stored = folder / "stored" / "0" / "0" / "0"
        stored.mkdir(parents=True)
        (stored / "0").touch()
        (folder / "c").mkdir()
        for shard in range(per_part):
            (folder / "c" / str(shard)).symlink_to("../stored", target_is_directory=True)
    return bank


# ---------------------------------------------------------------- the run


def ask(name: str, bank: Path, options: argparse.Namespace) -> Answer:
    """Put one question in a process of its own; its answer with CPU seconds and peak memory.

    What making its bank has left to be written is written first: the disk would be busy with it for the first seconds.
    """
    os.sync()
    command = [sys.executable, __file__, "--question", name, "--bank", str(bank)]
    command += [
        "--samples",
        str(options.samples),
        "--parts",
        str(options.parts),
        "--objects",
        str(options.objects),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: Answer = json.loads(done.stdout.splitlines()[-1])
    return answer


def run(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Answer]:
    """Put all questions, but those whose answers are kept."""
    index = made(options)
    work = index.with_name(f"{index.name}-work")
    kept = work / "answers.json"
    answers: dict[str, Answer] = {}
    if kept.exists() and not options.again:
        answers = json.loads(kept.read_text())
    work.mkdir(exist_ok=True)
    compacted = work / "compacted"

    def question(key: str, name: str, bank: Callable[[], Path]) -> None:
        if key not in answers:
            answers[key] = ask(name, bank(), options)
            kept.write_text(json.dumps(answers, indent=1))
        say(f"{key}: {answers[key]['seconds']:.3f} s, peak {answers[key]['peak_bytes'] >> 20:,} MiB")

    question("commit to an empty table", "commit", lambda: empty(work / "copy"))
    question("commit after all parts", "commit", lambda: linked(index, work / "copy"))
    if not compacted.exists():
        answers.pop("compact", None)
    question("decode and encode, unsorted", "recode", lambda: index)
    question("compact", "compact", lambda: linked(index, compacted))
    question("plan after all commits", "plan", lambda: compacted)
    question("plan after one commit", "plan", lambda: of_one_commit(compacted, work / "one"))
    question("plan before compaction", "plan", lambda: index)
    question("compact after one more commit", "compact_again", lambda: linked(compacted, work / "copy"))
    question("add a column", "add_columns", lambda: linked(compacted, work / "copy"))
    question("delete 1 %", "delete", lambda: linked(compacted, work / "copy"))
    question(
        "gc, dry run", "garbage", lambda: with_objects(linked(compacted, work / "copy"), options.objects)
    )
    shutil.rmtree(work / "copy", ignore_errors=True)
    shutil.rmtree(work / "one", ignore_errors=True)
    return answers


def targets(answers: Mapping[str, Answer], *, is_full: bool) -> list[tuple[str, str, str, bool | None]]:
    """Return the targets as (what, target, measured, met). They are those of 10 million samples in 1,000 parts and a million
    objects: of a smaller index none is met, and only what is missed already is known.
    """

    def seconds(name: str) -> float:
        return float(answers[name]["seconds"])

    peak = int(answers["compact"]["peak_bytes"])
    rows = [("compact", "<= 300 s", f"{seconds('compact'):.1f} s", seconds("compact") <= 300)]
    rows.append(("memory of compact", "<= 4096 MiB", f"{peak >> 20} MiB", peak <= 4 << 30))
    for name, most in (("add a column", 20), ("delete 1 %", 20), ("gc, dry run", 60)):
        rows.append((name, f"<= {most} s", f"{seconds(name):.1f} s", seconds(name) <= most))
    for what, last, first in (
        ("open + plan, all commits / one", "plan after all commits", "plan after one commit"),
        ("commit, last / first", "commit after all parts", "commit to an empty table"),
    ):
        ratio = seconds(last) / seconds(first)
        rows.append((what, "<= 1.2", f"{ratio:.2f}", ratio <= 1.2))
    return [
        (what, target, measured, met if is_full or not met else None) for what, target, measured, met in rows
    ]


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument(
        "--objects",
        type=int,
        default=None,
        help="objects that gc looks at; a tenth of the samples by default",
    )
    parser.add_argument(
        "--index", type=Path, default=None, help="folder of the index; one in benchmarks/data by default"
    )
    parser.add_argument("--again", action="store_true", help="forget answers that were kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--question", choices=sorted(QUESTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--bank", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.objects = options.objects or max(options.samples // 10, 1000)
    options.index = options.index or HERE / "data" / f"table-life-{options.samples}-{options.parts}"
    return options


def main() -> None:
    """Measure, print, write."""
    options = parsed()
    if options.question:
        before = time.process_time()
        answer = QUESTIONS[options.question](options.bank, options)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(answer | {"cpu_s": time.process_time() - before, "peak_bytes": peak}))
        return
    console = Console()
    answers = run(options, console.print)
    is_full = (
        options.samples >= FULL_SAMPLES and options.parts >= FULL_PARTS and options.objects >= FULL_OBJECTS
    )
    rows = targets(answers, is_full=is_full)
    table = Table("what", "target", "measured", "")
    for what, target, measured, met in rows:
        said = {True: "[green]met[/]", False: "[red]missed[/]", None: "at a smaller size"}[met]
        table.add_row(what, target, measured, said)
    console.print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "command": "make bench-table-life",
        "machine": {"cores": len(os.sched_getaffinity(0)), "platform": platform.platform()},
        "versions": {"python": platform.python_version(), "pyarrow": pa.__version__},
        "samples": options.samples,
        "parts": options.parts,
        "objects": options.objects,
        "answers": answers,
        "targets": [dict(zip(("what", "target", "measured", "met"), row, strict=True)) for row in rows],
    }
    (options.out / "table_life.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
