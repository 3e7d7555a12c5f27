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
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_numpy
from tensorbank.index_files import IndexFile, LevelFiles

__all__ = [
    "KEYS_SCHEMA",
    "KEY_COLUMNS",
    "Membership",
    "SortedKeys",
    "joined_files",
    "key_of",
    "key_pairs",
    "keys_of",
    "read_column",
    "read_keys",
    "rows_of_keys",
    "with_keys",
]

KEY_COLUMNS = ("split", "subset", "sample_id", "stem")
"""The columns of samples that keys are made of."""
KEYS_SCHEMA = pa.schema([pa.field("key", pa.int64()), pa.field("stem_key", pa.int64())])
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


class SortedKeys:
    """The keys of one file, in columns of their own: few ask for the stems, and a column of ten million takes its time.

    Parameters
    ----------
    column
        Callable that returns the ascending keys of samples, (n,), for 0, and those of stems for 1.
    """

    def __init__(self, column: Callable[[int], Keys]) -> None:
        self._column = column

    @classmethod
    def of(cls, pairs: Keys) -> SortedKeys:
        """Return (n, 2) keys as columns."""
        return cls(lambda which: np.sort(pairs[:, which]))

    def __getitem__(self, which: int) -> Keys:
        return self._column(which)


class Membership:
    """The keys of all samples of one version, as sorted arrays of its files.

    Parameters
    ----------
    held
        Keys of rows of samples.
    deleted
        Keys of rows that do not count any more.
    """

    def __init__(self, held: Sequence[SortedKeys], deleted: Sequence[SortedKeys] = ()) -> None:
        self._held = held
        self._deleted = deleted

    def has_samples(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Tell which of (n,) keys are of samples that the version has."""
        return self._has(keys, 0)

    def has_stems(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Tell which of (n,) keys are of stems of such samples."""
        return self._has(keys, 1)

    def _has(self, keys: Keys, which: int) -> npt.NDArray[np.bool_]:
        n = np.zeros(len(keys), np.int64)
        for sign, files in ((1, self._held), (-1, self._deleted)):
            for file in files:
                there = file[which]
                n += sign * (np.searchsorted(there, keys, "right") - np.searchsorted(there, keys, "left"))
        return n > 0


def read_column(path: Path, which: int) -> Keys:
    """Read the ascending keys of samples, (n,), of a file of ``keys`` or ``deleted``, or with 1 those of stems."""
    name = KEYS_SCHEMA.names[which]
    with pq.ParquetFile(path) as file:
        keys = as_numpy(file.read([name], use_threads=False)[name]).astype(np.int64, copy=False)
    return keys if (keys[1:] >= keys[:-1]).all() else np.sort(keys)


def read_keys(path: Path) -> npt.NDArray[np.int64]:
    """Read (n, 2) keys of a file of ``keys`` or ``deleted``."""
    with pq.ParquetFile(
        path
    ) as file:  # pq.read_table takes five times as long to begin, and there are some small files
        return key_pairs(file.read(list(KEYS_SCHEMA.names), use_threads=False))


def key_pairs(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return rows of ``keys`` or ``deleted`` as (n, 2) numbers."""
    return np.stack([as_numpy(rows[name]).astype(np.int64, copy=False) for name in KEYS_SCHEMA.names], axis=1)


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
