"""Tags: made once, never moved, found by name, damaged ones told."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

import tensorbank as tb
from support.handmade_index import make_table, part_of
from tensorbank import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from tensorbank.retention import create_tag, delete_tag, find_tag, list_tags
from tensorbank.storage import Store

NOW = datetime(2026, 3, 1, 12, 30, 15, 999, tzinfo=UTC)


def test_the_life_of_a_tag(store):
    assert list_tags(store, "t") == ([], [])
    made = create_tag(store, "t", "paper-v1", table_id="id", version=3, message="Table 2", now=NOW)
    assert (made.name, made.table_id, made.version, made.message) == ("paper-v1", "id", 3, "Table 2")
    assert made.created == NOW.replace(microsecond=0)
    assert find_tag(store, "t", "paper-v1") == made
    create_tag(store, "t", "b.2_x", table_id="id", version=1)
    create_tag(store, "u", "elsewhere", table_id="other", version=9)
    tags, damaged = list_tags(store, "t")
    assert [(t.name, t.version) for t in tags] == [("b.2_x", 1), ("paper-v1", 3)]
    assert damaged == []
    delete_tag(store, "t", "paper-v1")
    with pytest.raises(NotFoundError, match=r"no tag 'paper-v1'. There is only b\.2_x") as caught:
        find_tag(store, "t", "paper-v1")
    assert caught.value.kind == "unknown-tag"
    with pytest.raises(NotFoundError, match=r"Did you mean 'b\.2_x'"):
        delete_tag(store, "t", "b.2_y")


def test_a_tag_is_never_moved(store):
    create_tag(store, "t", "a", table_id="id", version=1)
    with pytest.raises(ConflictError, match="never moved; delete it first") as caught:
        create_tag(store, "t", "a", table_id="id", version=2)
    assert caught.value.kind == "tag-exists"
    assert find_tag(store, "t", "a").version == 1


def test_of_writers_at_once_one_has_the_name(store):
    store.exists("t")  # opens the client

    def attempt(version: int) -> int | None:
        try:
            return create_tag(store, "t", "a", table_id="id", version=version).version
        except ConflictError:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [v for v in pool.map(attempt, range(8)) if v is not None]
    assert won == [find_tag(store, "t", "a").version]


def test_a_create_whose_answer_was_lost_has_made_the_tag(folder_store, monkeypatch):
    create = Store.create

    def lossy(self, key, data):
        create(self, key, data)
        create(self, key, data)  # the second try of a client meets the object of the first

    monkeypatch.setattr(Store, "create", lossy)
    assert create_tag(folder_store, "t", "a", table_id="id", version=1).version == 1


@pytest.mark.parametrize("name", ["", "1a", "-a", ".a", "a/b", "a b", "ä", "a\n", "a" * 65, None, 3])
def test_a_name_is_checked(folder_store, name):
    for call in (
        lambda: create_tag(folder_store, "t", name, table_id="id", version=1),
        lambda: find_tag(folder_store, "t", name),
        lambda: delete_tag(folder_store, "t", name),
    ):
        with pytest.raises(InvalidInputError, match="cannot name a tag"):
            call()


@pytest.mark.parametrize("message", ["x" * 1001, None, 3])
def test_a_message_is_checked(folder_store, message):
    with pytest.raises(InvalidInputError, match="message"):
        create_tag(folder_store, "t", "a", table_id="id", version=1, message=message)


def test_a_tag_in_the_place_of_another_is_told(folder_store):
    for version, name in enumerate(("a", "b")):
        create_tag(folder_store, "t", name, table_id="id", version=version)
    folder_store.put("t/tags/a.json", folder_store.get("t/tags/b.json"))
    with pytest.raises(IntegrityError, match=r"t/tags/a\.json holds the tag 'b'"):
        find_tag(folder_store, "t", "a")
    tags, damaged = list_tags(folder_store, "t")
    assert ([t.name for t in tags], len(damaged)) == (["b"], 1)


def test_a_damaged_tag_is_told_and_can_be_deleted(folder_store):
    create_tag(folder_store, "t", "a", table_id="id", version=1)
    create_tag(folder_store, "t", "b", table_id="id", version=2)
    folder_store.put(
        "t/tags/a.json", folder_store.get("t/tags/a.json").replace(b'"version": 1', b'"version": 2')
    )
    folder_store.put("t/tags/notes.txt", b"not a tag")
    with pytest.raises(IntegrityError, match=r"t/tags/a\.json is damaged"):
        find_tag(folder_store, "t", "a")
    tags, damaged = list_tags(folder_store, "t")
    assert [t.name for t in tags] == ["b"]
    assert ["a.json" in str(e) for e in damaged] == [True]
    delete_tag(folder_store, "t", "a")
    assert list_tags(folder_store, "t")[1] == []


def test_an_object_of_a_later_format_is_no_tag_of_ours(folder_store):
    from tensorbank.retention.sealed_json import sealed

    folder_store.put("t/tags/a.json", sealed({"format": 2, "kind": "tag"}))
    with pytest.raises(IntegrityError, match="another format"):
        find_tag(folder_store, "t", "a")


def test_a_tag_says_in_json_what_it_is(folder_store):
    create_tag(folder_store, "t", "a", table_id="id", version=1, message="m", now=NOW)
    found = json.loads(folder_store.get("t/tags/a.json"))
    assert list(found) == [
        *("format", "kind", "name", "id", "table_id", "version", "message", "created", "owner", "crc32c")
    ]
    assert found["created"] == "2026-03-01T12:30:15+00:00"
    assert set(found["owner"]) == {"user", "host", "pid", "program"}


def test_tags_of_a_table_in_python(tmp_path):
    bank = tb.create(tmp_path)
    make_table(bank, "t", parts=2, n=3)
    table = bank.table("t")
    newest = table.tag("newest", message="all")
    assert newest.version == 2
    table.at(1).tag("first")
    assert [(t.name, t.version) for t in table.tags()] == [("first", 1), ("newest", 2)]
    bank.catalog.commit("t", part_of("t", "later", 3))
    assert [table.at(v).snapshot().n_samples for v in ("first", "newest")] == [3, 6]
    assert bank.at({"T": "newest"}).versions == {"t": 2}
    with pytest.raises(NotFoundError, match="version 9"):
        table.at(9).tag("later")
    with pytest.raises(NotFoundError, match="Did you mean 'first'"):
        table.at("frist")
    with pytest.raises(NotFoundError, match="no table"):
        bank.table("nothing").tags()
    table.untag("first")
    assert [t.name for t in table.tags()] == ["newest"]
    assert bank.tables() == ["t"]


def test_a_tag_of_an_earlier_table_of_the_name_is_told(tmp_path):
    bank = tb.create(tmp_path)
    make_table(bank, "t", parts=1, n=3)
    create_tag(bank.catalog.store, "t", "old", table_id="another", version=1)
    with pytest.raises(NotFoundError, match="was there before"):
        bank.table("t").at("old")
