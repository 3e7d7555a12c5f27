"""Rows that do not count any more: those of samples and tiles whose key and part a table holds as deleted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.maintenance.sample_order import sorting

__all__ = ["DeadRows", "without"]

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DeadRows:
    """The deleted rows of one version.

    Parameters
    ----------
    keys
        Keys of the samples, sorted, each once.
    names
        Keys and parts together, as texts.
    parts
        Parts that have lost rows.
    """

    keys: Keys = field(default_factory=lambda: np.zeros(0, np.int64))
    names: pa.Array = field(default_factory=lambda: pa.nulls(0, pa.string()))
    parts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rows: pa.Table | None) -> DeadRows:
        """Return the deleted rows that a table of ``key`` and ``part`` holds."""
        if rows is None or not rows.num_rows:
            return cls()
        keys = np.unique(as_numpy(rows["key"]))
        parts = frozenset(pc.unique(rows["part"]).to_pylist())
        return cls(keys, pc.unique(_names(rows["key"], rows["part"])), parts)

    def __bool__(self) -> bool:
        return bool(len(self.keys))

    def mask(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return a mask of (n,) rows with ``key`` and ``part``: True for those that are deleted."""
        keys = as_numpy(rows["key"], 0)
        at = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        found = self.keys[at] == keys if len(self.keys) else np.zeros(len(keys), np.bool_)
        (places,) = np.nonzero(found)
        if len(places):
            some = rows.select(["key", "part"]).take(as_arrow(places))
            names = _names(some["key"], some["part"])
            found[places] = as_numpy(pc.is_in(names, value_set=self.names))
        return found

    def drop(self, rows: pa.Table) -> pa.Table:
        """Return rows without those that are deleted."""
        if not self:
            return rows
        dead = self.mask(rows)
        return rows.filter(as_arrow(~dead)) if dead.any() else rows


def _names(keys: pa.ChunkedArray, parts: pa.ChunkedArray) -> pa.Array:
    joined = pc.binary_join_element_wise(keys.cast(pa.string()), parts.cast(pa.string()), "/")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def without(pairs: Keys, removed: Keys) -> Keys:
    """Return (n, 2) keys of samples and stems, sorted, without others, each of which goes as often as it is given. Pure."""
    pairs = pairs[sorting(pairs[:, 0], pairs[:, 1])]
    if not len(removed) or not len(pairs):
        return pairs
    wanted, times = np.unique(removed, axis=0, return_counts=True)
    first = np.searchsorted(pairs[:, 0], wanted[:, 0], "left")
    last = np.searchsorted(pairs[:, 0], wanted[:, 0], "right")
    gone = np.zeros(len(pairs), np.bool_)
    one = (last - first == 1) & (times == 1)
    gone[first[one]] = pairs[first[one], 1] == wanted[one, 1]
    for i in np.flatnonzero(~one).tolist():
        same = first[i] + np.flatnonzero(pairs[first[i] : last[i], 1] == wanted[i, 1])
        gone[same[: times[i]]] = True
    return pairs[~gone]
