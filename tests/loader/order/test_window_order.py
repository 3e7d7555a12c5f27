"""The window shuffle: a permutation, the same everywhere, as well mixed as a uniform one, and read in larger pieces."""

from __future__ import annotations

import doctest
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbank as tb
from support.handmade import HANDLES, Handmade, make
from tensorbank import Plan
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.reading.read_plan import plan_reads
from tensorbank_loader import DataLoader, World
from tensorbank_loader.epochs import Epochs, State
from tensorbank_loader.order import window_order
from tensorbank_loader.order.permutation import permute
from tensorbank_loader.order.window_order import MAX_RUN, RUN_BYTES, Windowed, address_order, run_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), 70)


def everything(order: Windowed, *, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return order.positions(np.arange(order.n_places), seed=seed, epoch=epoch)


@given(
    st.integers(1, 3000), st.integers(1, 70), st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 9)
)
@settings(max_examples=200)
def test_it_is_a_permutation_of_which_every_place_can_be_asked_for_alone(n, run, size, seed, epoch):
    order = Windowed(n, run, size)
    whole = everything(order, seed=seed, epoch=epoch)
    assert sorted(whole.tolist()) == list(range(n))
    some = np.random.default_rng(n).integers(0, n, 50)
    np.testing.assert_array_equal(order.positions(some, seed=seed, epoch=epoch), whole[some])


def test_the_order_is_pinned():
    """Another order under the same state would repeat and skip samples of running trainings."""
    assert everything(Windowed(17, 3, 2), seed=7, epoch=1).tolist() == PINNED


def test_the_example_of_the_documentation_is_as_printed():
    assert doctest.testmod(window_order, extraglobs={"np": np}) == (0, 1)


PINNED = [3, 9, 4, 7, 2, 8, 14, 16, 15, 0, 13, 1, 11, 5, 12, 6, 10]


def test_seed_and_epoch_are_the_key():
    orders = [everything(Windowed(1000, 8, 32), seed=s, epoch=e).tolist() for s in range(3) for e in range(3)]
    assert len({tuple(o) for o in orders}) == 9


@given(st.integers(1, 400), st.integers(1, 9), st.integers(1, 40))
@settings(max_examples=100)
def test_a_column_of_a_group_is_neighbours_so_that_any_rank_reads_whole_runs(n, run, size):
    order = Windowed(n, run, size)
    whole = everything(order)
    for start in range(0, n, run * size):
        group = whole[start : start + run * size]
        for column in range(min(size, len(group))):
            mine = np.sort(group[column::size])
            apart = np.diff(mine)
            # A run wraps around once; the shorter columns of the last group may span two runs.
            assert (apart > 1).sum() <= (1 if len(group) == run * size else 2)


