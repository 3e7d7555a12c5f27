"""The order of an epoch: a permutation that no hardware can change."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorbank import InvalidInputError
from tensorbank_loader.epochs import Epochs, Share, State, World
from tensorbank_loader.order.permutation import permute
from tensorbank_loader.order.plan_order import AsPlanned, Permuted
from tensorbank_loader.order.weighted_order import WeightedDraws, WeightedOnce
from tensorbank_loader.order.window_order import Windowed

sizes = st.integers(1, 300)
keys = st.integers(0, 2**40)


@given(sizes, keys, st.integers(0, 1000))
def test_a_permutation_has_every_position_once(n, seed, epoch):
    order = permute(np.arange(n), n, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(n))


@given(sizes, keys, st.lists(st.integers(0, 10**6), max_size=20))
def test_places_can_be_asked_for_one_by_one(n, seed, places):
    at = np.array([p % n for p in places], np.int64)
    np.testing.assert_array_equal(
        permute(at, n, seed=seed, epoch=0), permute(np.arange(n), n, seed=seed, epoch=0)[at]
    )


def test_seed_and_epoch_are_the_key():
    orders = [permute(np.arange(1000), 1000, seed=s, epoch=e).tolist() for s in range(3) for e in range(3)]
    assert len({tuple(o) for o in orders}) == 9


def test_the_order_is_pinned():
    """Another order under the same state would repeat and skip samples of running trainings."""
    assert permute(np.arange(10), 10, seed=7, epoch=1).tolist() == [7, 6, 2, 3, 1, 5, 0, 8, 9, 4]
    assert permute(np.array([0, 10**12 - 1]), 10**12, seed=0, epoch=0).tolist() == [
        163752343372,
        484293010007,
    ]


@pytest.mark.parametrize("n", [2, 3, 5, 16, 37])
def test_every_sample_is_as_likely_in_every_place(n):
    epochs = 4000
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), permute(np.arange(n), n, seed=0, epoch=epoch)] += 1
    expected = epochs / n
    chi2 = ((counts - expected) ** 2 / expected).sum() * (n - 1) / n  # rows and columns have fixed sums
    freedom = (n - 1) ** 2
    assert chi2 < freedom + 5 * np.sqrt(2 * freedom)


@st.composite
def runs(draw: st.DrawFn) -> Epochs:
    n = draw(st.integers(0, 200))
    size = draw(st.integers(1, 70))
    kinds = [AsPlanned(n), Permuted(n), Windowed(n, draw(st.integers(1, 9)), size)]
    if n:
        weights = np.random.default_rng(n).uniform(0, 1, n) ** 3
        weights[:: max(2, n // 3)] = 0 if n > 1 else 1
        weights[-1] = 0.5
        kinds += [WeightedDraws(2 * n, weights), WeightedOnce(int((weights > 0).sum()), weights)]
    order = draw(st.sampled_from(kinds))
    return Epochs("f", n, size, draw(st.integers(0, 2**32)), order, draw(st.booleans()))


def in_turn(per_worker: list[list[tuple[int, list[int]]]]) -> list[tuple[int, list[int]]]:
    """Merge the workers' batches as a DataLoader does:
    one of each in turn, skipping those that are through."""
    queues = [list(w) for w in per_worker]
    merged = []
    while any(queues):
        merged += [q.pop(0) for q in queues if q]
    return merged


def steps_of(shares: Iterable[Share]) -> Iterator[tuple[int, list[int]]]:
    """Number and positions of each step, whatever was read together."""
    for steps, positions in shares:
        assert sum(s.n_samples for s in steps) == len(positions)
        ends = np.cumsum([s.n_samples for s in steps])
        for step, mine in zip(steps, np.split(positions, ends[:-1]), strict=True):
            yield step.batch, mine.tolist()


def global_batches(run: Epochs, state: State, n_ranks: int, n_workers: int) -> dict[int, list[int]]:
    """Return the global batches as a world of ranks and workers reads them together;
    each rank's in ascending order."""
    found: dict[int, list[int]] = {}
    for rank in range(n_ranks):
        per_worker = [
            list(steps_of(run.shares(state, World(rank, n_ranks, w, n_workers)))) for w in range(n_workers)
        ]
        mine = in_turn(per_worker)
        assert [b for b, _ in mine] == sorted(b for b, _ in mine), "out of order"
        for batch, share in mine:
            found.setdefault(batch, []).extend(share)
    return found


