"""Broken archives: whatever one member, header or table holds, all sound samples are read exactly, in bounded time and memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from random import Random

from support.fuzz.cases import Cases
from support.hostile.check import Archive, Locations, check, check_ingest

INGEST_EVERY = 20
"""A whole ingest takes as long as reading some ten archives."""


def fuzz(cases: Cases) -> None:
    """Read case by case, and ingest some."""
    with tempfile.TemporaryDirectory(prefix="fuzz-archives-") as folder:
        archive, locations = Archive(Path(folder)), Locations(Path(folder))
        for number in cases:
            rng = Random(number)
            try:
                if number % INGEST_EVERY == 0:
                    cases.count("archives ingested")
                    wrong = check_ingest(archive, rng)
                elif number % 3 == 0:
                    cases.count("files of locations read")
                    wrong = locations.check(rng)
                else:
                    cases.count("archives read")
                    wrong = check(archive, rng)
            except Exception as error:  # one case: the next may find something else
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                cases.finding(wrong)
            for bank in Path(folder).glob("bank-*"):
                shutil.rmtree(bank)
