"""Measure whether the copy to a GPU is hidden. Asks device_stream.py, where there is a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from stream.figure import Figure, Missing
from stream.setup import Setup

__all__ = ["measure"]

SCRIPT = Path(__file__).parents[1] / "device_stream.py"
NO_GPU = "no GPU"


def measure(setup: Setup) -> Iterator[Figure | Missing]:
    """Return a loop with copies beside one without, and the rate of copies beside that of one large copy."""
    n_batches = str(setup.n(200))
    command = [sys.executable, str(SCRIPT), "--json", "--samples", "64", "--batches", n_batches]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if said == NO_GPU:
        yield Missing("device", "copies to a GPU", NO_GPU)
        return
    report = json.loads(said)
    unhidden_ms = (1 - report["hidden_ratio"]) * report["copy_ms"]
    yield Figure(
        "device",
        f"a step with copies, {report['device']}",
        report["step_ms"] + unhidden_ms,
        "ms",
        report["step_ms"],
        1 + unhidden_ms / report["step_ms"],
        1.02,
        "<=",
        detail=report,
    )
    yield Figure(
        "device",
        "copies to the device",
        report["gb_s"],
        "GB/s",
        report["ceiling_gb_s"],
        report["gb_s"] / report["ceiling_gb_s"],
    )
