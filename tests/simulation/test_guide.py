"""The guide of forecasts runs as printed, and has its pictures."""

from __future__ import annotations

import re
from pathlib import Path

from support.guides import read_blocks, run_guide

GUIDE = Path(__file__).parents[2] / "loader" / "FORECAST.md"


def test_the_guide_runs_as_printed(tmp_path):
    outputs = run_guide(GUIDE, tmp_path)
    assert len(outputs) == sum(block.is_run for block in read_blocks(GUIDE)) == 2
    command, python = outputs.values()
    assert command.startswith("an epoch of 35,157 steps")
    assert re.search(r"bound by \w+", python)


def test_its_pictures_are_there_and_small():
    pictures = re.findall(r"!\[[^]]+\]\(([\w.-]+\.png)\)", GUIDE.read_text())
    assert len(pictures) == 4
    for name in pictures:
        file = GUIDE.parent / name
        assert file.read_bytes().startswith(b"\x89PNG")
        assert file.stat().st_size < 80_000
