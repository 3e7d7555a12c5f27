"""Ranks that share one plan: who plans, what is mapped, and what is said where it cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tensorbank as tb
from support import SUPPORT, WITH_SUPPORT
from support.streamed_bank import make_bank
from tensorbank_loader import World, shared_plan

N = 24
pytestmark = pytest.mark.timeout(200)


def make(folder: Path) -> Path:
    make_bank(tb.create(folder / "bank"), "t", N)
    return folder / "bank"


def run(modes: str, bank: Path, *folders: Path, status: tuple[int, ...] = (0, 0)) -> tuple[Any, list[str]]:
    """Run all ranks, each with a folder for temporary files, and return what each printed, and the warnings in all logs."""
    place = (bank.parent / "meeting").as_uri()
    n_ranks = str(len(folders))
    node = {"WORLD_SIZE": n_ranks, "LOCAL_WORLD_SIZE": n_ranks} if len(set(folders)) == 1 else {}
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                SUPPORT / "sharing_rank.py",
                modes,
                str(bank),
                place,
                str(rank),
                str(len(folders)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**WITH_SUPPORT, **node, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
        )
        for rank, folder in enumerate(folders)
    ]
    try:
        outs = [rank.communicate(timeout=150) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert tuple(rank.returncode for rank in ranks) == status, outs
    told = [json.loads(out) if out else None for out, _ in outs]
    return told, [line for _, said in outs for line in said.splitlines() if line.startswith("WARNING")]


def folder_of(bank: Path, name: str, *, usable: bool = True) -> Path:
    """Return a folder for temporary files, in which none of ours can be made unless it is usable."""
    folder = bank.parent / name
    folder.mkdir()
    if not usable:
        (folder / f"tensorbank-{os.geteuid()}").write_text("in the way")
    return folder


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, list[Any]], list[str]]:
    """The bank, the folder of temporary files, and what two ranks of a node had in each mode, one after the other."""
    bank = make(tmp_path_factory.mktemp("node"))
    folder = folder_of(bank, "tmp")
    modes = "share,fail,interrupt,absent,late,large"
    told, warned = run(modes, bank, folder, folder)
    return bank, folder, {mode: [one[mode] for one in told] for mode in modes.split(",")}, warned


def test_rank_0_plans_and_the_ranks_of_its_node_map_its_file(node):
    _, folder, modes, _ = node
    told = modes["share"]
    assert [one["n_planned"] for one in told] == [2, 0]
    first = told[0]
    assert len({name for one in told for name in one["ids"]}) == sum(len(one["ids"]) for one in told) == N
    assert told[1]["fingerprints"] == first["fingerprints"]
    assert len(first["files"]) == 1
    assert told[1]["files"] == first["files"]
    left = [path.name for path in folder.rglob("*") if path.is_file()]
    assert left == [], "files go with the last rank"


def test_all_ranks_get_the_error_of_rank_0(node):
    told = node[2]["fail"]
    assert {(one["class"], one["kind"]) for one in told} == {("InvalidInputError", "unknown-table")}
    assert "nowhere" in told[0]["message"]
    assert told[1]["message"] == f"rank 0, which plans for all ranks: {told[0]['message']}"


def test_all_ranks_are_told_when_rank_0_is_interrupted(node):
    told = node[2]["interrupt"]
    assert [one["kind"] for one in told] == ["interrupted", "world"]
    assert "KeyboardInterrupt" in told[1]["message"]


def test_a_rank_that_rank_0_does_not_plan_for_plans_for_itself(node):
    assert [one["n_planned"] for one in node[2]["absent"]] == [2, 2]
    assert len([line for line in node[3] if "plans for itself, since rank 0 has not asked" in line]) == 1


def test_ranks_that_come_after_a_commit_stream_what_rank_0_saw(node):
    told = node[2]["late"]
    assert [one["n_planned"] for one in told] == [1, 0]
    assert sum(one["had"] for one in told) == N
    assert {one["newest"] for one in told} == {N + 8}


def test_the_memory_of_a_node_holds_a_plan_once(node):
    told = node[2]["large"]
    assert [one["n_planned"] for one in told] == [1, 0]
    assert len({one["total"] for one in told}) == 1
    size = told[0]["bytes"]
    assert size > 20 << 20
    assert told[1]["grown"] < 0.25 * size, told


def test_ranks_of_other_nodes_fetch_it_and_one_without_a_disk_holds_it_alone(tmp_path):
    bank = make(tmp_path)
    folders = [folder_of(bank, "a"), folder_of(bank, "b"), folder_of(bank, "c", usable=False)]
    ranks, warned = run("share", bank, *folders, status=(0, 0, 0))
    told = [one["share"] for one in ranks]
    assert [one["n_planned"] for one in told] == [2, 0, 0]
    assert [len(one["files"]) for one in told] == [1, 1, 0]
    assert told[0]["files"] != told[1]["files"]
    assert len([line for line in warned if "cannot be shared in" in line]) == 2


def test_each_plans_for_itself_where_rank_0_has_no_disk(tmp_path):
    bank = make(tmp_path)
    folders = [folder_of(bank, "a", usable=False), folder_of(bank, "b")]
    ranks, warned = run("share", bank, *folders)
    told = [one["share"] for one in ranks]
    assert [one["n_planned"] for one in told] == [2, 2]
    assert len({tuple(one["fingerprints"]) for one in told}) == 1
    assert sum("rank 0 cannot hand its plan over" in line for line in warned) == 2
    assert sum("plans for itself, since rank 0 could not" in line for line in warned) == 2


def test_ranks_end_when_rank_0_ends_in_the_middle_of_planning(tmp_path):
    bank = make(tmp_path)
    told, _ = run("die", bank, *[folder_of(bank, "tmp")] * 2, status=(9, 0))
    assert told[1]["die"]["kind"] == "world"
    assert "no sign of life" in told[1]["die"]["message"]


def test_without_a_group_it_is_the_plan_of_the_query(tmp_path):
    query = tb.open(make(tmp_path)).sql("SELECT sample_id, S2 FROM t")
    assert shared_plan(query) == query.plan()
    assert shared_plan(query, world=World(1, 3)) == query.plan()
