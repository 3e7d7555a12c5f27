"""The order on any hardware: worlds of any size see the same global batches, and make equal numbers of steps."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.handmade import HANDLES, Handmade, make
from tensorbank import InvalidInputError
from tensorbank.queries.proportions import Proportions
from tensorbank_loader import DataLoader, StreamingDataset, World
from tensorbank_loader.epochs import Epochs, State
from tensorbank_loader.epochs.saved_state import loaded, saved
from tensorbank_loader.order import SampleOrder, batch_bounds
from tensorbank_loader.order.mix_order import Mixed
from tensorbank_loader.order.plan_order import AsPlanned, Permuted
from tensorbank_loader.order.weighted_order import WeightedDraws, WeightedOnce
from tensorbank_loader.order.window_order import Windowed

N, SIZE = 211, 24
RANKS = (1, 2, 3, 5, 7, 8, 16)
WORKERS = (0, 1, 2, 3)
WEIGHTS = np.linspace(0, 1, N)


def mixed_of(homogeneous: bool) -> Mixed:
    orders = (Permuted(151), AsPlanned(60))
    return Mixed(orders, (151, 60), Proportions.of([0.7, 0.3], 1), "last", homogeneous, SIZE, drop_last=False)


ORDERS: dict[str, SampleOrder] = {
    "plan": AsPlanned(N),
    "full": Permuted(N),
    "window": Windowed(N, 3, SIZE),
    "draws": WeightedDraws(300, WEIGHTS),
    "once": WeightedOnce(N - 1, WEIGHTS),
    "mix": mixed_of(False),
    "batches": mixed_of(True),
}


def epochs_of(order: SampleOrder, **options: object) -> Epochs:
    return Epochs(
        **{
            "fingerprint": "f",
            "n_samples": N,
            "global_batch_size": SIZE,
            "seed": 3,
            "order": order,
            "drop_last": False,
            **options,
        }
    )


def steps_of_rank(run: Epochs, state: State, rank: int, n_ranks: int, n_workers: int) -> Iterator[list[int]]:
    """Yield what a rank sees step by step, when torch's DataLoader takes from its workers in turn."""

    def of_worker(worker: int) -> Iterator[list[int]]:
        for steps, positions in run.shares(state, World(rank, n_ranks, worker, max(n_workers, 1))):
            ends = np.cumsum([s.n_samples for s in steps])
            yield from (part.tolist() for part in np.split(positions, ends[:-1]))

    turns = [of_worker(w) for w in range(max(n_workers, 1))]
    for number in range(run.n_batches - state.position):
        yield next(turns[number % len(turns)])
    assert [next(turn, None) for turn in turns] == [None] * len(turns)


def global_steps(run: Epochs, state: State, n_ranks: int, n_workers: int) -> list[list[int]]:
    ranks = [steps_of_rank(run, state, rank, n_ranks, n_workers) for rank in range(n_ranks)]
    return [list(chain(*shares)) for shares in zip(*ranks, strict=True)]


def sha(batches: list[list[int]]) -> str:
    return hashlib.sha256(json.dumps(batches).encode()).hexdigest()


@pytest.mark.parametrize("kind", ORDERS)
def test_the_sequence_of_global_batches_is_the_same_in_every_world(kind):
    run = epochs_of(ORDERS[kind])
    hashes = {
        sha([b for epoch in range(3) for b in global_steps(run, State(epoch), n_ranks, n_workers)])
        for n_ranks in RANKS
        for n_workers in WORKERS
    }
    assert len(hashes) == 1


@pytest.mark.parametrize("kind", ORDERS)
def test_a_run_saved_at_any_step_goes_on_in_any_world(kind):
    run = epochs_of(ORDERS[kind])
    alone = global_steps(run, State(1), 1, 0)
    assert len(alone) == run.n_batches >= 9
    for done in range(run.n_batches):
        told = json.dumps(saved(run, State(1, done, 0, done), World(n_ranks=2)))
        assert len(told) < 1024
        for n_ranks, n_workers in ((1, 3), (5, 0), (16, 2)):
            other = run.resized(7)  # another world, another batch size asked for: the run's is kept
            again, state = loaded(other, json.loads(told), World(0, n_ranks))
            assert again.global_batch_size == SIZE
            assert global_steps(again, state, n_ranks, n_workers) == alone[done:]


