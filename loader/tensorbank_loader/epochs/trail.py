"""The way of a run through its epochs: which batches it has been handed, where that is not all from the first one on. Values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_loader.epochs.epoch import State

__all__ = ["MAX_STRETCHES", "Place", "Stretch", "Trail", "place_of"]

MAX_STRETCHES = 4
"""The most earlier stretches that a state tells, so that it stays below 1 KiB."""

MAX_EPOCHS = 1_000_000
"""The most epochs that a stretch of a state is taken to come again in."""

Place = tuple[int, int]
"""An epoch and a global batch in it."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Global batches that came one after the other.

    Parameters
    ----------
    start, end
        Epoch and batch of the first, and of the one behind the last.
    n_ranks
        Number of ranks that left out what they could not share equally; 0 where all samples of a batch came.
    n_epochs
        Number of times that it was had, one epoch further each time, as by a run that leaves each epoch after so many batches.
    """

    start: Place
    end: Place
    n_ranks: int = 0
    n_epochs: int = 1

    def shifted(self, n: int) -> Stretch:
        """Return the stretch ``n`` epochs further, once."""
        (first, begin), (last, end) = self.start, self.end
        return Stretch((first + n, begin), (last + n, end), self.n_ranks)


@dataclass(frozen=True, slots=True)
class Trail:
    """The stretches of a run before the one that it is in, and where that one began.

    A run that starts at its first batch and goes on, over any number of resumes, is one stretch. ``set_epoch`` to another epoch
    and an epoch that begins anew before its end begin another one.

    Parameters
    ----------
    earlier
        Earlier stretches; None: there were more than :data:`MAX_STRETCHES`.
    since
        Epoch and batch at which the present stretch began.
    n_ranks
        Number of ranks of the present one, as in :class:`Stretch`; None: not known before it begins.
    """

    earlier: tuple[Stretch, ...] | None = ()
    since: Place = (0, 0)
    n_ranks: int | None = None

    def jumped(self, before: Place, after: Place) -> Trail:
        """Return the trail of a run that stood at one place and goes on at another."""
        return self if before == after else replace(self._closed(before), since=after)

    def shared_by(self, n_ranks: int, at: Place) -> Trail:
        """Return the trail of a run that goes on at a place with ranks that leave out other samples."""
        if self.n_ranks is None or self.n_ranks == n_ranks or at == self.since:
            return replace(self, n_ranks=n_ranks)
        return replace(self._closed(at), since=at, n_ranks=n_ranks)

    def stretches(self, now: Place) -> tuple[Stretch, ...] | None:
        """Return all stretches of a run that stands at a place; None if there were too many to be told."""
        return self._closed(now).earlier

    def _closed(self, at: Place) -> Trail:
        """Return the trail with its present stretch among the earlier ones."""
        if self.earlier is None or at <= self.since:
            return self
        stretch, earlier = Stretch(self.since, at, self.n_ranks or 0), self.earlier
        before = earlier[-1] if earlier else None
        if (
            before
            and before.n_epochs == 1
            and (before.end, before.n_ranks) == (stretch.start, stretch.n_ranks)
        ):
            stretch, earlier = replace(stretch, start=before.start), earlier[:-1]
        elif before and before.shifted(before.n_epochs) == stretch:
            stretch, earlier = replace(before, n_epochs=before.n_epochs + 1), earlier[:-1]
        return replace(self, earlier=None if len(earlier) > MAX_STRETCHES else (*earlier, stretch))

    def to_dict(self) -> dict[str, Any]:
        """Return the field of a saved state, or none for a run of one stretch from its first batch on."""
        earlier = self.earlier if self.earlier is not None and len(self.earlier) <= MAX_STRETCHES else None
        if earlier == () and self.since == (0, 0):
            return {}
        told = None if earlier is None else [[*s.start, *s.end, s.n_ranks, s.n_epochs] for s in earlier]
        return {"had": {"earlier": told, "since": list(self.since)}}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Trail:
        """Return the trail of a saved state. One of version 3 tells none: its run is taken to have had all batches before it.

        Raises
        ------
        InvalidInputError
            Its field is none of :meth:`to_dict`; the kind is ``other-state``.
        """
        n_ranks = state.get("n_ranks") if state.get("even") == "drop" else 0
        told = state.get("had")
        if told is None:
            return cls(n_ranks=n_ranks)
        try:
            earlier = told["earlier"]
            stretches = (
                None if earlier is None else tuple(_stretch(*map(_count, numbers)) for numbers in earlier)
            )
            epoch, batch = map(_count, told["since"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"this state tells no way through epochs: {told!r}", kind=ErrorKind.OTHER_STATE
            ) from error
        return cls(stretches, (epoch, batch), n_ranks)


def place_of(state: State, n_batches: int) -> Place:
    """Return the place of a state in a run whose epochs have so many batches.

    Behind the last batch is the next epoch. A batch of which single samples were handed out counts as had.
    """
    epoch, batch = state.epoch, state.position + bool(state.skip)
    return (epoch + 1, 0) if batch and batch >= n_batches else (epoch, batch)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def _stretch(a: int, b: int, c: int, d: int, n_ranks: int, n_epochs: int) -> Stretch:
    if n_epochs > MAX_EPOCHS:
        raise ValueError(n_epochs)
    return Stretch((a, b), (c, d), n_ranks, n_epochs)
