"""The page of the architecture names what there is."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from support.architecture import PAGE, as_table, floors, packages, table_of_page, without_sizes

TEXT = PAGE.read_text()
MODULES = sorted(set(re.findall(r"`(tensorbank\w*(?:\.[a-z_0-9]+)*)`", TEXT)))
MAX_FILES = 12
"""About a dozen modules in a package, and its ``__init__``: one knows a room at a glance."""


def test_the_table_of_packages_is_that_of_today():
    today = without_sizes(as_table(packages()))
    assert len(today) > 30
    assert without_sizes(table_of_page()) == today, "run `make architecture`"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_the_page_exists(name):
    assert find_spec(name) is not None


def test_every_package_says_what_it_is_in_a_sentence():
    found = packages()
    assert len(found) > 30
    for package in found:
        assert re.fullmatch(r"[A-Z`].*[^.]\.", package.sentence), package


def test_no_package_is_larger_than_about_a_dozen_modules():
    crowded = {p.name: p.n_files for p in packages() if p.n_files > MAX_FILES}
    assert not crowded


def test_floors_are_printed_from_the_contracts():
    printed = floors()
    assert "packages of the core:" in printed
    assert "tensorbank_indexer | tensorbank_server | tensorbank_loader" in printed
    assert "deltalake is imported by tensorbank.delta" in printed