@given(runs(), st.integers(1, 9), st.integers(1, 4), st.integers(0, 10), st.integers(0, 5))
@settings(max_examples=150)
def test_global_batches_are_the_same_in_every_world(run, n_ranks, n_workers, position, epoch):
    position = min(position, run.n_batches)
    state = State(epoch, position, 0, position)
    alone = global_batches(run, state, 1, 1)
    assert global_batches(run, state, n_ranks, n_workers) == alone
    assert sorted(alone) == list(range(position, run.n_batches))


@given(runs(), st.integers(1, 9))
@settings(max_examples=100)
def test_each_sample_once_an_epoch_and_lengths_are_exact(run, n_ranks):
    everything = list(chain(*global_batches(run, State(), n_ranks, 1).values()))
    length = run.order.n_places
    n = length - length % run.global_batch_size if run.drop_last else length
    assert len(everything) == n
    if not isinstance(run.order, WeightedDraws):
        assert len(set(everything)) == n
    if isinstance(run.order, AsPlanned | Permuted | Windowed) and not run.drop_last:
        assert sorted(everything) == list(range(n))
    for rank in range(n_ranks):
        steps = list(steps_of(run.shares(State(), World(rank, n_ranks))))
        assert run.n_steps(World(rank, n_ranks)) == len(steps) == run.n_batches
        assert run.n_samples_of(World(rank, n_ranks)) == sum(len(s) for _, s in steps)


@given(runs(), st.integers(1, 9))
def test_shares_of_a_batch_differ_by_one_at_most_and_the_first_are_larger(run, n_ranks):
    for batch in range(run.n_batches):
        bounds = [run.bounds(batch, World(rank, n_ranks)) for rank in range(n_ranks)]
        lengths = [end - start for start, end in bounds]
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] - lengths[-1] <= 1


def test_without_shuffle_the_order_is_the_plans():
    run = Epochs("f", 7, 3, 0, AsPlanned(7), False)
    assert [s for _, s in steps_of(run.shares(State(), World()))] == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("wrong", [{"global_batch_size": 0}, {"seed": -1}], ids=["batch", "seed"])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InvalidInputError):
        Epochs(
            **{
                "fingerprint": "f",
                "n_samples": 5,
                "global_batch_size": 2,
                "seed": 0,
                "order": Permuted(5),
                "drop_last": False,
                **wrong,
            }
        )


def test_the_world_is_detected_from_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert World.detect() == World(2, 4)
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(InvalidInputError, match="RANK"):
        World.detect()
    with pytest.raises(InvalidInputError):
        World(4, 4)
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert World.detect() == World()


def chi2_is_plausible(counts: np.ndarray, expected: float) -> bool:
    freedom = counts.size - 1
    return abs(((counts - expected) ** 2 / expected).sum() - freedom) < 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("n", [1000, 4097, 100_003])
def test_neighbouring_places_and_neighbouring_epochs_have_nothing_to_do_with_each_other(n):
    """Serial tests: of sums modulo n, which hold the difference, and of pairs of tenths."""
    epochs = [permute(np.arange(n), n, seed=11, epoch=e) for e in range(max(2, 200_000 // n))]
    here = np.concatenate([e[:-1] for e in epochs])
    there = np.concatenate([e[1:] for e in epochs])
    later = np.concatenate(epochs[1:]), np.concatenate(epochs[:-1])
    for a, b in ((here, there), later):
        apart = (b - a) % n * 50 // n
        assert chi2_is_plausible(np.bincount(apart, minlength=50), len(a) / 50)
        pairs = (a * 10 // n) * 10 + b * 10 // n
        assert chi2_is_plausible(np.bincount(pairs, minlength=100), len(a) / 100)


@pytest.mark.parametrize("n", [64, 1000, 1025])
def test_seeds_that_differ_by_one_give_unrelated_orders(n):
    same = [
        (permute(np.arange(n), n, seed=s, epoch=0) == permute(np.arange(n), n, seed=s + 1, epoch=0)).sum()
        for s in range(300)
    ]
    assert abs(np.mean(same) - 1) < 5 / np.sqrt(300), "as many fixed points as chance has"


def test_the_order_of_a_billion_samples_takes_no_memory():
    tracemalloc.start()
    permute(np.arange(10**9 - 512, 10**9), 10**9, seed=0, epoch=0)
    Windowed(10**9, 8, 512).positions(np.arange(512), seed=0, epoch=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
