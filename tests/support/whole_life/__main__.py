"""The runner of the state machine: many lives of a table, each of many steps; exits 1 if anything was found.

python -m support.whole_life [--lives 100] [--steps 15] [--seed NUMBER]
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import traceback

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from support.whole_life.machine import TableLife


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="support.whole_life", description=__doc__.splitlines()[0])
    parser.add_argument("--lives", type=int, default=100)
    parser.add_argument("--steps", type=int, default=15, help="of one life, at most")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    number = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"seed {number}: {options.lives} lives of up to {options.steps} steps", flush=True)
    chosen = settings(
        max_examples=options.lives,
        stateful_step_count=options.steps,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    started = time.process_time()
    seed(number)(TableLife)
    try:
        run_state_machine_as_test(TableLife, settings=chosen)
    except Exception:  # the edge of a process: the summary tells it
        traceback.print_exc()
        print(f"found in {time.process_time() - started:.0f} s of the processor; --seed {number} repeats it")
        return 1
    print(", ".join(f"{n:,} {what}" for what, n in sorted(TableLife.tally.items())))
    print(f"nothing found in {time.process_time() - started:.0f} s of the processor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
