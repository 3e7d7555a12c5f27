"""Counts of how often a run has seen each sample, from the arithmetic of its order. Pure.

A saved state tells a place and the way to it. Which samples stood in the batches of the way is a function of plan, seed and
epoch, so nothing has to be logged. Epochs of which every sample comes exactly once are counted, not computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_loader.epochs import Epochs, State, Stretch, Trail, World

__all__ = ["Seen", "seen"]

Int64 = npt.NDArray[np.int64]
PLACES_AT_ONCE = 1 << 20
"""The number of places whose samples are computed together: 8 MiB an array."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The number of times that each sample of a plan or a mix was handed out, and when it was for the last time.

    Parameters
    ----------
    n_times
        (n,) int64: 0 for samples that have not come. Padding does not count.
    last_epoch, last_batch
        (n,) int64: epoch and global batch of the last time; -1 where there was none. Of a mix whose weights were changed, also -1
        where that was before the last change.
    """

    n_times: Int64
    last_epoch: Int64
    last_batch: Int64

    @classmethod
    def none(cls, n: int) -> Seen:
        """Return the counts of ``n`` samples of which none was seen."""
        return cls(np.zeros(n, np.int64), np.full(n, -1, np.int64), np.full(n, -1, np.int64))

    def note(self, positions: Int64, epoch: int, batches: Int64) -> None:
        """Count the samples at some positions, (m,), as seen in some batches, (m,), of an epoch."""
        np.add.at(self.n_times, positions, 1)
        self.last_epoch[positions] = epoch
        self.last_batch[positions] = batches

    def add(self, other: Seen) -> None:
        """Add the counts of the same samples, which another plan has."""
        later = (other.last_epoch > self.last_epoch) | (
            (other.last_epoch == self.last_epoch) & (other.last_batch > self.last_batch)
        )
        self.n_times[:] += other.n_times
        self.last_epoch[later] = other.last_epoch[later]
        self.last_batch[later] = other.last_batch[later]

    def of(self, start: int, end: int) -> Seen:
        """Return the part of the samples ``[start, end)``, as views."""
        return Seen(self.n_times[start:end], self.last_epoch[start:end], self.last_batch[start:end])


def seen(epochs: Epochs, state: State, given: Mapping[str, Any]) -> Seen:
    """Return what a run has seen before it saved a state.

    Parameters
    ----------
    epochs, state
        The run, as :func:`tensorbank_loader.epochs.loaded` gives it back.
    given
        The saved state itself, which tells the way of the run and its ranks.

    Returns
    -------
    Counts of ``epochs.n_samples`` samples. A run of worker processes has seen what was handed out up to the state; of a batch of
    which single samples were handed out, those that all ranks had if each had as many.

    Raises
    ------
    InvalidInputError
        The state does not tell enough: the run left more epochs than it lists, is one of several workers in the middle of a
        batch, or changed the weights of a mix after it had left an epoch. The kind is ``other-state``.
    """
    told = Trail.of_state(given).stretches((state.epoch, state.position))
    if told is None:
        raise _untold(
            "the run left or skipped epochs more often than a state lists, so that its batches are not known"
        )
    found = Seen.none(epochs.n_samples)
    since = epochs.order.since
    once = [way.shifted(n) for way in told for n in range(way.n_epochs)]
    ways = _drawn_before(epochs, since, once, found) if since and once else once
    for epoch, first, end, n_ranks in _pieces(epochs, ways, found):
        _count(epochs, epoch, first, end, n_ranks, found)
    if state.skip:
        _count_part(epochs, state, given, found)
    return found


def _pieces(epochs: Epochs, ways: Sequence[Stretch], found: Seen) -> Iterator[tuple[int, int, int, int]]:
    """Yield (epoch, first batch, end, ranks that leave samples out) of the batches that are to be looked at.

    Whole epochs that hold each sample once are counted here, all but the last of a stretch, which tells when samples came last.
    """
    n = epochs.n_batches
    for way in ways:
        (first, begin), (last, end) = way.start, way.end
        whole = range(first + bool(begin), last)
        if begin:
            yield first, begin, n if first < last else min(end, n), way.n_ranks
        if epochs.has_each_once and not way.n_ranks:
            found.n_times[:] += max(len(whole) - 1, 0)
            whole = whole[-1:]
        for epoch in whole:
            yield epoch, 0, n, way.n_ranks
        if end and (last > first or not begin):
            yield last, 0, min(end, n), way.n_ranks


def _count(epochs: Epochs, epoch: int, first: int, end: int, n_ranks: int, found: Seen) -> None:
    """Count the samples of the batches ``[first, end)`` of an epoch."""
    size, n = epochs.global_batch_size, epochs.order.n_places
    for start in range(first * size, min(end * size, n), PLACES_AT_ONCE):
        places = np.arange(start, min(start + PLACES_AT_ONCE, end * size, n), dtype=np.int64)
        batches, inside = np.divmod(places, size)
        if n_ranks:
            sizes = np.minimum(n - batches * size, size)
            had = inside < sizes // n_ranks * n_ranks
            places, batches = places[had], batches[had]
        found.note(epochs.order.positions(places, seed=epochs.seed, epoch=epoch), epoch, batches)


def _count_part(epochs: Epochs, state: State, given: Mapping[str, Any], found: Seen) -> None:
    """Count the samples of a batch that were handed out one by one, of all ranks."""
    if given["n_workers"] > 1:
        raise _untold(
            "it is of one of several workers that hand out single samples, and what the others had is not in it; "
            "save states between epochs, or stream batches with global_batch_size"
        )
    for rank in range(given["n_ranks"]):
        share = epochs.share(state.epoch, state.position, World(rank, given["n_ranks"]))[: state.skip]
        found.note(share, state.epoch, np.full(len(share), state.position))


def _drawn_before(epochs: Epochs, since: int, ways: Sequence[Stretch], found: Seen) -> Sequence[Stretch]:
    """Count what a mix drew before its weights were changed, and return the stretches from then on.

    The state has the number of samples of each source until then, which tells their samples if no epoch was left.
    """
    start, *others = ways
    whole = start.start == (0, 0) and start.end >= (since, 0) and not start.n_ranks
    if not whole or any(way.start < (since, 0) for way in others):
        raise _untold(
            f"the weights of the mix were changed before epoch {since}, and epochs were left or skipped before; which samples of "
            "the earlier ones came is not known"
        )
    for positions in epochs.order.drawn_positions(seed=epochs.seed):
        np.add.at(found.n_times, positions, 1)
    rest = Stretch((since, 0), start.end, start.n_ranks)
    return [rest, *others] if rest.end > rest.start else others


def _untold(why: str) -> InvalidInputError:
    return InvalidInputError(
        f"this state does not tell which samples were seen: {why}", kind=ErrorKind.OTHER_STATE
    )
