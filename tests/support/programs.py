"""Programs of the system that some tests need: without them a test is skipped in one line, and fails where CI promises them."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["SYSTEM_PATH", "program", "require_programs", "unavailable"]

SYSTEM_PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
"""The path with the folders of daemons, which not every user has in it."""


def program(name: str) -> str:
    """Return the path of a program; its name if it is not installed."""
    return shutil.which(name, path=SYSTEM_PATH) or name


def require_programs(packages: str, *names: str) -> None:
    """Skip a test, or fail in CI, unless some programs are installed.

    Parameters
    ----------
    packages
        Debian's packages that have them.
    """
    missing = [name for name in names if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        unavailable(f"{', '.join(missing)} not installed: apt-get install {packages}")


def unavailable(reason: str) -> None:
    """Skip a test for what this machine lacks, or fail where CI promises it."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(reason)
    pytest.skip(reason)
