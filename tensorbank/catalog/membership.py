"""The samples that a table has, by keys of 64 bits: what a writer asks before it adds some, without a look at their rows.

The key of a sample is the first 8 bytes, as a little-endian signed number, of the SHA-256 of its split, a zero byte and its id;
its stem has a key likewise, of split, subset and stem. The Delta table ``keys`` holds both, one row for each row of
``samples``, in files that are sorted by ``key``. A commit adds a file and joins it with those that are not larger, so that
there are few of them, and each key is written again some twenty times in the life of a table. Of 100 million samples two have
one key with a chance of 0.03 %; the second would be taken for the first, and said to be there already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.catalog.key_files import KEYS_SCHEMA, counts_in, key_pairs
from tensorbank.index_files import IndexFile, LevelFiles

__all__ = [
    "KEY_COLUMNS",
    "KeysInMemory",
    "KeysOfFile",
    "Membership",
    "joined_files",
    "key_of",
    "keys_of",
    "rows_of_keys",
    "with_keys",
]

KEY_COLUMNS = ("split", "subset", "sample_id", "stem")
"""The columns of samples that keys are made of."""
MAX_JOINED_ROWS = 8 << 20
"""The most rows of a file that commits join with others."""

Keys = npt.NDArray[np.int64]


def key_of(*names: str) -> int:
    """Return the key of a name of several words."""
    return int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "little", signed=True)


def keys_of(rows: pa.Table, *columns: str) -> Keys:
    """Return (n,) keys of rows by some of their columns of texts; null counts as an empty text."""
    texts = [[text or "" for text in rows[name].to_pylist()] for name in columns]
    return np.fromiter((key_of(*names) for names in zip(*texts, strict=True)), np.int64, rows.num_rows)


def with_keys(rows: pa.Table) -> pa.Table:
    """Return rows of samples or tiles with their column ``key`` filled in."""
    keys = pa.Array.from_buffers(pa.int64(), rows.num_rows, [None, pa.py_buffer(_keys_of_samples(rows))])
    place = rows.schema.get_field_index("key")
    field = pa.field("key", pa.int64())
    return rows.append_column(field, keys) if place < 0 else rows.set_column(place, field, keys)


def _keys_of_samples(rows: pa.Table) -> Keys:
    """Return the keys of samples, each computed once where rows follow each other that have one sample."""
    known: dict[tuple[str | None, str | None], int] = {}
    pairs = zip(rows["split"].to_pylist(), rows["sample_id"].to_pylist(), strict=True)
    found = np.empty(rows.num_rows, np.int64)
    for i, pair in enumerate(pairs):
        key = known.get(pair)
        if key is None:
            key = known[pair] = key_of(pair[0] or "", pair[1] or "")
        found[i] = key
    return found


def rows_of_keys(samples: pa.Table) -> pa.Table:
    """Return the rows of ``keys`` for rows of samples, sorted."""
    keys, stems = keys_of(samples, "split", "sample_id"), keys_of(samples, "split", "subset", "stem")
    return _sorted(keys, stems)


def _sorted(keys: Keys, stems: Keys) -> pa.Table:
    order = np.argsort(keys, kind="stable")
    columns = [
        pa.Array.from_buffers(pa.int64(), len(keys), [None, pa.py_buffer(c[order])]) for c in (keys, stems)
    ]
    return pa.Table.from_arrays(columns, schema=KEYS_SCHEMA)


class KeysOfFile(Protocol):
    """The keys of one file, of samples and of stems, which may stay where they are."""

    def counts(self, which: int, asked: Keys) -> Keys:
        """Return how often each of ascending keys, (n,), is there: among those of samples for 0, and of stems for 1."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class KeysInMemory:
    """The keys of some rows, (n, 2)."""

    pairs: Keys

    def counts(self, which: int, asked: Keys) -> Keys:
        """See :class:`KeysOfFile`."""
        return counts_in(np.sort(self.pairs[:, which]), asked)


class Membership:
    """The keys of all samples of one version, file by file.

    Parameters
    ----------
    held
        Keys of rows of samples.
    deleted
        Keys of rows that do not count any more.
    """

    def __init__(self, held: Sequence[KeysOfFile], deleted: Sequence[KeysOfFile] = ()) -> None:
        self._held = held
        self._deleted = deleted

    def has_samples(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Tell which of (n,) keys are of samples that the version has."""
        return self._has(keys, 0)

    def has_stems(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Tell which of (n,) keys are of stems of such samples."""
        return self._has(keys, 1)

    def _has(self, keys: Keys, which: int) -> npt.NDArray[np.bool_]:
        order = np.argsort(keys)  # neighbours are looked for in memory that was just read
        asked = keys[order]
        n = np.zeros(len(keys), np.int64)
        for sign, files in ((1, self._held), (-1, self._deleted)):
            for file in files:
                n += sign * file.counts(which, asked)
        found = np.empty(len(keys), np.bool_)
        found[order] = n > 0
        return found


def joined_files(
    files: LevelFiles, rows: pa.Table, read: Callable[[IndexFile], npt.NDArray[np.int64]]
) -> tuple[pa.Table, tuple[IndexFile, ...]]:
    """Return the rows of a new file of ``keys``, and the files that it replaces: those not larger than what joins them."""
    total = rows.num_rows
    replaced: list[IndexFile] = []
    for file in sorted(files.files, key=lambda f: (f.n_rows, f.key)):
        if file.n_rows > total or total + file.n_rows > MAX_JOINED_ROWS:
            break
        replaced.append(file)
        total += file.n_rows
    if not replaced:
        return rows, ()
    every = np.concatenate([key_pairs(rows), *(read(f) for f in replaced)])
    return _sorted(every[:, 0], every[:, 1]), tuple(replaced)
