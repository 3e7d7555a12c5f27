"""Versions that are read without their files, whose list is asked for later: of the log as it is then."""

from __future__ import annotations

import shutil

import pytest

import tensorbank as tb
from support.handmade_index import make_table, part_of
from tensorbank import NotFoundError
from tensorbank.delta import own_files, reading

LEVELS = ("samples", "tiles", "shards")


@pytest.fixture
def bank(tmp_path):
    bank = tb.create(tmp_path / "bank", cache=tmp_path / "cache")
    make_table(bank, "t", parts=3, n=2)
    return bank


@pytest.fixture
def listed(monkeypatch):
    """Note the tables whose files are listed."""
    found, files_of = [], reading.files_of

    def noted(actions, key, where):
        found.append(key.rpartition("/")[2])
        return files_of(actions, key, where)

    for module in (reading, own_files):
        monkeypatch.setattr(module, "files_of", noted)
    return found


def test_a_commit_lists_no_files_but_those_of_keys(bank, tmp_path, listed):
    other = tb.open(bank.url, cache=tmp_path / "other")
    done = [other.catalog.add("t", part_of("t", name, 2)) for name in ("x", "y")]
    assert ([d.version for d in done], {*listed}) == ([4, 5], {"keys"})
    listed.clear()
    assert len(other.catalog.version("t").samples.files) == 5
    assert listed == ["samples"]


def test_files_are_listed_of_a_log_that_begins_later(bank, tmp_path):
    """The commits that were there when the version was read are gone, and a checkpoint has what they said."""
    version = tb.open(bank.url, cache=tmp_path / "other").catalog.version("t")
    bank.catalog.checkpoint("t")
    for number in range(3):
        (tmp_path / f"bank/t/index/samples/_delta_log/{number:020}.json").unlink()
    assert [f.n_rows for f in version.samples.files] == [2, 2, 2]


def test_files_are_not_those_of_a_table_that_was_made_anew(bank, tmp_path):
    catalog = tb.open(bank.url, cache=tmp_path / "other").catalog
    version = catalog.version("t")
    states = [catalog.state(version, level) for level in LEVELS]
    shutil.rmtree(tmp_path / "bank/t")
    make_table(bank, "t", parts=4, n=2, prefix="other")
    for state in states:
        with pytest.raises(NotFoundError, match="made anew"):
            _ = state.files
    assert len(catalog.version("t").samples.files) == 4
