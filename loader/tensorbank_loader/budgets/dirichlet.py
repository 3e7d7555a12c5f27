"""Draws of shares from Dirichlet distributions, and of whole numbers that have them. Pure arithmetic.

Random numbers come from :func:`tensorbank_loader.order.permutation.uniform`, a function of numbers: the same on every machine and
with every version of numpy, whose own generators promise that for uniform numbers only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tensorbank_loader.order.permutation import uniform

__all__ = ["allotted", "dirichlet", "keyed_seed", "log_gamma_draws"]

Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
MAX_TRIES = 64
"""The most tries of a draw. Each is accepted with a chance of more than 0.95, so that 64 are never needed."""


def keyed_seed(seed: int, *purpose: int) -> int:
    """Return the seed of a stream of its own: purposes under one seed are independent of each other."""
    return int(np.random.SeedSequence([seed, *purpose]).generate_state(1, np.uint64)[0])


def log_gamma_draws(shape: Floats, places: Int64, *, seed: int, epoch: int) -> Floats:
    """Draw logarithms of gamma-distributed numbers of scale 1.

    By Marsaglia and Tsang, "A simple method for generating gamma variables" (2000); below 1 the shape is raised by 1, and the
    draw multiplied by ``u ** (1 / shape)``. Logarithms, since draws of small shapes are smaller than any float.

    Parameters
    ----------
    shape
        (m,) shapes above 0.
    places
        (m,) int64, not negative, different from each other: what is drawn at a place depends on nothing else but the key.
    seed, epoch
        The key.
    """
    small = shape < 1.0
    d = np.where(small, shape + 1.0, shape) - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    found = np.zeros(len(shape))
    todo = np.arange(len(shape))
    for attempt in range(MAX_TRIES):
        u1, u2, u3 = (1.0 - _uniforms(places[todo], attempt, seed, epoch)).T
        x = np.sqrt(-2.0 * np.log(u1)) * np.cos(2.0 * np.pi * u2)
        v = (1.0 + c[todo] * x) ** 3
        log_v = np.log(np.where(v > 0.0, v, 1.0))
        taken = (v > 0.0) & (np.log(u3) < 0.5 * x * x + d[todo] * (1.0 - v + log_v))
        found[todo[taken]] = (np.log(d[todo]) + log_v)[taken]
        todo = todo[~taken]
        if not len(todo):
            break
    raising = 1.0 - _uniforms(places, MAX_TRIES, seed, epoch)[:, 0]
    raised: Floats = np.where(small, found + np.log(raising) / np.where(small, shape, 1.0), found)
    return raised


def _uniforms(places: Int64, attempt: int, seed: int, epoch: int) -> Floats:
    """Return the three random numbers of an attempt at each place, (m, 3)."""
    counters = (places[:, None] * (MAX_TRIES + 1) + attempt) * 3 + np.arange(3)
    return uniform(counters.ravel(), seed=seed, epoch=epoch).reshape(-1, 3)


def dirichlet(alphas: Floats, places: Int64, *, seed: int, epoch: int) -> Floats:
    """Draw shares, (n, m) float64 that add up to 1; those of an alpha of 0 are 0, and a row without any other is 0.

    Parameters
    ----------
    alphas
        (n, m), not negative.
    places
        (n,) int64, not negative and different from each other.
    seed, epoch
        The key.
    """
    n, m = alphas.shape
    open_ = alphas > 0.0
    slots = (np.asarray(places, np.int64)[:, None] * m + np.arange(m))[open_]
    logs = np.full((n, m), -np.inf)
    logs[open_] = log_gamma_draws(alphas[open_], slots, seed=seed, epoch=epoch)
    most = logs.max(axis=1, keepdims=True, initial=-np.inf)
    shares = np.exp(logs - np.where(np.isfinite(most), most, 0.0))
    total = shares.sum(axis=1, keepdims=True)
    found: Floats = shares / np.where(total > 0.0, total, 1.0)
    return found


def allotted(total: Int64, shares: Floats, room: Int64, places: Int64, *, seed: int, epoch: int) -> Int64:
    """Allot whole numbers by shares, (n, m) int64 that add up to the total as long as there is room.

    Numbers are rounded so that each is within 1 of what its share asks for, and is that on average (systematic sampling: Madow,
    1949). What finds no room is allotted again to those that have some, by their shares.

    Parameters
    ----------
    total
        (n,) how many there are to allot.
    shares
        (n, m) shares that add up to 1. What has a share of 0 gets none.
    room
        (n, m) the most of each.
    places, seed, epoch
        The place of each row, (n,), and the key, as above.
    """
    found = np.zeros(shares.shape, np.int64)
    left = np.asarray(total, np.int64).copy()
    for turn in range(shares.shape[1] + 1):
        wanted = np.where(found < room, shares, 0.0)
        sums = wanted.sum(axis=1, keepdims=True)
        going = (left > 0) & (sums[:, 0] > 0.0)
        if not going.any():
            break
        wanted = np.divide(wanted, sums, out=np.zeros_like(wanted), where=sums > 0.0)
        ends = np.cumsum(wanted, axis=1)
        ends = (
            np.where(ends >= ends[:, -1:], 1.0, ends) * left[:, None]
        )  # the last is whole, whatever was rounded
        u = uniform(places, seed=keyed_seed(seed, turn), epoch=epoch)[:, None]
        counts = np.diff(np.floor(ends + u), axis=1, prepend=np.floor(u)).astype(np.int64)
        given = np.where(going[:, None], np.minimum(counts, room - found), 0)
        found += given
        left -= given.sum(axis=1)
    return found
