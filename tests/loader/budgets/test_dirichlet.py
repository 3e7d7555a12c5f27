"""Draws of shares: their distributions, beside those of numpy and of mathematics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorbank_loader.budgets.dirichlet import allotted, dirichlet, log_gamma_draws

N = 40_000
PLACES = np.arange(N)


@pytest.mark.parametrize("shape", [0.05, 0.5, 1.0, 3.0, 1000.0])
def test_gammas_are_distributed_as_those_of_numpy(shape):
    mine = np.sort(log_gamma_draws(np.full(N, shape), PLACES, seed=3, epoch=1))
    theirs = np.sort(np.log(np.maximum(np.random.default_rng(1).gamma(shape, size=N), 1e-300)))
    both = np.concatenate([mine, theirs])
    rank = [np.searchsorted(draws, both, side="right") / N for draws in (mine, theirs)]
    distance = np.abs(rank[0] - rank[1])[both > np.log(1e-299)].max()
    assert distance < 1.95 * np.sqrt(2 / N), "the two-sample Kolmogorov-Smirnov test, at one in a thousand"


def test_shares_have_the_moments_of_a_dirichlet_distribution():
    alphas = np.array([0.5, 1.0, 0.0, 2.5])
    shares = dirichlet(np.tile(alphas, (N, 1)), PLACES, seed=5, epoch=0)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert (shares[:, 2] == 0).all()
    total = alphas.sum()
    mean = alphas / total
    variance = mean * (1 - mean) / (total + 1)
    np.testing.assert_allclose(shares.mean(axis=0), mean, atol=5 * np.sqrt(variance.max() / N))
    np.testing.assert_allclose(shares.var(axis=0), variance, rtol=0.05)


def test_tiny_alphas_still_make_shares():
    shares = dirichlet(np.full((1000, 3), 1e-4), np.arange(1000), seed=1, epoch=0)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert (shares.max(axis=1) > 0.99).mean() > 0.98, "one has nearly all"
    np.testing.assert_allclose((shares > 0.5).mean(axis=0), 1 / 3, atol=0.05)


def test_a_row_without_alphas_has_no_shares():
    shares = dirichlet(np.array([[0.0, 0.0], [1.0, 0.0]]), np.arange(2), seed=1, epoch=0)
    assert shares.tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_what_is_drawn_depends_on_its_place_alone():
    alphas = np.tile([0.5, 2.0, 1.0], (100, 1))
    every = dirichlet(alphas, np.arange(100), seed=9, epoch=4)
    some = [7, 93, 2]
    assert (dirichlet(alphas[:3], np.array(some), seed=9, epoch=4) == every[some]).all()
    for other in ({"seed": 8, "epoch": 4}, {"seed": 9, "epoch": 5}):
        assert not np.isclose(dirichlet(alphas, np.arange(100), **other), every).all(axis=1).any()


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda weights: sum(weights) > 1e-6),
    st.integers(0, 300),
    st.data(),
)
def test_numbers_add_up_within_their_room(weights, total, data):
    shares = np.array([weights]) / sum(weights)
    room = np.array([data.draw(st.lists(st.integers(0, 200), min_size=len(weights), max_size=len(weights)))])
    counts = allotted(np.array([total]), shares, room, np.array([3]), seed=1, epoch=0)
    assert (counts >= 0).all()
    assert (counts <= room).all()
    assert (counts[shares == 0] == 0).all()
    assert counts.sum() == min(total, room[shares > 0].sum())


def test_numbers_are_near_their_share_and_that_on_average():
    shares = np.tile([0.31, 0.42, 0.27], (N, 1))
    counts = allotted(np.full(N, 10), shares, np.full((N, 3), 10), PLACES, seed=2, epoch=0)
    assert (np.abs(counts - 10 * shares) < 1).all()
    np.testing.assert_allclose(counts.mean(axis=0), 10 * shares[0], atol=0.02)