@given(
    st.integers(0, 60),
    st.integers(1, 20),
    st.integers(1, 9),
    st.sampled_from(["exact", "pad", "drop"]),
    st.booleans(),
)
@settings(max_examples=200)
def test_ranks_make_equal_numbers_of_steps_however_they_share(n, size, n_ranks, even, drop_last):
    run = Epochs("f", n, size, 0, Permuted(n), drop_last, even)
    worlds = [World(rank, n_ranks) for rank in range(n_ranks)]
    ranks = [[s for (s,), _ in run.shares(State(), w)] for w in worlds]
    parts = [[p.tolist() for _, p in run.shares(State(), w)] for w in worlds]
    assert {len(r) for r in ranks} == {run.n_steps(worlds[0])}
    assert [sum(s.n_samples for s in r) for r in ranks] == [run.n_samples_of(w) for w in worlds]
    whole = Epochs("f", n, size, 0, Permuted(n), drop_last)
    for number in range(run.n_steps(worlds[0])):
        steps = [r[number] for r in ranks]
        batch = whole.share(0, number, World()).tolist()
        sizes = [s.n_samples for s in steps]
        assert sizes == [len(p[number]) for p in parts]
        real = list(
            chain(*(p[number][: s.n_samples - s.n_padding] for p, s in zip(parts, steps, strict=True)))
        )
        padding = [
            x for p, s in zip(parts, steps, strict=True) for x in p[number][s.n_samples - s.n_padding :]
        ]
        if even == "exact":
            assert real == batch
            assert max(sizes) - min(sizes) <= 1
            assert not padding
        elif even == "pad":
            assert real == batch
            assert len(set(sizes)) == 1
            assert len(padding) < n_ranks
            assert set(padding) <= set(batch)
        else:
            assert len(set(sizes)) == 1
            assert sizes[0] > 0
            assert real == batch[: len(real)]
            assert len(batch) - len(real) < n_ranks
            assert not padding
    left_out = run.n_batches - run.n_steps(worlds[0])
    assert left_out == 0 or even == "drop"
    if left_out:
        start, end = batch_bounds(run.n_batches - 1, n, size)
        assert end - start < n_ranks


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 3), st.integers(1, 4))
def test_an_endless_stream_runs_on_into_the_next_epochs(n, size, n_workers, n_ranks):
    run = Epochs("f", n, size, 0, Windowed(n, 3, size), False)
    world = World(n_ranks - 1, n_ranks, n_workers - 1, n_workers)
    one_by_one = [(steps, p.tolist()) for epoch in range(3) for steps, p in run.shares(State(epoch), world)]
    endless = run.shares(State(), world, endless=True) if one_by_one else iter(())
    assert [(steps, p.tolist()) for (steps, p), _ in zip(endless, one_by_one, strict=False)] == one_by_one


# ----------------------------------------------------------- loaders


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), 23)


def ids(batch: dict) -> list[str]:
    return list(batch["sample_id"])


def test_an_empty_batch_looks_like_any_other(made):
    """23 samples in batches of 10: the last has 3, for 4 ranks."""
    loader = DataLoader(made.plan, global_batch_size=10, world=World(3, 4))
    *_, before, last = list(loader)
    assert ids(last) == []
    assert last.keys() == before.keys()
    for name in (h.name for h in made.plan.handles):
        assert last[name].shape == (0, *before[name].shape[1:])
        assert last[name].dtype == before[name].dtype
    assert {k: len(v) for k, v in last["mask"].items()} == dict.fromkeys(before["mask"], 0)
    assert len(loader) == 3


