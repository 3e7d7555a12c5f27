"""Impossible arguments are refused by their names, at once."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

import tensorbank as tb
from support.handmade import HANDLES, Handmade, make
from tensorbank import InvalidInputError
from tensorbank_loader import DataLoader, StreamingDataset, World

N = 9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), N, handles=HANDLES[:1])


def weighted(made: Handmade, weights: object) -> tb.Plan:
    return replace(made.plan, table=made.plan.table.append_column("weight", pa.array(weights)))


ORDER = [
    ("seed", "a"),
    ("seed", -1),
    ("seed", 1.5),
    ("seed", True),
    ("seed", ""),
    ("shuffle", "some"),
    ("shuffle", 1),
    ("shuffle", ["full"]),
    ("replacement", "yes"),
    ("drop_last", "no"),
    ("even", ["exact"]),
    ("times", "two"),
    ("on_iter", None),
    ("world", (0, 1)),
    ("options", {"n_threads": 2}),
    ("transform", "flip"),
]


@pytest.mark.parametrize(("name", "value"), ORDER, ids=str)
@pytest.mark.parametrize("kind", [DataLoader, StreamingDataset])
def test_options_of_the_order(made, kind, name, value):
    with pytest.raises(InvalidInputError, match=name):
        kind(made.plan, global_batch_size=3, **{name: value})


@pytest.mark.parametrize("size", [2.5, 0, -1, "2", True, np.float64(2), [2]], ids=repr)
def test_sizes_of_batches(made, size):
    for name in ("batch_size", "global_batch_size"):
        with pytest.raises(InvalidInputError, match=f"^{name} is"):
            DataLoader(made.plan, **{name: size})
    with pytest.raises(InvalidInputError, match=r"^global_batch_size is"):
        StreamingDataset(made.plan, global_batch_size=size)


def test_whole_numbers_of_numpy_are_numbers(made):
    loader = DataLoader(made.plan, batch_size=np.int64(2), seed=np.uint8(3))
    loader.set_epoch(np.int32(1))
    assert json.loads(json.dumps(loader.state_dict()))["epoch"] == 1
    assert len(loader) == 5


@pytest.mark.parametrize("n_draws", [0, 2.5, "9", True])
def test_numbers_of_draws(made, n_draws):
    with pytest.raises(InvalidInputError, match="n_draws"):
        DataLoader(weighted(made, np.ones(N)), batch_size=2, n_draws=n_draws)


def test_draws_of_no_sample(made):
    empty = weighted(made, np.ones(N))
    empty = replace(empty, table=empty.table.slice(0, 0))
    with pytest.raises(InvalidInputError, match="n_draws is 4, but the plan selects no sample"):
        DataLoader(empty, batch_size=2, n_draws=4)
    assert list(DataLoader(empty, batch_size=2)) == []


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "gpu", "", 3.5, ["cuda"]], ids=str)
def test_devices(made, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InvalidInputError, match="device is") as caught:
        DataLoader(made.plan, batch_size=2, device=device)
    assert caught.value.kind == "no-device"


@pytest.mark.parametrize("plan", ["SELECT 1", None, 7], ids=repr)
def test_what_is_streamed(plan):
    for kind in (DataLoader, StreamingDataset):
        with pytest.raises(InvalidInputError, match="streams a plan or a mix"):
            kind(plan, global_batch_size=2)


@pytest.mark.parametrize("epoch", [-1, 1.0, "1", None, True], ids=repr)
def test_epochs(made, epoch):
    for one in (DataLoader(made.plan, batch_size=2), StreamingDataset(made.plan)):
        with pytest.raises(InvalidInputError, match="epoch is"):
            one.set_epoch(epoch)


# ------------------------------------------------------------- states


def state_of(made: Handmade) -> dict:
    return json.loads(json.dumps(DataLoader(made.plan, batch_size=2, world=World()).state_dict()))


@pytest.mark.parametrize("state", [None, 5, "state", [], [1]], ids=repr)
def test_states_are_mappings(made, state):
    for one in (DataLoader(made.plan, batch_size=2), StreamingDataset(made.plan, global_batch_size=2)):
        with pytest.raises(InvalidInputError, match="mapping") as caught:
            one.load_state_dict(state)
        assert caught.value.kind == "damaged-state"


def test_a_state_of_another_version_or_of_something_else(made):
    old = {k: v for k, v in state_of(made).items() if k != "digest"} | {"version": 2}
    for state in (old, {}, {"epoch": 1}):
        with pytest.raises(InvalidInputError, match="no digest") as caught:
            DataLoader(made.plan, batch_size=2).load_state_dict(state)
        assert caught.value.kind == "other-state"


def test_every_change_of_a_state_is_told(made):
    state = state_of(made)
    assert len(json.dumps(state)) < 1024
    changed = 0
    for name, value in state.items():
        for other in (None, "x", 1 if value != 1 else 2, [value], {"a": {1, 2}}, float("nan")):
            if other == value:
                continue
            with pytest.raises(InvalidInputError) as caught:
                DataLoader(made.plan, batch_size=2).load_state_dict({**state, name: other})
            assert caught.value.kind == "damaged-state"
            changed += 1
        without = {k: v for k, v in state.items() if k != name}
        with pytest.raises(InvalidInputError):
            DataLoader(made.plan, batch_size=2).load_state_dict(without)
    assert changed > 5 * len(state)


def test_every_flipped_bit_of_a_saved_state_is_told(made):
    with DataLoader(made.plan, batch_size=2, world=World()) as loader:
        next(iter(loader))
        text = json.dumps(loader.state_dict()).encode()
    told = same = 0
    for place in range(len(text)):
        for bit in range(8):
            body = bytearray(text)
            body[place] ^= 1 << bit
            try:
                state = json.loads(body)
            except ValueError:
                told += 1
                continue
            other = DataLoader(made.plan, batch_size=2, world=World())
            try:
                other.load_state_dict(state)
            except InvalidInputError:
                told += 1
            else:  # a space became a tab, or a letter of an escape the other case
                assert other.state_dict() == json.loads(text)
                same += 1
    assert told > 7 * len(text)
    assert same < 100


# ------------------------------------------------------------ weights


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (["0.5"] * N, "it is string"),
        ([float("nan")] * N, "it is nan at sample 0"),
        ([1.0] * (N - 1) + [float("inf")], f"it is inf at sample {N - 1}"),
        ([1.0, -2.0] + [1.0] * (N - 2), "it is -2.0 at sample 1"),
        ([1.0, None] + [1.0] * (N - 2), "it is None at sample 1"),
        ([0.0] * N, "0 for all samples"),
        ([[1.0]] * N, "it is list"),
    ],
    ids=str,
)
def test_sampling_weights(made, weights, said):
    with pytest.raises(InvalidInputError, match=said) as caught:
        DataLoader(weighted(made, weights), batch_size=2)
    assert caught.value.kind == "weights"
    assert "column 'weight'" in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([0.5, "a"], r"weights\[1\]"),
        ([0.5, float("nan")], r"weights\[1\]"),
        ([0.5, 0], r"weights\[1\]"),
        ([0.5, -1], r"weights\[1\]"),
        ([True, 1], r"weights\[0\]"),
        ("ab", "weights"),
        (None, "weights"),
        ([], "weights"),
        ([1.0], "as many weights"),
    ],
    ids=str,
)
def test_weights_of_a_running_mix(made, weights, said):
    loader = tb.mix([made.plan, made.plan]).dataloader(batch_size=2)
    with pytest.raises(InvalidInputError, match=said):
        loader.set_weights(weights)


@pytest.mark.parametrize(
    ("sources", "options", "said"),
    [
        ({"a": 1}, {}, "source 0 of the mix is 'a'"),
        ("SELECT 1", {}, "takes queries or plans"),
        (7, {}, "takes queries or plans"),
        ([None], {}, "source 0"),
        ("pair", {"seed": "a"}, "seed"),
        ("pair", {"seed": -1}, "seed"),
        ("pair", {"length": 2.5}, "length"),
        ("pair", {"length": "all"}, "length"),
        ("pair", {"length": True}, "length"),
        ("pair", {"temperature": "hot"}, "temperature"),
        ("pair", {"temperature": [1, 0]}, "temperature"),
        ("pair", {"temperature": 1e-300}, "temperature is 1e-300"),
        ("pair", {"temperature": float("nan")}, "temperature"),
        ("pair", {"homogeneous": "yes"}, "homogeneous"),
    ],
    ids=str,
)
def test_mixes(made, sources, options, said):
    with pytest.raises(InvalidInputError, match=said):
        tb.mix([made.plan, made.plan] if sources == "pair" else sources, **options)


@pytest.mark.parametrize("weight", ["a", True, float("inf"), float("nan"), 0, [1]], ids=str)
def test_weights_of_a_mix(made, weight):
    with pytest.raises(InvalidInputError, match="the weight of source 1 is"):
        tb.mix([(made.plan, 1), (made.plan, weight)])
