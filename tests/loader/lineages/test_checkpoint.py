"""States found in checkpoints, whatever lies around them."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import checkpoint as distributed_checkpoint

from support.handmade import HANDLES, make
from tensorbank import FormatError, InvalidInputError
from tensorbank_loader import DataLoader, World
from tensorbank_loader.lineages import states_in
from tensorbank_loader.run_source import RunSource

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


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


class Trap:
    """An object whose pickle writes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class Settings(dict[str, Any]):
    """A class that whoever reads the checkpoint does not have."""


def test_classes_of_a_checkpoint_are_not_loaded(state, tmp_path):
    tree = {
        "trap": Trap(tmp_path / "sprung"),
        "settings": Settings(loader=state),
        "model": {"w": torch.ones(2)},
    }
    torch.save(tree, tmp_path / "new.ckpt")
    torch.save(tree, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(tree))
    distributed_checkpoint.save(tree, checkpoint_id=tmp_path / "dcp", no_dist=True)
    for name in ("new.ckpt", "old.pt", "plain.pkl", "dcp"):
        assert states_in(tmp_path / name) == [state], name
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "new.ckpt", weights_only=False)
    assert (tmp_path / "sprung").exists(), "the trap is one"


def test_a_sharded_checkpoint_with_its_state_elsewhere(state, tmp_path):
    """A state as one value, without a source, several, and beside it as Lightning keeps it."""
    distributed_checkpoint.save(
        {"loader": state, "w": torch.ones(2)},
        checkpoint_id=tmp_path / "one",
        planner=distributed_checkpoint.DefaultSavePlanner(flatten_state_dict=False),
        no_dist=True,
    )
    assert states_in(tmp_path / "one") == [state]
    untold, validation = other(state, source={}), other(state, fingerprint="e" * 32)
    distributed_checkpoint.save({"a": untold, "b": validation}, checkpoint_id=tmp_path / "two", no_dist=True)
    assert sorted(states_in(tmp_path / "two"), key=str) == sorted([untold, validation], key=str)
    distributed_checkpoint.save({"w": torch.ones(2)}, checkpoint_id=tmp_path / "three", no_dist=True)
    with pytest.raises(InvalidInputError, match="holds no state"):
        states_in(tmp_path / "three")
    torch.save({"loops": {"loader": state}}, tmp_path / "three" / "meta.pt")
    assert states_in(tmp_path / "three") == [state]


def test_a_damaged_sharded_checkpoint(state, tmp_path):
    folder = tmp_path / "dcp"
    distributed_checkpoint.save({"loader": state}, checkpoint_id=folder, no_dist=True)
    metadata, (values,) = (folder / ".metadata").read_bytes(), folder.glob("*.distcp")
    (folder / ".metadata").write_bytes(
        metadata.replace(values.name.encode(), b"../" + values.name[3:].encode())
    )
    with pytest.raises(FormatError, match="is no file of that folder"):
        states_in(folder)
    (folder / ".metadata").write_bytes(metadata[:-200])
    with pytest.raises(FormatError, match="holds no pickle"):
        states_in(folder)
    (folder / ".metadata").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FormatError, match="is not as torch"):
        states_in(folder)
    (folder / ".metadata").write_bytes(metadata)
    values.write_bytes(values.read_bytes()[:100])
    with pytest.raises(FormatError, match="incomplete"):
        states_in(folder)
    values.unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        states_in(folder)


def test_a_tree_that_meets_itself_ends(state):
    content: list[Any] = [state]
    for _ in range(60):
        content = [content, content]
    content.append(content)
    assert states_in({"a": content}) == [state]


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
    "told",
    [
        *([], {"plans": [{}]}, {"plans": 3}, {"mixing": {"seed": 1}}, "sql"),
        *(
            {"packed": 3},
            {"packed": "no base64"},
            {"packed": base64.b64encode(zlib.compress(b"{}")[:-4]).decode()},
        ),
    ],
    ids=repr,
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
