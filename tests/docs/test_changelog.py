"""The changelog has the version of the code on top, and says where every package came from."""

from __future__ import annotations

import re
from pathlib import Path

import tensorbank as tb
from support.architecture import packages

TEXT = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()


def test_the_newest_version_is_that_of_the_code():
    versions = re.findall(r"^## (\S+) \((not released yet|\d{4}-\d{2}-\d{2})\)$", TEXT, re.MULTILINE)
    assert versions
    assert len(versions) == len(re.findall(r"^## ", TEXT, re.MULTILINE))
    assert versions[0][0] == tb.__version__


def test_every_package_that_modules_moved_to_is_told():
    moved = {
        cell
        for row in re.findall(r"^ +\| (`tensorbank.*?) \|", TEXT, re.MULTILINE)
        for cell in row.split(", ")
    }
    names = {cell.strip("`").lstrip(".") for cell in moved}
    expected = {p.name for p in packages()} - {"tensorbank", "tensorbank.testing"}
    told = {name for name in expected if name in names or name.rpartition(".")[2] in names}
    assert len(told) > 30
    rooms = {"tensorbank_indexer", "tensorbank_loader", "tensorbank_server"}
    stayed = {
        "tensorbank_indexer.sources",
        "tensorbank_demo.landscape",
        "tensorbank_demo.s3",
        "tensorbank_server.filters",
    }
    assert expected - told == rooms | stayed
