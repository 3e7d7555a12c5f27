"""The changelog has the version of the code on top, and says where every package came from."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import tensorbank as tb

TEXT = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()


def test_the_newest_version_is_that_of_the_code():
    versions = re.findall(r"^## (\S+) \((not released yet|\d{4}-\d{2}-\d{2})\)$", TEXT, re.MULTILINE)
    assert versions
    assert len(versions) == len(re.findall(r"^## ", TEXT, re.MULTILINE))
    assert versions[0][0] == tb.__version__


def test_every_package_that_modules_moved_to_exists():
    cells = re.findall(r"^ +\| (`tensorbank.*?) \|", TEXT, re.MULTILINE)
    assert len(cells) > 20
    for cell in cells:
        first, *others = (name.strip("`") for name in cell.split(", "))
        room = first.partition(".")[0]
        for name in (first, *(f"{room}{other}" for other in others)):
            assert find_spec(name) is not None, name
