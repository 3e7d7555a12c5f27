"""States found in checkpoints, whatever lies around them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import torch

from support.handmade import HANDLES, make
from tensorbank import InvalidInputError
from tensorbank_loader import DataLoader, World
from tensorbank_loader.lineages import states_in
from tensorbank_loader.run_source import RunSource


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = make(tmp_path_factory.mktemp("part"), 20, handles=HANDLES[:1])
    return DataLoader(made.plan, global_batch_size=4, seed=3, world=World()).state_dict()


def other(state: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A sound state with other fields."""
    changed = {k: v for k, v in state.items() if k != "digest"} | fields
    text = json.dumps(changed, sort_keys=True, separators=(",", ":"))
    return {**changed, "digest": hashlib.sha256(text.encode()).hexdigest()[:16]}


def test_a_state_anywhere_in_a_tree(state, tmp_path):
    tree = {"model": {"w": torch.ones(2)}, "rest": [1, None, ({"deep": {"loader": state}},)]}
    assert states_in(state) == states_in(tree) == [state]
    torch.save(tree, tmp_path / "checkpoint.pt")
    assert states_in(tmp_path / "checkpoint.pt") == [state]
    (tmp_path / "state.json").write_text(json.dumps([{"loader": state}]))
    assert states_in(str(tmp_path / "state.json")) == [state]


def test_states_of_ranks_are_one_and_those_of_two_runs_are_two(state):
    later = other(state, position=2, origin=2)
    validation = other(state, fingerprint="e" * 32)
    assert states_in({"ranks": [state, later, state]}) == [later]
    assert states_in({"train": later, "val": validation}) == [later, validation]


def test_states_of_all_workers_are_needed(state):
    workers = [other(state, n_workers=2, position=p, origin=0) for p in (1, 2)]
    assert states_in({"workers": workers}) == [workers[1]]
    with pytest.raises(InvalidInputError, match="the states of 1 of 2 workers") as caught:
        states_in(workers[0])
    assert caught.value.kind == "other-state"


def test_states_that_are_not_read(state):
    with pytest.raises(InvalidInputError, match="was changed after") as caught:
        states_in({"loader": {**state, "position": 1}})
    assert caught.value.kind == "damaged-state"
    with pytest.raises(InvalidInputError, match="has version 2, and versions 3 and 4 are read") as caught:
        states_in(other(state, version=2))
    assert caught.value.kind == "other-state"
    with pytest.raises(InvalidInputError, match="holds no state"):
        states_in({"loader": {"epoch": 1}})


@pytest.mark.parametrize(
    "told", [[], {"plans": [{}]}, {"plans": 3}, {"mixing": {"seed": 1}}, "sql"], ids=repr
)
def test_a_source_that_is_none(told):
    if not told:
        assert RunSource.from_json(told) == RunSource()
        return
    with pytest.raises(InvalidInputError, match="tells no source that is understood") as caught:
        RunSource.from_json(told)
    assert caught.value.kind == "other-state"


def test_a_source_is_read_as_it_was_written(state):
    source = RunSource.from_json(state["source"])
    (plan,) = source.plans
    assert (plan.sql, plan.snapshots, plan.by_date) == ("SELECT handmade", {"t": ("id", 0)}, False)
    assert source.to_json() == state["source"]
