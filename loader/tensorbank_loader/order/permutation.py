"""The order of an epoch. Pure arithmetic on numbers and arrays.

An epoch is a permutation of a plan's ``n`` positions, keyed by seed and epoch and computed where it is asked for: a
balanced Feistel network over the smallest even number of bits that holds ``n``, walked until it falls below ``n`` (Black and
Rogaway, "Ciphers with arbitrary finite domains", 2002). Nothing of size ``n`` is kept. The permuted positions, cut into
global batches, are the epoch; a rank's share is a slice of each, a worker's share is every k-th batch, so neither can
change what a global batch holds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["batch_bounds", "first_batch_of", "n_batches", "permute", "rank_bounds", "uniform"]

N_ROUNDS = 10
"""The number of rounds of the network: 6 are measurably not uniform over orders of a few positions
(chi-square of places, 20,000 epochs of n = 5), 8 are."""
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]


def permute(indices: Int64, n: int, *, seed: int, epoch: int) -> Int64:
    """Return the positions at some places of an epoch's order.

    Parameters
    ----------
    indices
        (m,) int64 in ``[0, n)``.
    n
        Length of the permuted range.
    seed, epoch
        Two numbers, not negative; together the key.

    Returns
    -------
    (m,) int64 in ``[0, n)``, distinct for distinct indices.
    """
    half_bits = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(N_ROUNDS, np.uint64).astype(np.uint64)
    values = np.asarray(indices).astype(np.uint64)
    outside = np.ones(values.shape, np.bool_)
    while outside.any():
        values[outside] = _feistel(values[outside], half_bits, keys)
        outside = values >= n
    return values.astype(np.int64)


def uniform(places: Int64, *, seed: int, epoch: int) -> npt.NDArray[np.float64]:
    """Return numbers in [0, 1) at some places of an epoch, (m,) float64:
    independent, and a function of seed, epoch and place.

    A counter-based generator: two rounds of SplitMix64's finaliser over place and keys; the upper 53 bits.
    """
    keys = np.random.SeedSequence([seed, epoch, 1]).generate_state(2, np.uint64).astype(np.uint64)
    golden = np.uint64(0x9E3779B97F4A7C15)
    values = _mix((np.asarray(places).astype(np.uint64) + np.uint64(1)) * golden + keys[0])
    values = _mix(values ^ keys[1])
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _feistel(values: UInt64, half_bits: int, keys: UInt64) -> UInt64:
    """Run one pass of the network over ``2 * half_bits`` bits."""
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _mix(x: UInt64) -> UInt64:
    """Apply the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def n_batches(n: int, global_batch_size: int, *, drop_last: bool) -> int:
    """Return the number of global batches of an epoch over ``n`` samples."""
    return n // global_batch_size if drop_last else -(-n // global_batch_size)


def batch_bounds(batch: int, n: int, global_batch_size: int) -> tuple[int, int]:
    """Return the places ``[start, end)`` of an epoch's order that a global batch holds;
    the last may be shorter."""
    start = batch * global_batch_size
    return start, min(start + global_batch_size, n)


def rank_bounds(start: int, end: int, rank: int, n_ranks: int) -> tuple[int, int]:
    """A rank's contiguous share of the places ``[start, end)``.

    Shares differ by at most one sample, the first ranks having the larger ones; where there are fewer samples than ranks,
    the last ranks' shares are empty.
    """
    size, larger = divmod(end - start, n_ranks)
    first = start + rank * size + min(rank, larger)
    return first, first + size + (rank < larger)


def first_batch_of(worker: int, n_workers: int, position: int, origin: int) -> int:
    """Return the first batch at or after ``position`` that is a worker's:
    those with ``(batch - origin) % n_workers == worker``.

    ``origin`` is the batch that all workers began at. A loader that takes batches from its workers in turn, the first one
    first, so hands them out in order, wherever it began.
    """
    return position + (worker - (position - origin)) % n_workers
