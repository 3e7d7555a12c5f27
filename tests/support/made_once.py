"""Folders that one worker of pytest-xdist makes for all of them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["folder_of_run", "made_once"]


def folder_of_run(factory: pytest.TempPathFactory) -> Path:
    """Return the temporary folder that all workers of this run share; without workers, that of the only process."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return ``folder`` as ``make(folder)`` filled it, which the first process to ask calls while others wait.

    Nobody may change what is in it. Where making it failed, the next to ask begins anew.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder.with_name(f"{folder.name}.done")
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
