"""Measure what one node delivers: with a cache that is cold, half full and warm, and with several ranks.

    make bench-node
    python benchmarks/bench_node.py [--only cache,ranks] [--rounds N] [--samples N] [--out FILE]

An epoch with a cache stands beside one without, and all ranks together beside one rank on the same cores. Both take turns; a
ratio is the median of the rounds'.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

import tensorbank as tb
from bench_stream import as_table
from node import cache_states, ranks
from stream.figure import Figure
from stream.setup import make_bank

RESULTS = Path(__file__).parent / "results"
SECTIONS = ("cache", "ranks")
LARGE, SMALL, BOTH = ("S2L2A",), ("S1RTC", "DEM"), ("S2L2A", "S1RTC")
"""Modalities of reads of 0.7 MB and of 0.1 MB, and of both."""


def measured(folder: Path, sections: list[str], *, n_rounds: int) -> Iterator[Figure]:
    """Measure the sections in order."""

    def plan(columns: tuple[str, ...]) -> tb.Plan:
        return tb.open(str(folder)).sql(f"SELECT {', '.join(columns)} FROM terramesh").plan()

    if "cache" in sections:
        yield from cache_states.measure(plan(LARGE), "reads of 0.7 MB", n_rounds=n_rounds)
        yield from cache_states.measure(plan(SMALL), "reads of 0.1 MB", n_rounds=n_rounds)
    if "ranks" in sections:
        yield from ranks.measure(plan(BOTH), n_rounds=n_rounds)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=384)
    parser.add_argument("--out", type=Path, default=RESULTS / "node.json")
    options = parser.parse_args()
    sections = options.only.split(",")
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    console = Console(width=None if sys.stdout.isatty() else 140)
    started_s = time.perf_counter()
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, _ = make_bank(Path(scratch), n_samples=options.samples)
        for figure in measured(folder, sections, n_rounds=options.rounds):
            found.append(figure)
            console.print(
                f"[dim]{time.perf_counter() - started_s:5.0f} s[/]  {figure.what}: {figure.value:,.1f}"
            )
    console.print(as_table(found))
    text = {
        "command": "make bench-node",
        "machine": {"cores": len(os.sched_getaffinity(0)), "platform": platform.platform()},
        "setup": {"samples": options.samples, "rounds": options.rounds},
        "figures": [f.to_dict() for f in found],
    }
    options.out.write_text(json.dumps(text, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
