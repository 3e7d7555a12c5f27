"""The order in which compacted rows lie: by season, along the Hilbert curve, then by key; tiles as their samples do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arrow_numpy import as_numpy

__all__ = ["ORDER_COLUMNS", "SampleOrder", "run_starts", "sorting"]

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
        """Order samples that are given by their columns :data:`ORDER_COLUMNS`.

        Of each table only numbers are kept, 40 bytes of a sample at most.
        """
        keys, hilbert, seasons = [], [], _Seasons()
        for rows in samples:
            if rows.num_rows:
                keys.append(as_numpy(rows["key"], 0))
                hilbert.append(as_numpy(rows["hilbert"].cast(pa.int64()), 0))
                seasons.add(rows["season"])
        if not keys:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
        per_season = 1 + max(int(part.max()) for part in hilbert)
        first = np.concatenate(
            [part + per_season * number for part, number in zip(hilbert, seasons.numbers(), strict=True)]
        )
        hilbert.clear()
        key = np.concatenate(keys)
        keys.clear()
        order = sorting(first, key)
        del first
        places = np.empty(len(key), np.int64)
        places[order] = np.arange(len(key))
        del order
        by_key = np.argsort(key, kind="stable")
        return cls(key[by_key], places[by_key])

    def __len__(self) -> int:
        return len(self.keys)

    def places_of(self, keys: Int64) -> Int64:
        """Return the places of (n,) keys that repeat in runs; of keys that are not among those of the samples the last one."""
        if not len(keys) or not len(self):
            return np.full(len(keys), len(self), np.int64)
        starts = run_starts(keys)
        by_key = np.argsort(keys[starts])  # neighbours are looked for in memory that was just read
        once = keys[starts][by_key]
        at = np.minimum(np.searchsorted(self.keys, once), len(self) - 1)
        found = np.empty(len(starts), np.int64)
        found[by_key] = np.where(self.keys[at] == once, self.places[at], len(self))
        return np.repeat(found, np.diff([*starts, len(keys)]))


def sorting(first: Int64, then: Int64) -> Int64:
    """Return what sorts (n,) pairs of numbers. Pure.

    It takes a fraction of the time of :func:`numpy.lexsort` where the first numbers lie in sorted runs and few of them are equal.
    """
    order = np.argsort(first, kind="stable")
    in_order = first[order]
    equal = in_order[1:] == in_order[:-1]
    tied = np.concatenate([equal, [False]]) | np.concatenate([[False], equal])
    some = order[tied[: len(order)]]
    order[tied[: len(order)]] = some[np.lexsort((then[some], first[some]))]
    return order


def run_starts(keys: Int64) -> Int64:
    """Return where runs of equal numbers begin in (n,) numbers. Pure."""
    if not len(keys):
        return np.zeros(0, np.int64)
    return np.concatenate([[0], 1 + np.flatnonzero(keys[1:] != keys[:-1])])


class _Seasons:
    """The seasons of rows that come table by table."""

    def __init__(self) -> None:
        self._words: dict[str | None, int] = {}
        self._codes: list[npt.NDArray[np.int32]] = []

    def add(self, column: pa.ChunkedArray) -> None:
        """Take a column of seasons."""
        encoded = column.cast(pa.string()).combine_chunks().dictionary_encode("encode")
        codes = [self._words.setdefault(word, len(self._words)) for word in encoded.dictionary.to_pylist()]
        self._codes.append(np.array(codes, np.int32)[as_numpy(encoded.indices)])

    def numbers(self) -> Iterator[Int64]:
        """Yield the numbers of the seasons of each column, in alphabetical order; that of none is 0."""
        known = sorted(word for word in self._words if word is not None)
        number = np.array([0 if word is None else 1 + known.index(word) for word in self._words], np.int64)
        for codes in self._codes:
            yield number[codes]
