"""The runner of the fuzzers: shares the time among them and prints and writes a summary; exits 1 if anything was found.

python -m support.fuzz [--seconds 600] [--seed NUMBER] [--cases N] [--target NAME]... [--out fuzz-summary.json]
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import pkgutil
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from support import fuzz
from support.fuzz.cases import Cases

NOT_TARGETS = {"__main__", "cases"}
GRACE_S = 180.0
"""Seconds beyond a target's share of the time: to make what it needs, and to end its last case."""


def targets() -> list[str]:
    """Return the names of the modules with a fuzzer."""
    names = [m.name for m in pkgutil.iter_modules(fuzz.__path__) if m.name not in NOT_TARGETS]
    return sorted(n for n in names if hasattr(importlib.import_module(f"support.fuzz.{n}"), "fuzz"))


def work(target: str, cases: Cases) -> None:
    """Run one fuzzer in this process; what it raises is a finding, and the end of it."""
    faulthandler.enable()
    try:
        importlib.import_module(f"support.fuzz.{target}").fuzz(cases)
    except Exception as e:  # the edge of a process: the summary tells it
        cases.finding(f"the fuzzer ended by {type(e).__name__}: {e}")
        raise


def run(target: str, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Run one fuzzer in a process of its own; returns what it counted and found."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        out = Path(folder) / "state.json"
        command = [sys.executable, "-m", "support.fuzz", "--worker", "--target", target, "--out", str(out)]
        command += ["--seed", str(options.seed), "--seconds", str(seconds)]
        command += [] if options.cases is None else ["--cases", str(options.cases)]
        try:
            ended = subprocess.run(command, timeout=seconds + GRACE_S, check=False).returncode
        except subprocess.TimeoutExpired:
            ended = None
        state: dict[str, Any] = {"cases": 0, "counts": {}, "findings": [], "done": False}
        if out.exists():
            state = json.loads(out.read_text())
        present = out.with_suffix(".case")
        number = int(present.read_text()) if present.exists() else None
    if ended is None:
        what = f"did not end {GRACE_S:.0f} s after its time"
        state["findings"].append({"case": number, "what": what})
    elif not state["done"] and not state["findings"]:
        state["findings"].append({"case": number, "what": f"the process died, status {ended}"})
    return {**state, "seconds": round(time.monotonic() - started, 1)}


def told(target: str, state: dict[str, Any]) -> str:
    """A line for a target, and one for each finding."""
    counts = ", ".join(f"{n:,} {what}" for what, n in sorted(state["counts"].items()))
    lines = [
        f"{target}: {state['cases']:,} cases in {state['seconds']:.0f} s"
        + (f" ({counts})" if counts else "")
        + f", {len(state['findings'])} findings"
    ]
    for found in state["findings"]:
        lines.append(f"  case {found['case']}: {found['what']}")
        lines.append(
            f"    again: PYTHONPATH=tests python -m support.fuzz --target {target} --seed {found['case']} --cases 1"
        )
    return "\n".join(lines)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="support.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="for all targets together")
    parser.add_argument(
        "--seed", type=int, default=None, help="number of the first case; random if not given"
    )
    parser.add_argument("--cases", type=int, default=None, help="at most so many cases a target")
    parser.add_argument(
        "--target", action="append", default=None, help="one target, several times for several"
    )
    parser.add_argument("--out", type=Path, default=Path("fuzz-summary.json"))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seed is None:
        options.seed = secrets.randbelow(2**40)
    if options.worker:
        work(options.target[0], Cases(options.seed, options.seconds, options.cases, options.out))
        return 0
    known = targets()
    chosen = options.target or known
    if unknown := sorted(set(chosen) - set(known)):
        parser.error(f"there is no fuzzer {', '.join(unknown)}; there are: {', '.join(known)}")
    print(f"seed {options.seed}, {options.seconds:.0f} s for {', '.join(chosen)}", flush=True)
    found: dict[str, Any] = {}
    for target in chosen:
        found[target] = run(target, options, options.seconds / len(chosen))
        print(told(target, found[target]), flush=True)
        options.out.write_text(json.dumps({"seed": options.seed, "targets": found}, indent=2) + "\n")
    n_findings = sum(len(state["findings"]) for state in found.values())
    print(f"{n_findings} findings, summary in {options.out}")
    return 1 if n_findings else 0


if __name__ == "__main__":
    sys.exit(main())
