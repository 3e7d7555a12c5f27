"""References to stored tensors: the shards that the kept snapshots of all tables name, as numbers, for they are many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

__all__ = ["References", "hash_of", "keys_in_samples", "keys_in_shards", "parts_in_shards"]


def hash_of(key: str) -> int:
    """Return 64 bits that stand for a key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


class References:
    """The shards that something refers to, and the folders of their parts.

    Of a key that is not among them, one in 10^12 counts as if it were, with a million of them: its object stays.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        hashes: set[int] = set()
        self._parts: set[str] = set()
        for key in keys:
            hashes.add(hash_of(key))
            self._parts.add(_part_of(key))
        self._hashes: npt.NDArray[np.uint64] = np.fromiter(hashes, np.uint64, len(hashes))
        self._hashes.sort()

    def __len__(self) -> int:
        return len(self._hashes)

    def without(self, keys: Sequence[str]) -> list[str]:
        """Return the shards among some to which nothing refers."""
        if not len(self):
            return list(keys)
        numbers = np.fromiter(map(hash_of, keys), np.uint64, len(keys))
        at = np.minimum(np.searchsorted(self._hashes, numbers), len(self) - 1)
        unknown = self._hashes[at] != numbers
        return [key for key, is_unknown in zip(keys, unknown.tolist(), strict=True) if is_unknown]

    def has_part(self, folder: str) -> bool:
        """Tell whether something refers to a shard below the folder of a part."""
        return folder in self._parts


def _part_of(key: str) -> str:
    return "/".join(key.split("/", 3)[:3])


def keys_in_shards(paths: Iterable[str]) -> Iterable[str]:
    """Yield the keys of shards that files of shards name."""
    return _keys(paths, lambda parts: len(parts) == 2 and parts[1] == "key")


def keys_in_samples(paths: Iterable[str]) -> Iterable[str]:
    """Yield the keys of shards that files of samples name."""
    return _keys(paths, lambda parts: len(parts) == 3 and parts[1:] == ["ref", "key"])


def parts_in_shards(paths: Iterable[str]) -> frozenset[str]:
    """Return the names of the parts that files of shards name."""
    return frozenset(
        name for path in paths for name in pq.read_table(path, columns=["part"])["part"].unique().to_pylist()
    )


def _keys(paths: Iterable[str], wanted: Callable[[list[str]], bool]) -> Iterable[str]:
    for path in paths:
        footer = pq.read_metadata(path)
        names = [footer.schema.column(i).path for i in range(footer.num_columns)]
        names = [name for name in names if wanted(name.split("."))]
        if not names:
            continue
        with pq.ParquetFile(path, metadata=footer, read_dictionary=names) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=names)
                for name in names:
                    yield from _texts(rows, name.split("."))


def _texts(rows: pa.Table, path: list[str]) -> list[str]:
    """Return the different texts of a field of structs."""
    found: set[str] = set()
    for chunk in rows[path[0]].chunks:
        values: pa.Array = chunk
        for name in path[1:]:
            values = values.field(name)
        found.update(text for text in pc.unique(values).to_pylist() if text is not None)
    return sorted(found)
