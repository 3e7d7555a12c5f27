"""The section on forecasts: epochs that were simulated beside those that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from pages.markdown import table

__all__ = ["forecasts"]


def forecasts(found: Mapping[str, Any]) -> str:
    """Return the table of ``bench_simulate.py``."""
    if not found:
        return ""
    rows = found["configurations"]
    errors = sorted(abs(row["error"]) for row in rows)
    n_within = sum(error <= found["target"] for error in errors)
    told = (
        f"{n_within} of {len(rows)} within {found['target']:.0%}; the median error is {median(errors):.1%}, the largest "
        f"{errors[-1]:.1%}. {found['machine']['cores']} cores, load {found['machine']['load_15_min']:.1f} in its last quarter "
        f"of an hour, {found['setup']['rounds']} rounds."
    )
    head = [
        "",
        "measured, s",
        "simulated, s",
        "error",
        "waits, s",
        "simulated",
        "CPU s",
        "simulated",
        "binds",
    ]
    lines = [
        [
            row["name"],
            f"{row['measured_s']:.2f}",
            f"{row['simulated_s']:.2f}",
            f"{row['error']:+.1%}",
            f"{row['measured_wait_s']:.2f}",
            f"{row['simulated_wait_s']:.2f}",
            f"{row['measured_cpu_s']:.2f}",
            f"{row['simulated_cpu_s']:.2f}",
            row["bound_by"],
        ]
        for row in rows
    ]
    return f"{told}\n\n{table(head, lines)}"
