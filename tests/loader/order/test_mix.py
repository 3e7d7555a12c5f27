"""Mixes: proportions hold everywhere, every source keeps an order of its own, and runs go on where they stood."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
import torch.utils.data
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbank as tb
from support.handmade import HANDLES, Handmade, make
from support.resume import assert_resumable
from tensorbank import InvalidInputError
from tensorbank.plans import StoreAddress
from tensorbank.queries.proportions import Proportions
from tensorbank_loader import DataLoader, StreamingDataset, World
from tensorbank_loader.epochs import Epochs, State
from tensorbank_loader.order.mix_order import Mixed
from tensorbank_loader.order.plan_order import Permuted

ALIKE = HANDLES[:1]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("banks") / "one bank", 23, handles=ALIKE)


@pytest.fixture(scope="module")
def two(one: Handmade) -> Handmade:
    return make(one.folder.parent / "two", 11, handles=ALIKE)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    """A bank of other tensors."""
    return make(tmp_path_factory.mktemp("other"), 9, handles=(HANDLES[2], HANDLES[4]))


def ids(batch: dict) -> list[tuple[int, str]]:
    return list(zip(batch["mixed_from"].tolist(), batch["sample_id"], strict=True))


# ------------------------------------------------------- proportions


weights = st.lists(st.floats(0.005, 1.0), min_size=1, max_size=12)


@given(weights, st.integers(0, 2**40), st.integers(0, 10**9))
@settings(max_examples=100)
def test_any_thousand_samples_hold_each_source_within_one_percent(weights, seed, start):
    proportions = Proportions.of(weights, seed)
    source, before = proportions.assign(np.arange(start, start + 3000))
    shares = np.array(weights) / sum(weights)
    for s, share in enumerate(shares):
        mine = np.cumsum(source == s)
        in_window = mine[999:] - np.concatenate([[0], mine[:-1000]])[: len(mine) - 999]
        assert abs(in_window - 1000 * share).max() <= 10
        whole = proportions.counts(10**7)[s]
        assert abs(whole - 10**7 * share) <= 10**4
    at_start = np.array(proportions.counts(start))
    for s in range(len(weights)):
        mine = before[source == s]
        np.testing.assert_array_equal(mine, at_start[s] + np.arange(len(mine)))


@given(weights, st.integers(0, 100), st.integers(1, 2000))
@settings(max_examples=50)
def test_when_a_source_is_through_is_known_in_advance(weights, seed, n):
    proportions = Proportions.of(weights, seed)
    for s in range(len(weights)):
        places = proportions.places_until(s, n)
        assert proportions.counts(places)[s] == n
        assert proportions.counts(places - 1)[s] == n - 1


def mixed(lengths: list[int], weights: list[float], size: int = 8, **options: object) -> Mixed:
    return Mixed(
        **{
            "orders": tuple(Permuted(n) for n in lengths),
            "lengths": tuple(lengths),
            "proportions": Proportions.of(weights, 3),
            "length": "last",
            "homogeneous": False,
            "global_batch_size": size,
            "drop_last": False,
            **options,
        }
    )


def stream(order: Mixed, n_epochs: int, *, drop_last: bool = False, size: int = 8) -> list[list[int]]:
    run = Epochs("f", sum(order.lengths), size, 5, order, drop_last)
    return [
        list(chain(*(p.tolist() for _, p in run.shares(State(epoch), World())))) for epoch in range(n_epochs)
    ]


@pytest.mark.parametrize("homogeneous", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("length", ["first", "last", 50, 17])
def test_each_source_is_gone_through_before_it_repeats_across_epochs(homogeneous, drop_last, length):
    lengths = [40, 7, 19]
    order = mixed(lengths, [0.5, 0.3, 0.2], length=length, homogeneous=homogeneous, drop_last=drop_last)
    starts = np.cumsum([0, *lengths])
    seen = np.array(list(chain(*stream(order, 9, drop_last=drop_last))))
    for s, n in enumerate(lengths):
        mine = seen[(seen >= starts[s]) & (seen < starts[s + 1])] - starts[s]
        turns = [tuple(mine[i : i + n].tolist()) for i in range(0, len(mine) - n + 1, n)]
        assert turns
        assert all(sorted(turn) == list(range(n)) for turn in turns)
        assert len(set(turns)) == len(turns), "a source is shuffled anew each time"


@pytest.mark.parametrize("homogeneous", [False, True])
def test_the_length_of_an_epoch(homogeneous):
    lengths, size = [40, 12], 8

    def drawn(length: object) -> tuple[int, ...]:
        return mixed(lengths, [0.5, 0.5], length=length, homogeneous=homogeneous).drawn_before(1)

    assert drawn("first")[1] == -(-12 // size) * size if homogeneous else 12
    assert drawn("last")[0] == 40
    assert sum(drawn(33)) == (40 if homogeneous else 33)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.integers(1, 20),
    st.booleans(),
    st.booleans(),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(0, 4),
)
@settings(max_examples=60, deadline=None)
def test_global_batches_are_the_same_in_every_world(
    lengths, size, homogeneous, drop, n_ranks, n_workers, epoch
):
    weights = [1.0 + i for i in range(len(lengths))]
    order = mixed(lengths, weights, size, homogeneous=homogeneous, drop_last=drop)
    run = Epochs("f", sum(lengths), size, 5, order, drop)
    alone = {steps[0].batch: p.tolist() for steps, p in run.shares(State(epoch), World())}
    together: dict[int, list[int]] = {}
    for rank in range(n_ranks):
        for worker in range(n_workers):
            for steps, p in run.shares(State(epoch), World(rank, n_ranks, worker, n_workers)):
                together.setdefault(steps[0].batch, []).extend(p.tolist())
    assert together == alone
    starts = np.cumsum([0, *lengths])
    if homogeneous:
        for batch in alone.values():
            assert len(set(np.searchsorted(starts, batch, side="right"))) == 1


def test_weights_change_from_an_epoch_on_and_sources_go_on_where_they_are():
    lengths = [40, 30]
    before = mixed(lengths, [0.5, 0.5], length=20)
    after = before.reweighted([0.9, 0.1], epoch=2)
    assert after.drawn == before.drawn_before(2) == (20, 20)
    seen = list(chain(*stream(before, 2)))
    run = Epochs("f", 70, 8, 5, after, False)
    later = [list(chain(*(p.tolist() for _, p in run.shares(State(e), World())))) for e in (2, 3, 4)]
    assert [sum(p < 40 for p in epoch) for epoch in later] == [18, 18, 18]
    first = [p for p in seen + list(chain(*later)) if p < 40]
    assert sorted(first[:40]) == list(range(40)), "nothing repeats, nothing is left out"
    with pytest.raises(InvalidInputError, match="set for epoch 2"):
        next(run.shares(State(1), World()))


# ----------------------------------------------------------- mixing


def test_weights_and_temperature(one, two):
    pair = [one.plan, two.plan]

    def shares(*args: object, **options: object) -> list[float]:
        w = np.array(tb.mix(*args, **options).weights)
        return (w / w.sum()).tolist()

    assert shares({one.plan: 0.7, two.plan: 0.3}) == pytest.approx([0.7, 0.3])
    assert shares([(one.plan, 7), (two.plan, 3)]) == pytest.approx([0.7, 0.3])
    assert shares(pair) == pytest.approx([23 / 34, 11 / 34])
    assert shares(pair, temperature=float("inf")) == pytest.approx([0.5, 0.5])
    root = 23**0.5 + 11**0.5
    assert shares(pair, temperature=2) == pytest.approx([23**0.5 / root, 11**0.5 / root])
    assert shares(pair, temperature=[1, float("inf")]) == pytest.approx([23 / 24, 1 / 24])


def test_tensors_and_metadata_are_those_of_the_sources(one, two):
    mix = tb.mix({one.plan: 0.6, two.plan: 0.4}, seed=4)
    truths = {0: one, 1: two}
    seen: Counter[int] = Counter()
    with mix.dataloader(batch_size=5) as loader:
        for batch in loader:
            for i, (source, name) in enumerate(ids(batch)):
                made = truths[source]
                position = made.plan.table["sample_id"].to_pylist().index(name)
                np.testing.assert_array_equal(batch["S2"][i].numpy(), made.truth["S2"][position, 0])
                assert batch["count"][i] == made.plan.table["count"][position].as_py()
                seen[source] += 1
    assert seen[0] >= 23
    assert seen[1] >= 11
    assert seen[0] / seen.total() == pytest.approx(0.6, abs=0.05)


def test_batches_of_one_source_may_have_tensors_of_their_own(one, other):
    mix = tb.mix([(one.plan, 1), (other.plan, 2)], homogeneous=True)
    kinds: Counter[frozenset[str]] = Counter()
    with mix.dataloader(global_batch_size=4, seed=8) as loader:
        for batch in loader:
            (source,) = set(batch["mixed_from"].tolist())
            made = (one, other)[source]
            kinds[frozenset(batch) & {"S2", "series", "LULC"}] += 1
            at = [made.plan.table["sample_id"].to_pylist().index(n) for n in batch["sample_id"]]
            for handle in made.plan.handles:
                truth = made.truth[handle.name][at]
                truth = truth[:, 0] if handle.modality.n_times == 1 else truth
                np.testing.assert_array_equal(batch[handle.name].numpy(), truth)
        stats = loader.stats()
        assert stats.requests > 0
        assert stats.samples == 4 * len(loader)
    assert kinds[frozenset({"S2"})] == 6, "until both are through"
    assert len(loader) == kinds.total() in (16, 17, 18)


@pytest.mark.parametrize("homogeneous", [False, True])
def test_a_mix_resumes_at_every_batch_in_every_world(one, two, homogeneous):
    mix = tb.mix({one.plan: 0.7, two.plan: 0.3}, seed=4, homogeneous=homogeneous, length=40)

    def ranks(n: int) -> list[StreamingDataset]:
        return [mix.dataset(global_batch_size=6, world=World(r, n)) for r in range(n)]

    def make_one() -> DataLoader:
        return mix.dataloader(global_batch_size=6, world=World())

    assert assert_resumable(make_one, ids, others=[lambda: ranks(2), lambda: ranks(3)]) == 7


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more workers than cores
@pytest.mark.parametrize("homogeneous", [False, True])
def test_workers_hand_out_a_mix_in_the_order_of_one_process(one, two, homogeneous):
    mix = tb.mix({one.plan: 0.7, two.plan: 0.3}, seed=4, homogeneous=homogeneous, length=30)
    loader = torch.utils.data.DataLoader(
        mix.dataset(global_batch_size=6, world=World()),
        batch_size=None,
        num_workers=2,
        multiprocessing_context="forkserver",
        timeout=60,
    )
    with mix.dataloader(global_batch_size=6, world=World()) as alone:
        assert [ids(b) for b in loader] == [ids(b) for b in alone]


def test_weights_are_kept_in_the_state(one, two):
    mix = tb.mix({one.plan: 0.5, two.plan: 0.5}, length=30)
    loader = mix.dataloader(batch_size=5)
    batches = iter(loader)
    next(batches)
    with pytest.raises(InvalidInputError, match="between epochs"):
        loader.set_weights([0.9, 0.1])
    for _ in loader:
        pass
    loader.set_weights([0.9, 0.1])
    state = json.dumps(loader.state_dict())
    assert len(state) < 1024
    rest = [ids(b) for b in loader]
    assert sum(s == 0 for s, _ in chain(*rest)) == 27
    dataset = mix.dataset(global_batch_size=10)  # and its batch size
    dataset.load_state_dict(json.loads(state))
    assert [ids(b) for b in dataset] == rest
    loader.close()


def test_the_state_of_many_sources_is_small(one):
    mix = tb.mix([(one.plan, i + 1.0) for i in range(20)])
    loader = mix.dataloader(batch_size=5)
    loader.set_epoch(10**6)
    loader.set_weights([1.0] * 20)
    assert len(json.dumps(loader.state_dict())) < 1536


def test_a_mix_is_a_value_with_a_name(one, two):
    mix = tb.mix({one.plan: 0.7, two.plan: 0.3}, seed=4)
    again = pickle.loads(pickle.dumps(mix))
    assert again == mix
    assert again.fingerprint == mix.fingerprint
    others = [
        tb.mix({one.plan: 0.6, two.plan: 0.4}, seed=4),
        tb.mix({two.plan: 0.3, one.plan: 0.7}, seed=4),
        tb.mix({one.plan: 0.7, two.plan: 0.3}, seed=5),
        tb.mix({one.plan: 0.7, two.plan: 0.3}, seed=4, homogeneous=True),
        tb.mix({one.plan: 0.7, two.plan: 0.3}, seed=4, length="first"),
    ]
    assert len({m.fingerprint for m in [mix, *others]}) == 6
    state = mix.dataloader(batch_size=5).state_dict()
    for o in others:
        with pytest.raises(InvalidInputError, match="fingerprint"):
            o.dataloader(batch_size=5, seed=4).load_state_dict(state)


def test_sampling_weights_of_a_source_are_kept(one, two):
    drawn = replace(two.plan, table=two.plan.table.append_column("weight", pa.array([0.0] * 10 + [1.0])))
    only = two.plan.table["sample_id"][10].as_py()
    with tb.mix({one.plan: 0.5, drawn: 0.5}).dataloader(batch_size=5) as loader:
        names = {name for batch in loader for source, name in ids(batch) if source == 1}
    assert names == {only}


def test_what_cannot_be_mixed_is_refused(one, two, other):
    with pytest.raises(InvalidInputError, match="homogeneous"):
        tb.mix({one.plan: 1, other.plan: 1}).dataloader(batch_size=2)
    remote = replace(two.plan, origin=StoreAddress("s3://bucket/bank"))
    with pytest.raises(InvalidInputError, match="stores"):
        tb.mix({one.plan: 1, remote: 1}).dataloader(batch_size=2)
    with pytest.raises(InvalidInputError, match="above 0"):
        tb.mix({one.plan: 1, two.plan: -1})
    with pytest.raises(InvalidInputError, match="all with weights or all without"):
        tb.mix([(one.plan, 1), two.plan])
    with pytest.raises(InvalidInputError, match="all with weights"):
        tb.mix([])
    with pytest.raises(InvalidInputError, match="no sample"):
        tb.mix([replace(one.plan, table=one.plan.table.slice(0, 0))])
    with pytest.raises(InvalidInputError, match="length"):
        tb.mix([one.plan], length=0)
    with pytest.raises(InvalidInputError, match="temperature"):
        tb.mix([one.plan], temperature=[1, 2])
    with pytest.raises(InvalidInputError, match="'full' or None"):
        tb.mix([one.plan]).dataloader(batch_size=2, shuffle="window")
    with pytest.raises(InvalidInputError, match="one plan"):
        one.plan.dataloader(batch_size=2).set_weights([1])
    with pytest.raises(InvalidInputError, match="as many weights"):
        tb.mix([one.plan, two.plan]).dataloader(batch_size=2).set_weights([1])
    renamed = replace(one.plan, table=one.plan.table.rename_columns({"count": "mixed_from"}))
    with pytest.raises(InvalidInputError, match="rename"):
        tb.mix([renamed]).dataloader(batch_size=2)


@pytest.mark.parametrize("scale", [1e308, 1e-308])
def test_weights_of_any_size_keep_their_proportions(one, two, scale):
    mix = tb.mix([(one.plan, 0.75 * scale), (two.plan, 0.25 * scale)], length=400)
    assert "0.75 of 23, 0.25 of 11" in repr(mix)
    with mix.dataloader(batch_size=40) as loader:
        counts = Counter(source for batch in loader for source, _ in ids(batch))
    assert counts == {0: 300, 1: 100}
    hot = tb.mix([(one.plan, scale), (two.plan, scale)], temperature=1)
    assert hot.weights[0] / hot.weights[1] == pytest.approx(23 / 11)


def test_columns_that_only_some_sources_have_are_null_for_the_others(one, two):
    table = two.plan.table.drop_columns(["time"]).append_column("extra", pa.array(range(100, 111)))
    table = table.append_column("share", pa.array(np.linspace(0, 1, 11)))
    second = replace(two.plan, table=table)
    with tb.mix({one.plan: 0.6, second: 0.4}).dataloader(batch_size=4) as loader:
        batches = list(loader)
    seen = Counter()
    for batch in batches:
        rows = zip(
            batch["mixed_from"].tolist(), batch["time"], batch["extra"], batch["share"].tolist(), strict=True
        )
        for source, stamp, extra, share in rows:
            seen[source] += 1
            assert (stamp is None) == (source == 1)
            assert (extra is None) == (source == 0)
            assert np.isnan(share) == (source == 0)
    assert set(seen) == {0, 1}


def test_columns_of_types_that_go_together_become_one_and_others_are_named(one, two):
    def with_count(kind: pa.DataType) -> tb.Plan:
        at = two.plan.table.schema.get_field_index("count")
        return replace(
            two.plan, table=two.plan.table.set_column(at, "count", two.plan.table["count"].cast(kind))
        )

    with tb.mix([one.plan, with_count(pa.int64())]).dataloader(batch_size=4) as loader:
        assert {batch["count"].dtype for batch in loader} == {torch.int64}
    with pytest.raises(InvalidInputError, match="column 'count' has the types int32, string"):
        tb.mix([one.plan, with_count(pa.string())]).dataloader(batch_size=4)


@pytest.mark.parametrize("length", ["first", "last", 100])
def test_the_length_of_an_epoch_is_told(one, two, length):
    mix = tb.mix({one.plan: 0.5, two.plan: 0.5}, length=length, seed=3)
    expected = {"first": (21, 23), "last": (45, 47), 100: (100, 100)}[length]
    assert expected[0] <= mix.n_draws <= expected[1]
    with mix.dataloader(batch_size=1, seed=8) as loader:
        assert len(loader) == mix.n_draws == sum(1 for _ in loader)
    assert f"{mix.n_draws} samples an epoch" in repr(mix)
    assert len(mix) == 34


def test_queries_of_two_banks_are_two_sources(tmp_path):
    banks = [tb.create(tmp_path / name) for name in ("a", "b")]
    same, again, other = banks[0].sql("SELECT 1"), banks[0].sql("SELECT 1"), banks[1].sql("SELECT 1")
    assert same == again
    assert hash(same) == hash(again)
    assert same != other
    assert len({same: 0.5, other: 0.5}) == 2
    assert banks[0].at({"t": 1}).sql("SELECT 1") != same
    assert banks[0].query("t") == banks[0].query("t") != banks[1].query("t")
    banks[0].register("mine", pa.table({"x": [1]}))
    assert banks[0].sql("SELECT 1") != same
