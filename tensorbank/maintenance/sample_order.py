"""The order in which compacted rows lie: by season, along the Hilbert curve, then by key; tiles as their samples do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_numpy

__all__ = ["ORDER_COLUMNS", "SampleOrder", "run_starts"]

ORDER_COLUMNS = ("key", "part", "season", "hilbert")
"""The columns of samples that their order follows from, and the part, which says whether a row counts."""
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SampleOrder:
    """The places of samples in the order of compacted rows.

    Parameters
    ----------
    keys
        Keys of the samples, (n,), sorted.
    places
        Place of each, (n,), from 0 to n - 1.
    """

    keys: Int64
    places: Int64

    @classmethod
    def of(cls, samples: Iterable[pa.Table]) -> SampleOrder:
        """Order samples that are given by their columns :data:`ORDER_COLUMNS`."""
        tables = list(samples)
        if not tables:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
        key = np.concatenate([as_numpy(t["key"], 0) for t in tables])
        hilbert = np.concatenate([as_numpy(t["hilbert"].cast(pa.int64()), 0) for t in tables])
        season = np.concatenate([_seasons(tables, t) for t in tables])
        order = np.lexsort((key, hilbert, season))
        places = np.empty(len(key), np.int64)
        places[order] = np.arange(len(key))
        by_key = np.argsort(key, kind="stable")
        return cls(key[by_key], places[by_key])

    def __len__(self) -> int:
        return len(self.keys)

    def places_of(self, keys: Int64) -> Int64:
        """Return the places of (n,) keys that repeat in runs; of keys that are not among those of the samples the last one."""
        if not len(keys) or not len(self):
            return np.full(len(keys), len(self), np.int64)
        starts = run_starts(keys)
        once = keys[starts]
        at = np.minimum(np.searchsorted(self.keys, once), len(self) - 1)
        found = np.where(self.keys[at] == once, self.places[at], len(self))
        return np.repeat(found, np.diff([*starts, len(keys)]))


def run_starts(keys: Int64) -> Int64:
    """Return where runs of equal numbers begin in (n,) numbers. Pure."""
    if not len(keys):
        return np.zeros(0, np.int64)
    return np.concatenate([[0], 1 + np.flatnonzero(keys[1:] != keys[:-1])])


def _seasons(tables: list[pa.Table], rows: pa.Table) -> npt.NDArray[np.int32]:
    """Return the number of each row's season in alphabetical order; that of none is 0."""
    known = sorted({s for t in tables for s in pc.unique(t["season"]).to_pylist() if s is not None})
    numbers = pc.index_in(rows["season"].cast(pa.string()), value_set=pa.array(known, pa.string()))
    return as_numpy(pc.fill_null(numbers, -1)) + np.int32(1)
