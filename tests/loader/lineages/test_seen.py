"""The samples that a run has seen, for every order, beside a count over every batch that its ranks were handed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorbank import InvalidInputError
from tensorbank.queries.proportions import Proportions
from tensorbank_loader import World
from tensorbank_loader.epochs import Cursor, Epochs, Trail
from tensorbank_loader.epochs.saved_state import loaded
from tensorbank_loader.lineages import seen
from tensorbank_loader.order import SampleOrder
from tensorbank_loader.order.mix_order import Mixed
from tensorbank_loader.order.plan_order import AsPlanned, Permuted
from tensorbank_loader.order.weighted_order import WeightedDraws, WeightedOnce
from tensorbank_loader.order.window_order import Windowed

N, SIZE = 43, 6
WEIGHTS = np.linspace(0, 1, N)
ORDERS: dict[str, SampleOrder] = {
    "plan": AsPlanned(N),
    "full": Permuted(N),
    "window": Windowed(N, 3, SIZE),
    "draws": WeightedDraws(50, WEIGHTS),
    "once": WeightedOnce(N - 3, WEIGHTS),
    "mix": Mixed(
        (Permuted(31), WeightedDraws(12, WEIGHTS[:12])),
        (31, 12),
        Proportions.of([0.7, 0.3], 1),
        "last",
        homogeneous=False,
        global_batch_size=SIZE,
        drop_last=False,
    ),
}


class Run:
    """A run by its cursors alone, one a rank, which counts what its ranks read as they go."""

    def __init__(self, epochs: Epochs) -> None:
        self.epochs = epochs
        self.n_times = np.zeros(epochs.n_samples, np.int64)
        self.last = np.full((epochs.n_samples, 2), -1)
        self.state: dict | None = None

    def go(self, n_ranks: int, n_steps: int, *, set_epoch: int | None) -> None:
        """Make at most so many steps of one epoch with so many ranks, and save the state."""
        states = []
        for rank in range(n_ranks):
            world = World(rank, n_ranks)
            cursor = Cursor(self.epochs, batch_size=None, world=world, on_iter="restart")
            if self.state is not None:
                cursor.load_state_dict(json.loads(json.dumps(self.state)))
            if set_epoch is not None:
                cursor.set_epoch(set_epoch)
            self._epoch(cursor, n_steps)
            states.append(cursor.state_dict())
        assert all(s == states[0] for s in states)
        self.state = states[0]

    def _epoch(self, cursor: Cursor, n_steps: int) -> None:
        epochs, world = cursor.begin()
        first = cursor.state
        for batch in range(first.position, min(first.position + n_steps, epochs.n_steps(world))):
            step = epochs.step(first.epoch, batch, world)
            share = epochs.share(first.epoch, batch, world)
            for position in share[: len(share) - step.n_padding].tolist():
                self.n_times[position] += 1
                self.last[position] = max(tuple(self.last[position]), (first.epoch, batch))
            cursor.state = epochs.after(step, world)


def steps() -> Iterator[st.SearchStrategy]:
    yield st.integers(1, 5)
    yield st.integers(1, 12)
    yield st.one_of(st.none(), st.none(), st.integers(0, 4))


@given(
    st.sampled_from(sorted(ORDERS)),
    st.sampled_from(["exact", "pad", "drop"]),
    st.booleans(),
    st.lists(st.tuples(*steps()), min_size=1, max_size=9),
)
@settings(max_examples=80)
def test_any_run(kind, even, drop_last, ways):
    epochs = Epochs(
        fingerprint="f",
        n_samples=N,
        global_batch_size=SIZE,
        seed=3,
        order=ORDERS[kind],
        drop_last=drop_last,
        even=even,
    )
    run = Run(epochs)
    for n_ranks, n_steps, set_epoch in ways:
        run.go(n_ranks, n_steps, set_epoch=set_epoch)
    assert len(json.dumps(run.state)) < 1024
    again, state = loaded(epochs, run.state, None)
    if run.state.get("had", {"earlier": ()})["earlier"] is None:
        with pytest.raises(InvalidInputError, match="more often than a state lists"):
            seen(again, state, run.state)
        return
    found = seen(again, state, run.state)
    assert found.n_times.tolist() == run.n_times.tolist()
    if "had" not in run.state:  # else an epoch may have come later than one of a higher number
        assert np.stack([found.last_epoch, found.last_batch], axis=1).tolist() == run.last.tolist()


def test_a_run_that_leaves_each_epoch_after_so_many_batches_is_told_in_one_line():
    epochs = Epochs("f", N, SIZE, 3, Permuted(N), drop_last=False)
    run = Run(epochs)
    for epoch in range(30):
        run.go(2, 3, set_epoch=epoch)
    assert run.state["had"] == {"earlier": [[0, 0, 0, 3, 0, 29]], "since": [29, 0]}
    found = seen(*loaded(epochs, run.state, None), run.state)
    assert found.n_times.sum() == 30 * 3 * SIZE
    assert found.n_times.tolist() == run.n_times.tolist()


def test_a_million_epochs_are_counted_and_not_computed():
    epochs = Epochs("f", N, SIZE, 3, Permuted(N), drop_last=False)
    cursor = Cursor(epochs, batch_size=None, world=World(), on_iter="restart")
    state = cursor.state_dict()
    assert seen(*loaded(epochs, state, None), state).n_times.sum() == 0
    run = Run(epochs)
    run.go(1, 8, set_epoch=None)
    assert run.state["epoch"] == 1
    far = cursor.state_dict() | {"epoch": 10**6, "position": 2}
    again, place = loaded(epochs, run.state, None)
    found = seen(again, type(place)(10**6, 2), far)
    assert sorted(set(found.n_times.tolist())) == [10**6, 10**6 + 1]
    assert found.n_times.sum() == 10**6 * N + 2 * SIZE
    assert set(found.last_epoch[found.n_times == 10**6].tolist()) == {10**6 - 1}


@pytest.mark.parametrize(
    "had",
    [
        1,
        {},
        {"earlier": []},
        {"earlier": [[0, 0, 1]], "since": [0, 0]},
        {"earlier": None, "since": [0]},
        {"earlier": [[0, 0, 1, 0, 0, 2**60]], "since": [0, 0]},
        {"earlier": [], "since": [-1, 0]},
    ],
    ids=repr,
)
def test_a_way_that_is_none(had):
    with pytest.raises(InvalidInputError, match="tells no way through epochs") as caught:
        Trail.of_state({"had": had, "n_ranks": 1})
    assert caught.value.kind == "other-state"
