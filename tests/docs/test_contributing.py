"""The commands and files that CONTRIBUTING names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_every_target_of_make_exists():
    named = set(re.findall(r"`make ([a-z-]+)", TEXT))
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named >= {"check", "test", "docs", "fuzz", "floors"}
    assert not named - there


def test_every_path_exists():
    paths = set(re.findall(r"`((?:tests|tensorbank|sources|sql)/[\w/.]+)`", TEXT))
    paths |= {path for line in re.findall(r"pytest -q (\S+)", TEXT) for path in [line]}
    assert len(paths) > 15
    places = (ROOT, ROOT / "tensorbank", ROOT / "indexer" / "tensorbank_indexer")
    missing = {path for path in paths if not any((place / path).exists() for place in places)}
    assert not missing


def test_floors_are_not_copied():
    assert "layers" not in TEXT
    assert not re.search(r"^ +\w+ \| \w+", TEXT, re.MULTILINE)
