"""Compare forecasts of epochs with epochs: 20 configurations that this machine can run.

    make bench-simulate
    python benchmarks/bench_simulate.py [--only N,N] [--rounds N] [--out FILE]

Costs of this machine are measured first, and those of the store anew before each run. Runs and forecasts take turns; the error
is the median of the rounds'.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

import tensorbank as tb
from simulated.comparison import Comparison, compare
from simulated.configurations import CONFIGURATIONS, Configuration
from stream.setup import make_bank
from tensorbank_simulation import calibrate
from tensorbank_simulation.made_up import write_blocks

RESULTS = Path(__file__).parent / "results"
N_SAMPLES = 192
TARGET = 0.05


def plan_of(configuration: Configuration, folder: Path, scratch: Path) -> tb.Plan:
    """Return the plan of a configuration, from a local folder."""
    if configuration.profile is not None:
        made = scratch / f"made-{configuration.profile}"
        return write_blocks(made, n_samples=96, n_bands=12, side=264, profile=configuration.profile)
    columns = ", ".join(configuration.columns)
    return tb.open(str(folder)).sql(f"SELECT sample_id, {columns} FROM terramesh").plan()


def facts(comparison: Comparison) -> dict[str, Any]:
    """Return one comparison as JSON-able values."""
    runs, forecasts = comparison.runs, comparison.forecasts
    return {
        "name": comparison.configuration.name,
        "measured_s": comparison.measured_s,
        "simulated_s": comparison.simulated_s,
        "error": comparison.error,
        "measured_cpu_s": median(r.cpu_s for r in runs),
        "simulated_cpu_s": median(f.core_s for f in forecasts),
        "measured_wait_s": median(r.wait_s for r in runs),
        "simulated_wait_s": median(f.wait_s for f in forecasts),
        "measured_requests": median(r.n_requests for r in runs),
        "simulated_requests": median(f.n_requests for f in forecasts),
        "bound_by": forecasts[0].bound_by,
        "busy": forecasts[0].busy,
        "all_measured_s": [r.total_s for r in runs],
        "all_simulated_s": [f.epoch_s for f in forecasts],
    }


def as_table(rows: list[dict[str, Any]]) -> Table:
    """Return the comparisons as a table for people."""
    table = Table(
        "configuration", "measured, s", "simulated, s", "error", "wait: measured", "simulated", "bound by"
    )
    for row in rows:
        table.add_row(
            str(row["name"]),
            f"{row['measured_s']:.2f}",
            f"{row['simulated_s']:.2f}",
            f"{row['error']:+.1%}",
            f"{row['measured_wait_s']:.2f}",
            f"{row['simulated_wait_s']:.2f}",
            str(row["bound_by"]),
        )
    return table


def main() -> int:
    """Measure, simulate, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="numbers of configurations, from 1 on, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "simulate.json")
    options = parser.parse_args()
    wanted = [int(n) - 1 for n in options.only.split(",")] if options.only else range(len(CONFIGURATIONS))
    console = Console(width=None if sys.stdout.isatty() else 140)
    started_s = time.perf_counter()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as found:
        scratch = Path(found)
        folder, table = make_bank(scratch, n_samples=N_SAMPLES)
        machine = calibrate(tb.open(str(folder)).sql(f"SELECT * FROM {table}").plan(), seconds=1.0)
        console.print(f"[dim]{time.perf_counter() - started_s:5.0f} s[/]  {machine}")
        for number in wanted:
            configuration = CONFIGURATIONS[number]
            local = plan_of(configuration, folder, scratch)
            rows.append(facts(compare(configuration, local, machine, scratch, options.rounds)))
            row = rows[-1]
            console.print(
                f"[dim]{time.perf_counter() - started_s:5.0f} s[/]  {number + 1}. {row['name']}: "
                f"{row['measured_s']:.2f} s measured, {row['simulated_s']:.2f} s simulated, {row['error']:+.1%}"
            )
    console.print(as_table(rows))
    n_within = sum(abs(row["error"]) <= TARGET for row in rows)
    console.print(f"{n_within} of {len(rows)} within {TARGET:.0%}")
    text = {
        "command": "make bench-simulate",
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "platform": platform.platform(),
            "load_15_min": os.getloadavg()[2],
        },
        "target": TARGET,
        "setup": {
            "samples": N_SAMPLES,
            "rounds": options.rounds,
            "elapsed_s": time.perf_counter() - started_s,
        },
        "calibration": json.loads(machine.to_json()),
        "configurations": rows,
    }
    options.out.write_text(json.dumps(text, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
