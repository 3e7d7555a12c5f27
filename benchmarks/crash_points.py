"""Crash points of all operations on a table: what is there after they were stopped at each of their requests.

    make crash-points
    python benchmarks/crash_points.py [--operation NAME]... [--out results/crash_points.json]

Each operation runs on a bank of a few samples, in memory behind S3 and in a folder. It is killed at every request; the answer of
every write is lost; from every write on, the store is full or read-only. Afterwards the snapshots have to be the old ones or the
new ones, ``verify`` finds nothing, versions under a lease are what they were, the operation runs again to the same end, and
``gc`` finds what is left over: see ``tests/support/crash_points.py``. Minutes; the status is 1 if anything was wrong. Results of
operations that are not chosen stay in the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from support.crash_points import Bench, Outcome, Undisturbed
from support.object_server import ObjectServer
from support.stages import FolderStage, S3Stage
from support.table_life import MODULES, OPERATIONS, Operation
from support.warm_process import WarmProcess

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "crash_points.json"


def table_of(run: Undisturbed, outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Return a row for each request: its number, what it asks for, and, by kind of disturbance, how the run ended and which
    snapshot was there.
    """
    rows = {p.number: {"request": p.number, "method": p.method, "key": p.key} for p in run.points}
    for outcome in outcomes:
        how = "" if outcome.ended == "died" else f"{outcome.ended}, "
        rows[outcome.point.number][outcome.kind] = how + outcome.found.snapshot
    return list(rows.values())


def measured(bench: Bench, operation: Operation) -> dict[str, Any]:
    """Disturb an operation at all its requests; returns what goes into the results."""
    started = time.monotonic()
    run = bench.undisturbed(operation)
    outcomes = [o for kind in bench.stage.kinds for o in bench.outcomes(run, kind, run.points)]
    found = Counter(f"{o.kind}: {o.found.snapshot}" for o in outcomes)
    problems = [
        f"{o.kind} at {o.point.number}, {o.point.key}: {text}" for o in outcomes for text in o.problems
    ]
    return {
        "requests": len(run.points),
        "writes": sum(p.write > 0 for p in run.points),
        "runs": len(outcomes),
        "states": len(run.known),
        "found": dict(sorted(found.items())),
        "most objects left after another run": max((f.n_left for f in run.known.values()), default=0),
        "problems": problems,
        "seconds": round(time.monotonic() - started, 1),
        "table": table_of(run, outcomes),
    }


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [o.name for o in OPERATIONS]
    parser.add_argument(
        "--operation", action="append", choices=names, help="one of them; several times for several"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    chosen = [o for o in OPERATIONS if o.name in (options.operation or names)]
    results: dict[str, Any] = {}
    if options.operation and options.out.exists():  # the others stay as they were
        results = json.loads(options.out.read_text())
    with (
        tempfile.TemporaryDirectory(prefix="crash-points-") as folder,
        ObjectServer() as server,
        WarmProcess(MODULES) as warm,
    ):
        stages = {"S3": S3Stage(server, Path(folder, "caches")), "folder": FolderStage(Path(folder, "banks"))}
        benches = {name: Bench(stage, warm, collects=True) for name, stage in stages.items()}
        for operation in chosen:
            results[operation.name] = {}
            for stage, bench in benches.items():
                row = measured(bench, operation)
                results[operation.name][stage] = row
                said = f"{row['requests']} requests, {row['runs']} runs in {row['seconds']:.0f} s, {row['found']}"
                print(f"{operation.name}, {stage}: {said}, {len(row['problems'])} problems", flush=True)
                for problem in row["problems"]:
                    print(f"  {problem}")
            results = {name: results[name] for name in names if name in results}
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    n_problems = sum(len(row["problems"]) for stages_of in results.values() for row in stages_of.values())
    print(f"{n_problems} problems; the table is in {options.out}")
    return 1 if n_problems else 0


if __name__ == "__main__":
    sys.exit(main())