def n_groups(positions: np.ndarray, group_of: np.ndarray, size: int) -> float:
    batches = group_of[positions[: len(positions) // size * size]].reshape(-1, size)
    return float(np.mean([len(np.unique(b)) for b in batches]))


@pytest.mark.parametrize("per_shard", [20, 64, 500])
@pytest.mark.parametrize("size", [32, 256, 1000])
@pytest.mark.parametrize("run", [4, 16])
def test_batches_come_from_as_many_shards_as_those_of_a_uniform_shuffle(per_shard, size, run):
    n = 40_000
    shard = np.arange(n) // per_shard
    uniform = n_groups(permute(np.arange(n), n, seed=1, epoch=0), shard, size)
    window_order = n_groups(everything(Windowed(n, run, size), seed=1), shard, size)
    assert window_order / uniform >= 0.98
    sequential = n_groups(np.arange(n), shard, size)
    assert sequential / uniform < 0.5, "the score tells orders apart"


def test_every_sample_is_as_likely_in_every_batch():
    n, size, epochs = 60, 12, 3000
    counts = np.zeros((n, n // size))
    order = Windowed(n, 3, size)
    for epoch in range(epochs):
        counts[everything(order, epoch=epoch), np.arange(n) // size] += 1
    expected = epochs * size / n
    chi2 = ((counts - expected) ** 2 / expected).sum()
    freedom = (n - 1) * (n // size - 1)
    # A run's samples are spread over a group's batches one each, so places are less scattered than chance, not more.
    assert chi2 < freedom + 5 * np.sqrt(2 * freedom)
    assert counts.std() / expected < 0.1


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_requests_are_fewer_and_larger_than_those_of_a_full_shuffle(made, n_ranks):
    plan = replace(made.plan, handles=HANDLES[:1])

    def n_requests(shuffle: str) -> int:
        total = 0
        for rank in range(n_ranks):
            loader = DataLoader(plan, global_batch_size=9, shuffle=shuffle, world=World(rank, n_ranks))
            for _, positions in loader.epochs.shares(State(), loader.world):
                total += len(plan_reads(plan.addresses, positions, FetchOptions(max_amplification=1.0)))
        return total

    wide, narrow = n_requests("window"), n_requests("full")
    assert narrow > 40
    assert wide <= narrow / 2


def test_a_run_is_by_stored_bytes_and_addresses_are_sorted(made):
    assert run_of(made.plan) == min(MAX_RUN, -(-RUN_BYTES * len(made.plan) // made.plan.read_bytes))
    a = made.plan.addresses
    largest = max(a, key=lambda name: a[name].lengths.sum())
    order = address_order(made.plan)
    keys = list(zip(a[largest].shard_of[order].tolist(), a[largest].starts[order, 0].tolist(), strict=True))
    assert keys == sorted(keys)
    already = replace(made.plan, table=made.plan.table.take(order))
    assert address_order(already) is None
    nothing = replace(made.plan, table=made.plan.table.slice(0, 0))
    assert list(DataLoader(nothing, batch_size=4, shuffle="window")) == []


def of_tiles(made: Handmade) -> Plan:
    """A plan of one window of each sample."""
    handles = tuple(replace(h, window=(4, 4)) for h in HANDLES[:1])
    corners = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2 * len(made.plan), np.int16)), 2)
    table = made.plan.table.append_column(f"{handles[0].name}.corner", corners)
    return replace(made.plan, handles=handles, table=table)


def several(plan: Plan, n: int) -> Plan:
    return replace(plan, table=plan.table.take(np.repeat(np.arange(len(plan)), n)))


def test_windows_of_one_sample_count_its_bytes_once(made, monkeypatch):
    plan = of_tiles(made)
    monkeypatch.setattr(window_order, "RUN_BYTES", 4 * plan.read_bytes // len(plan))
    thrice = several(plan, 3)
    assert run_of(plan) == 4
    assert run_of(thrice) == 12
    assert run_of(replace(thrice, handles=HANDLES[:1])) == 4, "whole samples that come thrice are read thrice"


def test_tiles_that_share_blocks_are_read_in_windows_unless_told_otherwise(made):
    tiles = of_tiles(made)

    def kind(plan: Plan | tb.Mix, **options: object) -> object:
        return DataLoader(plan, batch_size=4, **options).epochs.order.identity["shuffle"]

    assert kind(several(tiles, 3)) == "window"
    assert kind(several(tiles, 3), shuffle="full") == "full"
    assert kind(several(tiles, 3), shuffle=False) is None
    assert kind(tiles) == "full", "one tile a sample shares nothing"
    assert kind(several(made.plan, 3)) == "full", "whole samples are no tiles"
    assert kind(tb.mix([several(tiles, 3), tiles])) == "full", "a mix takes its samples one by one"


def test_a_group_is_not_larger_than_its_memory_but_for_one_batch(made, monkeypatch):
    sample_bytes = sum(math.prod(h.shape) * np.dtype(h.modality.dtype).itemsize for h in HANDLES[:1])
    plan = several(of_tiles(made), 8)
    sample_bytes = sample_bytes // math.prod(HANDLES[0].shape[-2:]) * 16
    monkeypatch.setattr(window_order, "MAX_GROUP_BYTES", 40 * sample_bytes)
    rows = {n: DataLoader(plan, global_batch_size=n).epochs.order.n_together for n in (4, 8, 20, 40, 41, 500)}
    assert rows == {4: 10, 8: 5, 20: 2, 40: 1, 41: 1, 500: 1}


def test_a_run_goes_on_where_its_group_is_larger(made, monkeypatch):
    """The size of a group follows the global batch, which a state keeps."""
    plan = several(of_tiles(made), 8)
    monkeypatch.setattr(window_order, "MAX_GROUP_BYTES", 1 << 13)
    with DataLoader(plan, global_batch_size=8, on_iter="continue") as loader:
        ids = [batch["sample_id"] for batch in loader]
        state = next(loader.state_dict() for i, _ in enumerate(loader) if i == 6)
        again = [batch["sample_id"] for batch in loader]
    with DataLoader(plan, global_batch_size=32) as other:
        assert other.epochs.order.run != loader.epochs.order.run
        other.load_state_dict(state)
        assert [batch["sample_id"] for batch in other] == again
    assert len(ids) == len(again) + 7


def test_batches_of_a_group_are_cut_out_of_one_read(made):
    with DataLoader(made.plan, batch_size=6, seed=3, shuffle="window") as loader:
        assert loader.epochs.order.n_together > 1
        expected = loader.epochs
        at = {name: i for i, name in enumerate(made.plan.table["sample_id"].to_pylist())}
        for number, batch in enumerate(loader):
            positions = [at[name] for name in batch["sample_id"]]
            assert positions == expected.share(0, number, World()).tolist()
            for handle in made.plan.handles:
                truth = made.truth[handle.name][positions]
                truth = truth[:, 0] if handle.modality.n_times == 1 else truth
                np.testing.assert_array_equal(batch[handle.name].numpy(), truth)
            assert batch["mask"]["LULC"].shape == (len(positions),)
        assert number == len(loader) - 1


def test_another_batch_size_is_another_order():
    a = Epochs("f", 100, 10, 0, Windowed(100, 3, 10), False)
    assert a.resized(7).order.global_batch_size == 7
    assert a.resized(10) is a
