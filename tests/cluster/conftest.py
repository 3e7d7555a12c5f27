"""Clusters on this host. Run by ``make test-cluster``."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.programs import require_programs
from support.slurm import PACKAGES, PROGRAMS, Slurm


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """SLURM with three nodes."""
    require_programs(PACKAGES, *PROGRAMS)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: sockets lie in it
    try:
        with Slurm.running(folder) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)
