"""Sampling weights: draws follow them, whatever reads."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest

from support.handmade import make
from tensorbank import InvalidInputError
from tensorbank_loader import DataLoader, World
from tensorbank_loader.order.permutation import uniform
from tensorbank_loader.order.weighted_order import WeightedDraws, WeightedOnce

WEIGHTS = np.array([0.0, 1.0, 2.0, 0.0, 5.0, 0.5, 0.0])


def chi2_of(counts: np.ndarray, expected: np.ndarray) -> float:
    some = expected > 0
    assert not counts[~some].any()
    return float(((counts[some] - expected[some]) ** 2 / expected[some]).sum())


def test_draws_with_replacement_follow_the_weights():
    n = 200_000
    drawn = WeightedDraws(n, WEIGHTS).positions(np.arange(n), seed=3, epoch=1)
    counts = np.bincount(drawn, minlength=len(WEIGHTS))
    assert chi2_of(counts, n * WEIGHTS / WEIGHTS.sum()) < 20  # 3 degrees of freedom: 0.9998


def test_neighbouring_draws_are_independent():
    drawn = WeightedDraws(100_000, np.ones(4)).positions(np.arange(100_000), seed=0, epoch=0)
    pairs = np.bincount(drawn[:-1] * 4 + drawn[1:], minlength=16)
    assert chi2_of(pairs, np.full(16, 99_999 / 16)) < 50  # 15 degrees of freedom


def test_the_first_draw_without_replacement_follows_the_weights():
    epochs = 20_000
    order = WeightedOnce(4, WEIGHTS)
    first = [int(order.positions(np.zeros(1, np.int64), seed=5, epoch=e)[0]) for e in range(epochs)]
    assert chi2_of(np.bincount(first, minlength=len(WEIGHTS)), epochs * WEIGHTS / WEIGHTS.sum()) < 20


def test_without_replacement_each_sample_that_has_a_weight_comes_once():
    order = WeightedOnce(4, WEIGHTS)
    for epoch in range(5):
        assert sorted(order.positions(np.arange(4), seed=0, epoch=epoch).tolist()) == [1, 2, 4, 5]


def test_numbers_are_uniform_pinned_and_distinct_by_key():
    drawn = uniform(np.arange(100_000), seed=1, epoch=2)
    assert (drawn >= 0).all()
    assert (drawn < 1).all()
    assert chi2_of(np.bincount((drawn * 50).astype(int)), np.full(50, 2000.0)) < 49 + 5 * np.sqrt(98)
    assert not np.isin(drawn[:1000], uniform(np.arange(1000), seed=1, epoch=3)).any()
    assert uniform(np.array([0, 10**12]), seed=7, epoch=0).tolist() == PINNED


PINNED = [0.7691894828253868, 0.7416658515379315]


def weighted(plan, weights):
    return replace(plan, table=plan.table.append_column("weight", pa.array(weights)))


@pytest.mark.parametrize("replacement", [True, False])
def test_a_loader_draws_by_the_weights_of_its_plan(tmp_path, replacement):
    made = make(tmp_path, 23)
    weights = np.arange(23.0)
    plan = weighted(made.plan, weights)
    options = {"batch_size": 4, "seed": 3, "replacement": replacement}
    with DataLoader(plan, **options) as loader:
        batches = [b["weight"].tolist() for b in loader]
        state = loader.state_dict()
        second = [b["weight"].tolist() for b in loader]
    drawn = list(chain(*batches))
    assert len(drawn) == (23 if replacement else 22)
    assert 0.0 not in drawn
    assert second != batches
    if not replacement:
        assert sorted(drawn) == list(range(1, 23))
    with DataLoader(plan, **options) as resumed:
        resumed.load_state_dict(state)
        assert [b["weight"].tolist() for b in resumed] == second
    ranks = []
    for rank in range(2):
        with DataLoader(plan, **{**options, "batch_size": 2}, world=World(rank, 2)) as loader:
            ranks.append([b["weight"].tolist() for b in loader])
    joined = [list(chain(*(r[i] for r in ranks if i < len(r)))) for i in range(len(batches))]
    assert joined == batches


def test_an_epoch_may_be_of_another_length(tmp_path):
    plan = weighted(make(tmp_path, 23).plan, np.ones(23))
    assert len(DataLoader(plan, batch_size=10, n_draws=100)) == 10
    assert len(DataLoader(plan, batch_size=10, n_draws=10, replacement=False)) == 1


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"shuffle": False}, "rename the column weight"),
        ({"n_draws": 0}, "at least 1"),
        ({"n_draws": 24, "replacement": False}, "only 23"),
    ],
)
def test_draws_that_make_no_sense_are_refused(tmp_path, options, hint):
    plan = weighted(make(tmp_path, 23).plan, np.ones(23))
    with pytest.raises(InvalidInputError, match=hint):
        DataLoader(plan, batch_size=2, **options)


def test_draws_need_weights(tmp_path):
    with pytest.raises(InvalidInputError, match="column named weight"):
        DataLoader(make(tmp_path, 23).plan, batch_size=2, replacement=True)


@pytest.mark.parametrize("scale", [1e308, 1e-308, 5e-324], ids=str)
@pytest.mark.parametrize("replacement", [True, False])
def test_weights_of_any_size_are_drawn_in_proportion(tmp_path, replacement, scale):
    n = 23
    plan = weighted(make(tmp_path, n).plan, np.full(n, scale))
    alike = weighted(plan_without(plan), np.ones(n))
    for one, other in ((plan, alike),):
        found = [
            list(
                chain(*(b["sample_id"] for b in DataLoader(p, batch_size=4, seed=3, replacement=replacement)))
            )
            for p in (one, other)
        ]
        assert found[0] == found[1]
        assert len(set(found[0])) > n // 2


def plan_without(plan):
    return replace(plan, table=plan.table.drop_columns(["weight"]))


def test_ratios_of_huge_and_tiny_weights_are_kept():
    weights = np.array([3e307, 1e308, 0.0, 1e-300])
    drawn = WeightedDraws(20_000, weights).positions(np.arange(20_000), seed=1, epoch=0)
    counts = np.bincount(drawn, minlength=4)
    assert counts[2] == counts[3] == 0
    assert counts[0] / counts[1] == pytest.approx(0.3, abs=0.02)
    order = WeightedOnce(3, weights)
    assert sorted(order.positions(np.arange(3), seed=1, epoch=0).tolist()) == [0, 1, 3]
    assert order.positions(np.arange(3), seed=1, epoch=0)[2] == 3


def test_a_boolean_or_decimal_weight_is_a_number(tmp_path):
    made = make(tmp_path, 23)
    plan = weighted(made.plan, [i < 3 for i in range(23)])
    with DataLoader(plan, batch_size=4, replacement=False) as loader:
        names = {name for b in loader for name in b["sample_id"]}
    assert names == set(made.plan.table["sample_id"].to_pylist()[:3])


@pytest.mark.parametrize("name", ["WEIGHT", "Weight"])
def test_the_weight_has_no_capitals_as_no_name_in_sql_has(tmp_path, name):
    made = make(tmp_path, 23)
    plan = weighted(made.plan, [float(i < 3) for i in range(23)])
    plan = replace(plan, table=plan.table.rename_columns([*plan.table.column_names[:-1], name]))
    with DataLoader(plan, batch_size=4, replacement=False) as loader:
        names = {name for b in loader for name in b["sample_id"]}
    assert names == set(made.plan.table["sample_id"].to_pylist()[:3])
