"""Flipped bits by the thousand, over all kinds of files that TensorBank writes, and what came of them.

    make fuzz-flips N=10000
    python benchmarks/flips.py [--n 10000] [--seed NUMBER] [--kind KIND]... [--out results/flips.json]

Each trial damages one file (a bit, some, a run of bytes, a cut, the content of another file) and reads it as it usually is: see
``tests/support/flips``. Right is the right answer, named an error that names the file; anything else is a problem, and the status
is 1. The same seed repeats the same trials.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from support.flips.run import PROBLEMS, counted, run_trials
from support.flips.trials import KINDS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "flips.json"


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kind", action="append", choices=sorted(KINDS), help="one of them; several times for several"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    started = time.monotonic()
    trials = run_trials(options.n, options.seed, options.kind or tuple(KINDS))
    problems = [trial for trial in trials if trial["outcome"] in PROBLEMS]
    counts = {kind: found for kind, found in counted(trials).items() if found}
    for kind, found in counts.items():
        print(f"{kind}: {', '.join(f'{n} {outcome}' for outcome, n in found.items())}")
    for trial in problems:
        print(
            f"{trial['number']}: {trial['kind']}, {trial['file']}, {trial['damage']}: {trial['outcome']}: {trial['message']}"
        )
    results = {
        "trials": len(trials),
        "seed": options.seed,
        "seconds": round(time.monotonic() - started, 1),
        "outcomes": dict(sorted(Counter(trial["outcome"] for trial in trials).items())),
        "damage": dict(sorted(Counter(trial["damage"] for trial in trials).items())),
        "kinds": counts,
        "problems": problems,
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{len(trials)} trials, {len(problems)} problems; the counts are in {options.out}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
