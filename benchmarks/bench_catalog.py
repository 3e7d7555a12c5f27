"""Measure what a table of a hundred million samples costs its users: to open, plan, page, commit, compact and collect garbage.

    make bench-catalog [SAMPLES=100000000] [PARTS=1000]
    python benchmarks/bench_catalog.py [--samples 100000000] [--parts 1000] [--index FOLDER] [--again]

The index is one of benchmarks/synthetic_catalog.py. Each question is put in a process of its own, whose CPU seconds and peak
memory count, before and after ``compact``. *Cold* means that the system holds no page of the index in memory; *over S3*, that
the index lies behind a store of 10 ms latency, and that the process has no copy of any of its files. Answers that are there
are kept, so that an interrupted run goes on where it was.
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
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

import tensorbank as tb
from bench_table_life import linked, timed
from peers.server import BUCKET
from peers.stage import ObjectServer
from synthetic_catalog import TABLE, PartTask, commit_of
from tensorbank.testing.fault_server import Faults

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LATENCY_MS = 10
REPEATS = 5
NEW_SAMPLES = 10_000
PAGE = f"SELECT sample_id, split, season, lon, lat, cloud_cover FROM {TABLE}"
STATEMENTS = {
    "plan by place and season": f"SELECT sample_id, NDVI FROM {TABLE} WHERE season = 'summer' AND lon BETWEEN 8 AND 10 "
    "AND lat BETWEEN 45 AND 48 AND cloud_cover < 0.3",
    "plan by a statistic": f"SELECT sample_id, NDVI FROM {TABLE} WHERE NDVI.mean > 0.93",
    "plan of a tenth": f"SELECT sample_id, NDVI FROM {TABLE} WHERE lon BETWEEN 0 AND 40",
    "first page by id": f"{PAGE} ORDER BY sample_id, split LIMIT 100",
    "page by id in the middle": PAGE
    + " WHERE sample_id > 's{middle:09d}' ORDER BY sample_id, split LIMIT 100",
    "one id": PAGE + " WHERE sample_id = 's{one:09d}'",
}
"""The statements; the numbers of ids are shares of all samples, so that an index of any size has them."""
OVER_S3 = ("plan by place and season", "one id")
TARGETS = {
    "open": (2.0, 1.0),
    "plan by place and season": (2.0, 2.0),
    "plan by a statistic": (5.0, 2.0),
    "plan of a tenth": (60.0, 12.0),
    "first page by id": (10.0, 2.0),
    "page by id in the middle": (10.0, 2.0),
    "one id": (5.0, 2.0),
    "commit": (10.0, 4.0),
    "compact": (1800.0, 4.0),
    "gc, dry run": (60.0, 2.0),
}
"""Seconds from a cold disk and GiB at most, of a compact table."""
Answer = dict[str, Any]


def forget(folder: Path) -> None:
    """Ask the system to drop its pages of all files of an index."""
    os.sync()
    for path in folder.rglob(f"{TABLE}/index/**/*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


# ---------------------------------------------------------------- questions, each in a process of its own


def opened(options: argparse.Namespace) -> tb.Bank:
    """Open the bank that a question is about."""
    if options.endpoint:
        keys = {"access_key": "any", "secret_key": "any"}
        return tb.open(f"s3://{BUCKET}", endpoint=options.endpoint, cache=options.cache, **keys)
    return tb.open(options.bank)


def answered(options: argparse.Namespace, work: Callable[[tb.Bank], int]) -> Answer:
    """Time one thing from a bank that is not open, and again when all is warm."""
    n = 0

    def once() -> None:
        nonlocal n
        n = work(opened(options))

    first_s = timed(once)
    warm = [timed(once) for _ in range(REPEATS if first_s < 5 else 1)]
    return {"seconds": first_s, "warm_s": statistics.median(warm), "rows": n}


def open_(options: argparse.Namespace) -> Answer:
    """Open the bank and tell how many samples the table has."""
    return answered(options, lambda bank: bank.table(TABLE).snapshot().n_samples)


def ask(options: argparse.Namespace) -> Answer:
    """Answer one of the statements, as a plan where it selects tensors."""
    n = options.samples
    statement = STATEMENTS[options.statement].format(middle=n // 2, one=int(n * 0.31415926))
    if options.statement.startswith("plan"):
        return answered(options, lambda bank: len(bank.sql(statement).plan()))
    return answered(options, lambda bank: bank.sql(statement).arrow().num_rows)


def commit(options: argparse.Namespace) -> Answer:
    """Commit one more part."""
    made = commit_of(PartTask(options.bank, 99_999, 10**9 - NEW_SAMPLES, NEW_SAMPLES, 7))
    bank = opened(options)
    return {"seconds": timed(lambda: bank.catalog.commit(TABLE, made)), "rows": NEW_SAMPLES}


def compact(options: argparse.Namespace) -> Answer:
    """Compact the table."""
    bank = opened(options)
    return {"seconds": timed(lambda: bank.table(TABLE).compact())}


def garbage(options: argparse.Namespace) -> Answer:
    """List what ``gc`` would remove."""
    bank = opened(options)
    found: list[Any] = []
    seconds = timed(lambda: found.append(bank.gc(older_than=timedelta(0))))
    return {"seconds": seconds, "listed": found[0].n_listed, "garbage": found[0].n_objects}


QUESTIONS = {"open": open_, "ask": ask, "commit": commit, "compact": compact, "garbage": garbage}


# ---------------------------------------------------------------- the run


def sizes(bank: Path) -> dict[str, dict[str, int]]:
    """Return files and bytes of the newest snapshot by level, and those of the logs."""
    catalog = tb.open(bank).catalog
    head = catalog.version(TABLE)
    found = {}
    for level in ("samples", *(head.pins or {})):
        files = catalog.state(head, level).files.files
        log = [p for p in bank.glob(f"{TABLE}/index/{level}/_delta_log/*") if p.is_file()]
        found[level] = {
            "files": len(files),
            "bytes": sum(f.n_bytes for f in files),
            "log_files": len(log),
            "log_bytes": sum(p.stat().st_size for p in log),
        }
    return found


def put(question: str, bank: Path, endpoint: str = "", statement: str = "") -> Answer:
    """Put one question in a process of its own; its answer with CPU seconds and peak memory."""
    with tempfile.TemporaryDirectory(dir=bank.parent) as cache:
        command = [sys.executable, __file__, "--question", question, "--bank", str(bank), "--cache", cache]
        command += ["--endpoint", endpoint, "--statement", statement]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: Answer = json.loads(done.stdout.splitlines()[-1])
    return answer


def run(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Answer]:
    """Put all questions, but those whose answers are kept."""
    index: Path = options.index
    if not (index / "made").exists():
        command = [sys.executable, str(HERE / "synthetic_catalog.py"), str(index)]
        command += ["--samples", str(options.samples), "--parts", str(options.parts)]
        subprocess.run([*command, "--workers", str(len(os.sched_getaffinity(0)))], check=True)
        (index / "made").touch()
    work = index.with_name(f"{index.name}-work")
    work.mkdir(exist_ok=True)
    kept, compacted = work / "answers.json", work / "compacted"
    answers: dict[str, Answer] = {}
    if kept.exists() and not options.again:
        answers = json.loads(kept.read_text())

    def note(key: str, answer: Callable[[], Answer]) -> None:
        if key not in answers:
            answers[key] = answer()
            kept.write_text(json.dumps(answers, indent=1))
        if "seconds" in answers[key]:
            a = answers[key]
            say(
                f"{key}: {a['seconds']:.2f} s, then {a.get('warm_s', float('nan')):.2f} s, {a['peak_bytes'] >> 20:,} MiB"
            )

    def questions(when: str, bank: Path) -> None:
        note(f"sizes {when}", lambda: sizes(bank))
        note(f"open {when}", lambda: cold("open", bank))
        for name in STATEMENTS:
            note(f"{name} {when}", lambda name=name: cold("ask", bank, name))
        note(f"commit {when}", lambda: cold("commit", linked(bank, work / "copy")))

    def cold(question: str, bank: Path, statement: str = "") -> Answer:
        forget(bank)
        return put(question, bank, statement=statement)

    questions("as ingested", index)
    if not compacted.exists():
        answers.pop("compact", None)
        linked(index, compacted)
    note("compact", lambda: cold("compact", compacted))
    questions("compact", compacted)
    note("gc, dry run", lambda: cold("garbage", compacted))
    served = work / "served"
    shutil.rmtree(served, ignore_errors=True)
    linked_index(compacted, served / BUCKET)
    cores = sorted(os.sched_getaffinity(0))
    with ObjectServer(served / BUCKET, cores) as server:
        server.set(Faults(latency_ms=LATENCY_MS))
        for name in OVER_S3:
            note(f"{name} over S3", lambda name=name: over_s3(server, served / BUCKET, name))
    for folder in (work / "copy", served):
        shutil.rmtree(folder, ignore_errors=True)
    return answers


def linked_index(source: Path, target: Path) -> None:
    """Copy a bank by hard links, without its tensors."""
    shutil.copytree(
        source, target, symlinks=True, copy_function=os.link, ignore=shutil.ignore_patterns("tensors")
    )


def over_s3(server: ObjectServer, bank: Path, statement: str) -> Answer:
    """Put one statement to the store, and tell what it was asked for."""
    server.reset()
    answer = put("ask", bank, server.endpoint, statement)
    log = server.log()
    return answer | {"requests": sum(log["methods"].values()), "read_bytes": log["body_bytes"]}


def targets(answers: dict[str, Answer], *, is_full: bool) -> list[tuple[str, str, str, bool | None]]:
    """Return the targets as (what, target, measured, met). They are those of 100 million samples: of a smaller table none is met,
    and only what is missed already is known.
    """
    rows: list[tuple[str, str, str, bool | None]] = []
    for name, (most_s, most_gib) in TARGETS.items():
        answer = answers.get(f"{name} compact") or answers[name]
        seconds, gib = float(answer["seconds"]), answer["peak_bytes"] / 2**30
        met = seconds <= most_s and gib <= most_gib
        rows.append(
            (
                name,
                f"<= {most_s:g} s, {most_gib:g} GiB",
                f"{seconds:.2f} s, {gib:.2f} GiB",
                met if is_full or not met else None,
            )
        )
    return rows


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument(
        "--index", type=Path, default=None, help="folder of the index; one in benchmarks/data by default"
    )
    parser.add_argument("--again", action="store_true", help="forget answers that were kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--question", choices=sorted(QUESTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--statement", help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    parser.add_argument("--bank", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.index = options.index or HERE / "data" / f"catalog-{options.samples}-{options.parts}"
    return options


def main() -> None:
    """Measure, print, write."""
    options = parsed()
    if options.question:
        before = time.process_time()
        answer = QUESTIONS[options.question](options)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(answer | {"cpu_s": time.process_time() - before, "peak_bytes": peak}))
        return
    console = Console()
    answers = run(options, console.print)
    rows = targets(answers, is_full=options.samples >= 100_000_000)
    table = Table("what", "target", "measured", "")
    for what, target, measured, met in rows:
        said = {True: "[green]met[/]", False: "[red]missed[/]", None: "at a smaller size"}[met]
        table.add_row(what, target, measured, said)
    console.print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "command": "make bench-catalog",
        "machine": {"cores": len(os.sched_getaffinity(0)), "platform": platform.platform()},
        "versions": {"python": platform.python_version(), "pyarrow": pa.__version__, "numpy": np.__version__},
        "samples": options.samples,
        "parts": options.parts,
        "statements": STATEMENTS,
        "answers": answers,
        "targets": [dict(zip(("what", "target", "measured", "met"), row, strict=True)) for row in rows],
    }
    (options.out / "catalog.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
