"""Places of an epoch's order that a global batch, a rank or a worker has. Pure arithmetic on numbers.

The places of an epoch, cut into pieces of one size, are its global batches. A rank's share is a slice of each global batch,
and a worker's share is every k-th batch of its rank, so that neither changes what a global batch holds.
"""

from __future__ import annotations

__all__ = ["batch_bounds", "first_batch_of", "n_batches", "rank_bounds"]


def n_batches(n: int, global_batch_size: int, *, drop_last: bool) -> int:
    """Return the number of global batches of an epoch over ``n`` places."""
    return n // global_batch_size if drop_last else -(-n // global_batch_size)


def batch_bounds(batch: int, n: int, global_batch_size: int) -> tuple[int, int]:
    """Return the places ``[start, end)`` of a global batch in an epoch of ``n`` places; the last batch may be shorter."""
    start = batch * global_batch_size
    return start, min(start + global_batch_size, n)


def rank_bounds(start: int, end: int, rank: int, n_ranks: int) -> tuple[int, int]:
    """Return the part of the places ``[start, end)`` that one rank has, as ``[start, end)``.

    Parts differ by at most one place, and the first ranks have the larger ones. Where there are fewer places than ranks, the
    parts of the last ranks are empty.
    """
    size, larger = divmod(end - start, n_ranks)
    first = start + rank * size + min(rank, larger)
    return first, first + size + (rank < larger)


def first_batch_of(worker: int, n_workers: int, position: int, origin: int) -> int:
    """Return the first batch at or after ``position`` that a worker has.

    A worker has the batches with ``(batch - origin) % n_workers == worker``, where ``origin`` is the batch at which all workers
    of a loader began. torch's DataLoader takes batches from its workers in turn, from worker 0 on, and so gets them in order,
    wherever it began.
    """
    return position + (worker - (position - origin)) % n_workers
