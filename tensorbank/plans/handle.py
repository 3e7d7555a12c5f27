"""Handles: what a plan reads of a modality, and the names of the columns that say where it lies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorbank.errors import InvalidInputError
from tensorbank.schema import Modality

__all__ = ["AddressColumns", "Handle"]


@dataclass(frozen=True, slots=True)
class AddressColumns:
    """The names of the columns that one handle has in the table of a plan; :mod:`tensorbank.plans.plan` says what they hold.

    ``handle`` is the name of the handle.
    """

    handle: str

    @property
    def key(self) -> str:
        return f"{self.handle}.key"

    @property
    def starts(self) -> str:
        return f"{self.handle}.starts"

    @property
    def lengths(self) -> str:
        return f"{self.handle}.lengths"

    @property
    def corner(self) -> str:
        """The name of a column that only windows have."""
        return f"{self.handle}.corner"

    @property
    def n_times(self) -> str:
        """The name of a column that is there only if some sample lacks dates."""
        return f"{self.handle}.n_times"

    @property
    def needed(self) -> tuple[str, ...]:
        """The names of the columns that every handle has."""
        return self.key, self.starts, self.lengths

    @property
    def possible(self) -> tuple[str, ...]:
        """The names of all columns that a handle can have."""
        return *self.needed, self.corner, self.n_times


@dataclass(frozen=True, slots=True)
class Handle:
    """One selected modality: what to read of every sample and how to hand it out.

    ``name`` is its key in the batch, ``bands`` are indices into ``modality.bands`` in the order asked for. ``window`` is
    (height, width) of the tiles that were selected, one date of each; None where whole samples were. ``by_date`` says that runs
    end where a date does, so that a date of a sample can be read alone.

    Raises
    ------
    InvalidInputError
        A band comes twice.
    """

    name: str
    modality: Modality
    bands: tuple[int, ...]
    window: tuple[int, int] | None = None
    by_date: bool = False

    def __post_init__(self) -> None:
        if len(set(self.bands)) != len(self.bands):
            raise InvalidInputError(f"{self.name} has a band twice: {list(self.bands)}")

    @property
    def columns(self) -> AddressColumns:
        """The names of the columns of addresses in the table of a plan."""
        return AddressColumns(self.name)

    @property
    def n_times(self) -> int:
        """The number of dates of one sample as delivered."""
        return self.modality.n_times if self.window is None else 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (time, band, y, x) of one sample as delivered."""
        m = self.modality
        return (self.n_times, len(self.bands), *(self.window or (m.height, m.width)))

    @property
    def n_bytes(self) -> int:
        """The decoded size of one sample as delivered."""
        return math.prod(self.shape) * np.dtype(self.modality.dtype).itemsize

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """The maximal runs of consecutive blocks to read, half-open, in stored order (date by date,
        band by band).

        Of a window, blocks count from the first of its date.
        """
        n_bands = len(self.modality.bands)
        wanted = sorted(t * n_bands + b for t in range(self.n_times) for b in self.bands)
        runs: list[tuple[int, int]] = []
        for block in wanted:
            date_ends = self.by_date and block % n_bands == 0
            if runs and runs[-1][1] == block and not date_ends:
                runs[-1] = (runs[-1][0], block + 1)
            else:
                runs.append((block, block + 1))
        return tuple(runs)

    def to_json(self) -> dict[str, Any]:
        """Return the handle as the file of a plan has it."""
        return {
            "name": self.name,
            "modality": self.modality.to_json(),
            "bands": list(self.bands),
            "window": self.window and list(self.window),
            "by_date": self.by_date,
        }

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Handle:
        """Return what :meth:`to_json` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            The description is none.
        """
        return cls(
            described["name"],
            Modality.from_json(described["modality"]),
            tuple(described["bands"]),
            tuple(described["window"]) if described["window"] else None,
            described.get("by_date", False),
        )

    def n_present(self, run: tuple[int, int], n_times: int) -> int:
        """Return the number of blocks of a run that a sample with so many dates has:
        the first ones, maybe none.
        """
        start, end = run
        return min(max(n_times * len(self.modality.bands) - start, 0), end - start)

    def slot(self, block: int) -> tuple[int, int]:
        """Return the (time, band) index in the delivered tensor of a stored block that is one of the runs."""
        time, band = divmod(block, len(self.modality.bands))
        return time, self.bands.index(band)
