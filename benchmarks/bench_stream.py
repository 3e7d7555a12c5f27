"""Measure the cost of streaming beside what the machine can do:
each figure has its ceiling from the same minutes.

    make bench-stream [BANK=FOLDER]
    python benchmarks/bench_stream.py [--bank FOLDER [--table NAME] | --source ARCHIVES] [--only wire,cpu] [--quick]

Without a bank, one is made of made-up archives. Times are medians of interleaved repeats; beside them stand CPU seconds a GB,
which are steadier on machines that others use, too. With ``--only``, figures of other sections stay in the file as they are.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table
from stream_picture import draw

import tensorbank as tb
from stream.figure import Figure, Missing
from stream.setup import Setup, make_bank

RESULTS = Path(__file__).parent / "results"
SECTIONS = (
    "wire",
    "cpu",
    "shuffle",
    "projection",
    "start",
    "memory",
    "tuning",
    "faults",
    "cache",
    "elastic",
    "device",
)
N_SAMPLES = 480


def measured(setup: Setup, sections: Sequence[str]) -> Iterator[Figure | Missing]:
    """Yield the figures of some sections, each module imported when its turn comes."""
    for name in sections:
        yield from importlib.import_module(f"stream.{name}").measure(setup)


def as_text(value: float | None, unit: str = "") -> str:
    """Format a figure with three digits and its unit."""
    if value is None:
        return ""
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits} {unit}".strip()


def target_of(figure: Figure) -> str:
    """Return the target as text: its bound and value."""
    if figure.target is None:
        return ""
    return f"{figure.bound} {as_text(figure.target, figure.unit if figure.judged == 'value' else '')}"


def as_table(found: Sequence[Figure | Missing]) -> Table:
    """Return the figures as a table for people."""
    table = Table("section", "what", "figure", "ceiling", "ratio", "target", "")
    for number, item in enumerate(found):
        last = number + 1 == len(found) or found[number + 1].section != item.section
        if isinstance(item, Missing):
            table.add_row(item.section, item.what, f"[dim]{item.reason}[/]", end_section=last)
            continue
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[item.met]
        table.add_row(
            item.section,
            item.what,
            as_text(item.value, item.unit),
            as_text(item.ceiling, item.unit),
            "" if item.ratio is None else f"{item.ratio:.3f}",
            target_of(item),
            verdict,
            end_section=last,
        )
    return table


def earlier(file: Path, setup: Setup, without: Sequence[str]) -> list[Figure | Missing]:
    """Return the figures in a file, without those of some sections,
    if they are of the same bank and amounts.
    """
    if not file.is_file():
        return []
    known = json.loads(file.read_text())
    if any(known["setup"][n] != v for n, v in amounts(setup).items()):
        return []
    figures = [Figure(**{n: v for n, v in f.items() if n != "met"}) for f in known["figures"]]
    return [f for f in (*figures, *(Missing(**m) for m in known["missing"])) if f.section not in without]


def amounts(setup: Setup) -> dict[str, float]:
    """Return the amounts that all figures of one file share."""
    return {
        "scale": setup.scale,
        "repeats": setup.repeats,
        "batch_size": setup.batch_size,
        "samples": len(setup.plan()),
        "stored_bytes": setup.plan().read_bytes,
    }


def facts(setup: Setup, found: Sequence[Figure | Missing], elapsed_s: float) -> dict[str, object]:
    """Return the facts that are written beside the figures."""
    return {
        "command": "make bench-stream",
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "platform": platform.platform(),
            "load_15_min": os.getloadavg()[2],
        },
        "versions": {
            "python": platform.python_version(),
            **{n: version(n) for n in ("tensorbank", "torch", "obstore", "numcodecs", "crc32c", "numpy")},
        },
        "setup": {**amounts(setup), "elapsed_s": elapsed_s},
        "figures": [f.to_dict() for f in found if isinstance(f, Figure)],
        "missing": [m.to_dict() for m in found if isinstance(m, Missing)],
    }


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--bank", type=Path, help="folder of a bank of TerraMesh modalities; never written to")
    given.add_argument("--source", type=Path, help="archives to make a bank of")
    parser.add_argument("--table", help="of the bank; its first if not given")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--quick", action="store_true", help="a look: a quarter of the bytes, two rounds")
    parser.add_argument("--scale", type=float, help="factor of all amounts; 1, or 0.25 with --quick")
    parser.add_argument("--repeats", type=int, help="rounds of each comparison; 5, or 2 with --quick")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    sections = options.only.split(",")
    unknown = set(sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    console = Console(width=None if sys.stdout.isatty() else 140)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        if options.bank is None:
            console.print("making a bank")
            n = N_SAMPLES // 2 if options.quick else N_SAMPLES
            folder, table = make_bank(Path(scratch), n_samples=n, source=options.source)
        else:
            folder = options.bank
            table = options.table or tb.open(str(folder)).tables()[0]
        setup = Setup(
            folder.resolve(),
            table,
            Path(scratch),
            scale=options.scale or (0.25 if options.quick else 1.0),
            repeats=options.repeats or (2 if options.quick else 5),
        )
        found: list[Figure | Missing] = []
        for item in measured(setup, sections):
            found.append(item)
            seen = item.reason if isinstance(item, Missing) else as_text(item.value, item.unit)
            console.print(
                f"[dim]{time.perf_counter() - started:5.0f} s[/]  {item.section}: {item.what}: {seen}"
            )
        found += earlier(options.out / "stream.json", setup, sections)
        found.sort(key=lambda item: SECTIONS.index(item.section))
        console.print(as_table(found))
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(facts(setup, found, time.perf_counter() - started), indent=1)
        (options.out / "stream.json").write_text(text + "\n")
    draw([f for f in found if isinstance(f, Figure)], options.out / "stream.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
