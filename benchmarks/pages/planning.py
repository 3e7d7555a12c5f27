"""Plans beside other systems' queries: the table of ``bench_peers_plan.py``."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from pages.markdown import last_line, table

__all__ = ["planning"]


def planning(found: Mapping[str, Any], remark: str = "") -> str:
    """Return a table of seconds, and their ratio to the plan's: above 1 the plan is faster."""
    if not found:
        return "Not measured yet: `python benchmarks/bench_peers_plan.py`."
    others = list(dict.fromkeys(name for row in found["rows"] for name in row["others"]))
    rows = []
    for row in found["rows"]:
        ours_s = median(row["tensorbank_s"])
        cells = []
        for name in others:
            answer = row["others"].get(name)
            text = (
                "-"
                if answer is None
                else f"{median(answer['s']):.3g} s, {median(answer['s']) / ours_s:.2f} x"
            )
            cells.append(text + ("" if answer is None or answer["equal"] else ", **other rows**"))
        rows.append([row["name"], f"{row['n']:,}", f"{ours_s:.3g} s", *cells])
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [table(["", "rows", "plan", *others], rows), remark, f"Versions: {versions}."]
    lines += [f"{name} failed: `{last_line(why)}`" for name, why in found["failed"].items()]
    return "\n\n".join(line for line in lines if line)
