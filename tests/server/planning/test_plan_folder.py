"""The files of plans: found again, owned, and removed by age and by size."""

from __future__ import annotations

import os

import pytest

from tensorbank_server.planning import PlanFolder, PlanRequest
from tensorbank_server.planning.plan_folder import UNFINISHED_S, PlanRecord
from tensorbank_server.workers.jobs import PlanMade

NOW_S = 1_700_000_000.0
MADE = PlanMade("f" * 64, 3, 2, 100, 400, 1, None, {"samples": [10, 3]})


def record(n: int) -> PlanRecord:
    return PlanRecord(PlanRequest("eo", "t", n, "id", f"SELECT {n}", {"table": "t"}), MADE, NOW_S)


@pytest.fixture
def folder(tmp_path):
    return PlanFolder(tmp_path, lifetime_s=100, max_bytes=30)


def keep(folder: PlanFolder, n: int, *, age_s: float, n_bytes: int = 10) -> str:
    """Keep a plan that was used last ``age_s`` ago; return its id."""
    identity = record(n).request.id
    folder.path(identity).write_bytes(b"x" * n_bytes)
    folder.write(record(n))
    os.utime(folder.path(identity), (NOW_S - age_s, NOW_S - age_s))
    return identity


def names(folder: PlanFolder) -> set[str]:
    return {path.name for path in folder.folder.iterdir()}


def test_a_record_is_found_again_while_its_plan_is_there(folder):
    identity = keep(folder, 1, age_s=0)
    assert folder.read(identity) == record(1)
    folder.path(identity).unlink()
    assert folder.read(identity) is None
    assert folder.read("0" * 32) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"request": {}, "made": {}, "created_s": 1}'])
def test_a_damaged_record_is_none(folder, text):
    identity = keep(folder, 1, age_s=0)
    (folder.folder / f"{identity}.json").write_text(text)
    assert folder.read(identity) is None


def test_what_is_unused_for_long_is_removed_with_all_its_files(folder):
    old, new = keep(folder, 1, age_s=101), keep(folder, 2, age_s=99)
    for identity in (old, new):
        folder.add_owner(identity, "ann", wants=True)
    assert folder.evict(NOW_S) == [old]
    assert names(folder) == {f"{new}.{suffix}" for suffix in ("arrow", "json", "owners")}


def test_the_longest_unused_goes_first_where_there_are_too_many_bytes(folder):
    ids = [keep(folder, n, age_s=age_s) for n, age_s in enumerate([40, 10, 30, 20])]
    assert folder.evict(NOW_S) == [ids[0]]
    assert {name for name in names(folder) if name.endswith("arrow")} == {f"{i}.arrow" for i in ids[1:]}


def test_files_that_were_left_behind_are_removed(folder):
    identity = keep(folder, 1, age_s=0)
    for name, age_s in (
        ("a.part", UNFINISHED_S + 1),
        ("b.part", UNFINISHED_S - 1),
        ("c.owners", 101),
        ("d.owners", 99),
    ):
        (folder.folder / name).touch()
        os.utime(folder.folder / name, (NOW_S - age_s, NOW_S - age_s))
    assert folder.evict(NOW_S) == []
    assert names(folder) == {f"{identity}.arrow", f"{identity}.json", "b.part", "d.owners"}


def test_owners_are_those_who_asked_and_have_not_left(folder):
    for owner, wants in (("ann", True), ("bob", True), ("ann", False), ("cem", True)):
        folder.add_owner("x", owner, wants=wants)
    with (folder.folder / "x.owners").open("a") as torn:
        torn.write('{"owner": "dan"\n{"owner": 5, "wants": true}\n[]\n')
    folder.add_owner("x", "eve", wants=True)
    assert folder.owners("x") == {"bob", "cem", "eve"}
    assert folder.owners("y") == set()
