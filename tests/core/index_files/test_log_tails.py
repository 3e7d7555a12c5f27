"""Lists of logs that begin where the last one ended: what they leave out, and when they are not believed."""

from __future__ import annotations

import pytest

from support.handmade_index import SCHEMA
from tensorbank import NotFoundError
from tensorbank.delta import append_commit, commit_actions, creation_actions, write_checkpoint
from tensorbank.delta.actions import LevelChange
from tensorbank.index_files import LOG, IndexMirror, commit_name
from tensorbank.index_schema import samples_schema
from tensorbank.storage import Store

KEY = "t/index/samples"


class ListingStore(Store):
    """A store that counts the objects in its answers."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.n_listed: list[int] = []

    def objects(self, prefix="", late_s=None, *, after=""):
        found = super().objects(prefix, after=after)
        self.n_listed.append(len(found))
        return found


@pytest.fixture
def store(tmp_path):
    return ListingStore((tmp_path / "bank").as_uri())


class CopyingMirror(IndexMirror):
    """A mirror that copies the files of a folder, too, as it does those of a store."""

    in_place = None


@pytest.fixture(params=[IndexMirror, CopyingMirror])
def mirror(store, tmp_path, request):
    return request.param(store, tmp_path / "cache")


def append(store: Store, version: int, table_id: str = "one") -> None:
    actions = creation_actions(table_id, samples_schema(SCHEMA), {}) if version == 0 else []
    said = commit_actions(KEY, LevelChange(), {"n": version})
    append_commit(store, KEY, version, actions + said, {"tensorbank.id": f"{table_id}-{version}"})


def test_a_list_begins_at_the_newest_commit_that_was_met(store, mirror):
    for version in range(30):
        append(store, version)
        log = mirror.log(KEY)
        assert (log.version, len(log.names)) == (version, version + 1)
    assert store.n_listed == ([1] if mirror.in_place else [1, *[2] * 29]), "files of a folder are looked for"
    assert mirror.log(KEY, 29) == log
    assert mirror.log(KEY, 7).names == log.names[:8]
    assert len(mirror.log(KEY, whole=True).names) == 30
    with pytest.raises(NotFoundError):
        mirror.log(KEY, 30)


def test_a_checkpoint_that_comes_later_is_found(store, mirror):
    for version in range(4):
        append(store, version)
    log = mirror.log(KEY)
    write_checkpoint(store, KEY, log)
    append(store, 4)
    assert [n[18:] for n in mirror.log(KEY).names] == [
        "03.checkpoint.parquet",
        "03.checkpoint.crc32c",
        "03.json",
        "04.json",
    ]
    assert mirror.log(KEY, 2).names == log.names[:3], "what lies before the checkpoint is listed"


def test_a_table_that_was_made_anew_is_another(store, mirror):
    for version in range(3):
        append(store, version)
    old = mirror.log(KEY)
    for version in range(3):
        store.delete(f"{KEY}/{LOG}/{commit_name(version)}")
    for version in range(5):
        append(store, version, "two")
    new = mirror.log(KEY)
    assert (new.version, new.first != old.first) == (4, True)
    assert new == type(mirror)(store, mirror.folder).log(KEY)


def test_commits_that_were_cleaned_away_are_not_believed_to_be_there(store, tmp_path):
    mirror = IndexMirror(store, tmp_path / "cache")
    for version in range(6):
        append(store, version)
    mirror.log(KEY)
    other = IndexMirror(Store(store.url), tmp_path / "other")
    write_checkpoint(store, KEY, other.log(KEY, 3))
    for version in range(3):
        store.delete(f"{KEY}/{LOG}/{commit_name(version)}")
    assert mirror.log(KEY).names[0].endswith("3.checkpoint.parquet")


def test_a_folder_is_looked_at_from_its_last_checkpoint_on(store, tmp_path):
    for version in range(6):
        append(store, version)
    every = IndexMirror(store, tmp_path / "cache").log(KEY)
    write_checkpoint(store, KEY, IndexMirror(store, tmp_path / "cache").log(KEY, 3))
    store.n_listed.clear()
    mirror = IndexMirror(store, tmp_path / "cache")
    log = mirror.log(KEY)
    assert store.n_listed == []
    assert (log, [n[18:] for n in log.names][-3:]) == (every, ["03.json", "04.json", "05.json"])
    assert mirror.log(KEY, 2).names == every.names[:3]


@pytest.mark.parametrize("hint", [b"", b"[]", b'{"version":"x"}', b'{"version":2}', b'{"version":9}'])
def test_a_hint_that_leads_nowhere_is_not_followed(store, tmp_path, hint):
    for version in range(6):
        append(store, version)
    write_checkpoint(store, KEY, IndexMirror(store, tmp_path / "cache").log(KEY, 3))
    log = IndexMirror(store, tmp_path / "cache").log(KEY)
    store.put(f"{KEY}/{LOG}/_last_checkpoint", hint)
    other = IndexMirror(store, tmp_path / "cache").log(KEY)
    assert (other, other.names) == (log, log.names)
