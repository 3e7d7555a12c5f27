"""The README's examples run as they are printed; its commands and links lead somewhere, and it stays short."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.guides import run_guide

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TEXT = README.read_text()
MAX_LINES = 150
DEMO = "tensorbank demo --bank demo-bank --samples 64"
"""The first of the lines, by which ``demo_bank`` is made. ``test_demo`` runs it again over a bank that it has made."""


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute where the machine is quiet
def test_the_lines_run_as_printed_after_their_first_has_run(demo_bank, tmp_path):
    # the user's cache of index files stays out of the test: a folder bank has none
    shutil.copytree(demo_bank, tmp_path / "demo-bank")
    _, shown = run_guide(README, tmp_path, replace={DEMO: "tensorbank tables demo-bank"}).values()
    first = (demo_bank.parent / "said").read_text()
    assert first.count("equals its source: 448 of 448") == 1
    assert (demo_bank.parent / "demo-output" / "contact-sheet.png").stat().st_size > 10_000
    assert re.search(r"^samples +64 +\d+ +\d+$", shown, re.MULTILINE)
    assert "torch.Size([8, 12, 264, 264]) torch.int16" in shown


def test_every_command_of_the_readme_exists():
    named = set(re.findall(r"^(?: {4})?tensorbank (\w+)", TEXT, re.MULTILINE))
    listed = subprocess.run(
        [sys.executable, "-m", "tensorbank", "--help"], capture_output=True, text=True, check=True
    )
    assert named > {"demo", "ingest"}
    assert all(name in listed.stdout for name in named)


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= MAX_LINES
