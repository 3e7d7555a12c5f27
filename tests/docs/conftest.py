"""The bank of which the guides speak."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo_bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank as the guides make it: ``tensorbank demo --bank demo-bank --samples 64``."""
    folder = tmp_path_factory.mktemp("guides")
    command = [sys.executable, "-m", "tensorbank", "demo", "--bank", "demo-bank", "--samples", "64"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "demo-bank"
