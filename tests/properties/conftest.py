"""Banks that statements are compared on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.differential.bed import Bed, open_bed, write_bed
from support.made_once import folder_of_run, made_once


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A bank, which nobody changes."""
    folder = folder_of_run(tmp_path_factory) / "differential" / "new"
    with open_bed(made_once(folder, lambda made: write_bed(made / "bank")) / "bank") as opened:
        yield opened


@pytest.fixture(scope="session")
def copied_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A bank with sorted copies, which nobody changes."""
    folder = folder_of_run(tmp_path_factory) / "differential" / "copied"

    def write(made: Path) -> None:
        write_bed(made / "bank", seed=8, copies=True)

    with open_bed(made_once(folder, write) / "bank") as opened:
        yield opened


@pytest.fixture(scope="session")
def old_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A bank as they were written that may hold NaN, which nobody changes."""
    folder = folder_of_run(tmp_path_factory) / "differential" / "old"

    def write(made: Path) -> None:
        write_bed(made / "bank", seed=6, old=True)

    with open_bed(made_once(folder, write) / "bank") as opened:
        yield opened