def test_padding_is_marked_and_true_data(made):
    ranks = [
        list(DataLoader(made.plan, global_batch_size=10, even="pad", seed=1, world=World(rank, 4)))
        for rank in range(4)
    ]
    alone = [ids(b) for b in DataLoader(made.plan, batch_size=10, seed=1)]
    assert [len(rank) for rank in ranks] == [len(alone)] * 4 == [3] * 4
    for number, steps in enumerate(zip(*ranks, strict=True)):
        assert {len(ids(b)) for b in steps} == {3 if number < 2 else 1}
        real = [i for b in steps for i, fill in zip(ids(b), b["padding"].tolist(), strict=True) if not fill]
        assert real == alone[number]
        for b in steps:
            assert set(ids(b)) <= set(alone[number])
            at = [made.plan.table["sample_id"].to_pylist().index(i) for i in ids(b)]
            np.testing.assert_array_equal(b["S2"].numpy(), made.truth["S2"][at, 0])


def test_a_loader_takes_over_the_runs_global_batch(made):
    first = DataLoader(made.plan, batch_size=4, seed=1, world=World(0, 2))
    batches = iter(first)
    next(batches)
    state = first.state_dict()
    first.close()
    expected = [ids(b) for b in DataLoader(made.plan, global_batch_size=8, seed=1)][1:]
    ranks = [DataLoader(made.plan, batch_size=4, seed=1, world=World(r, 3)) for r in range(3)]
    for loader in ranks:
        assert loader.epochs.global_batch_size == 12
        loader.load_state_dict(state)
        assert loader.epochs.global_batch_size == 8
    together = [list(chain(*shares)) for shares in zip(*([ids(b) for b in x] for x in ranks), strict=True)]
    assert together == expected


def test_a_state_inside_of_a_batch_is_for_as_many_ranks(made):
    dataset = StreamingDataset(made.plan, seed=1, world=World(0, 2))
    samples = iter(dataset)
    next(samples)
    state = dataset.state_dict()
    samples.close()
    with pytest.raises(InvalidInputError, match="as 2 ranks share it, and here are 3"):
        StreamingDataset(made.plan, seed=1, world=World(0, 3)).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({}, "either batch_size"),
        ({"batch_size": 2, "global_batch_size": 2}, "either batch_size"),
        ({"batch_size": 2, "even": "uneven"}, "'exact', 'pad' or 'drop'"),
        ({"batch_size": 2, "shuffle": "some"}, "'full', 'window' or None"),
    ],
)
def test_options_that_make_no_sense_are_refused(made, options, hint):
    with pytest.raises(InvalidInputError, match=hint):
        DataLoader(made.plan, **options)


def test_handles_of_a_plan_with_a_column_padding_are_not_overwritten(made):
    table = made.plan.table.rename_columns({"count": "padding"})
    plan = dataclasses.replace(made.plan, handles=HANDLES[:1], table=table)
    assert DataLoader(plan, batch_size=3)
    with pytest.raises(InvalidInputError, match="'padding'"):
        DataLoader(plan, batch_size=3, even="pad")


@pytest.mark.parametrize("kind", [DataLoader, StreamingDataset])
def test_ranks_whose_last_batch_is_empty_are_told_of_it(made, caplog, kind):
    """23 samples in batches of 10: the last has 3."""
    for n_ranks, options, n_told in (
        (4, {}, 1),
        (3, {}, 0),
        (4, {"even": "pad"}, 0),
        (4, {"even": "drop"}, 0),
        (4, {"drop_last": True}, 0),
    ):
        caplog.clear()
        one = kind(made.plan, global_batch_size=10, world=World(0, n_ranks), **options)
        for _ in range(2):
            assert list(one)
        told = [r.getMessage() for r in caplog.records if r.name.startswith("tensorbank_loader")]
        assert len(told) == n_told
        assert all("even='pad'" in text and "3 global batches" in text for text in told)
