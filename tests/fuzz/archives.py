"""Broken archives: whatever one member, header or table holds, all sound samples are read exactly, in bounded time and memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from random import Random

from fuzz.cases import Cases
from hostile.check import Archive, check, check_ingest

INGEST_EVERY = 20
"""A whole ingest takes as long as reading some ten archives."""


def fuzz(cases: Cases) -> None:
    """Read case by case, and ingest some."""
    with tempfile.TemporaryDirectory(prefix="fuzz-archives-") as folder:
        archive = Archive(Path(folder))
        for number in cases:
            whole = number % INGEST_EVERY == 0
            cases.count("archives ingested" if whole else "archives read")
            try:
                wrong = (check_ingest if whole else check)(archive, Random(number))
            except Exception as error:  # one case: the next may find something else
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                cases.finding(wrong)
            for bank in Path(folder).glob("bank-*"):
                shutil.rmtree(bank)
