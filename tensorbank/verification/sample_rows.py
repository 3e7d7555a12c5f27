"""The rows of samples, read once: what the other levels are compared with, and what is wrong in the rows themselves.

A few dozen bytes of each row are kept, whatever its statistics take.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.catalog import keys_of
from tensorbank.layout import is_shard_key, place_of_key
from tensorbank.schema import Modality, TableSchema
from tensorbank.verification.findings import MAX_NAMED, Finding, FindingKind

__all__ = [
    "ArrayUse",
    "SampleRows",
    "SampleScan",
    "batches",
    "ids_of",
    "pairs_of",
    "place_digests",
    "ref_digests",
    "whole",
]

BATCH_ROWS = 1 << 16
_STEP = np.uint64(0x9E3779B97F4A7C15)
_WEIGHTS = np.array([3, 5, 7, 11], np.uint64) * _STEP

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]


@dataclass(slots=True)
class ArrayUse:
    """The facts that the rows that count say of one Zarr array: its modality, the rows that it has at least, and its shards."""

    modality: str
    n_rows: int = 0
    shards: dict[str, int] = field(default_factory=dict)
    """The number of samples in each shard, by key."""


@dataclass(frozen=True)
class SampleRows:
    """The columns that are kept of all rows of samples, in no order of a version, (n,) each.

    ``pairs`` are numbers of their keys and parts together, as :func:`pairs_of` makes them, ``part_of`` those of their parts, and
    ``live`` tells which rows count.
    """

    keys: Int64
    stems: Int64
    pairs: UInt64
    part_of: Int64
    live: npt.NDArray[np.bool_]


class SampleScan:
    """A look at all rows of samples of one version, and what it has seen.

    Parameters
    ----------
    gone
        Table of ``key`` and ``part`` of rows that do not count, None if all do.
    folder
        Key of the level.
    """

    def __init__(self, schema: TableSchema, gone: pa.Table | None, folder: str) -> None:
        self.schema = schema
        self.folder = folder
        self.parts: dict[str, int] = {}
        self.arrays: dict[str, ArrayUse] = {}
        self.dead = np.zeros(0, np.uint64) if gone is None else np.unique(pairs_of(gone, self.parts))
        self._seen: list[SampleRows] = []

    def read(self, paths: Sequence[str]) -> Iterator[Finding]:
        """Read the files of samples, and yield what is wrong in their rows."""
        names = ["sample_id", "split", "subset", "stem", "part", "modalities", "key"]
        columns = [*names, *(f"{m.name}.ref" for m in self.schema)]
        for path in paths:
            for rows in batches(path, columns):
                yield from self._read(rows)
        yield from self._repeated(paths)

    @property
    def rows(self) -> SampleRows:
        """All rows that were seen."""
        numbers = np.zeros(0, np.int64)
        seen = [SampleRows(numbers, numbers, numbers.view(np.uint64), numbers, numbers > 0), *self._seen]
        every = SampleRows(
            np.concatenate([s.keys for s in seen]),
            np.concatenate([s.stems for s in seen]),
            np.concatenate([s.pairs for s in seen]),
            np.concatenate([s.part_of for s in seen]),
            np.concatenate([s.live for s in seen]),
        )
        self._seen = [every]
        return every

    def _read(self, rows: pa.Table) -> Iterator[Finding]:
        keys = keys_of(rows, "split", "sample_id")
        if rows.schema.get_field_index("key") >= 0:
            wrong = keys != as_numpy(rows["key"], 0)
            if wrong.any():
                yield self._of_rows(FindingKind.WRONG_KEY, rows, wrong, "have another key than their id's")
        pairs = pairs_of(rows.select(["part"]).append_column("key", as_arrow(keys)), self.parts)
        live = ~np.isin(pairs, self.dead)
        self._seen.append(
            SampleRows(
                keys, keys_of(rows, "split", "subset", "stem"), pairs, part_codes(rows, self.parts), live
            )
        )
        yield from self._modalities(rows)
        for modality in self.schema:
            if rows.schema.get_field_index(modality.name) >= 0:
                yield from self._refs(rows, modality, live)

    def _modalities(self, rows: pa.Table) -> Iterator[Finding]:
        """Yield a finding about rows whose list of modalities is not that of their columns."""
        said = whole(rows["modalities"])
        n_said = np.zeros(len(rows), np.int64)
        named = whole(pc.list_flatten(said))
        owner = as_numpy(pc.list_parent_indices(said)).astype(np.int64)
        np.add.at(n_said, owner, 1)
        wrong = np.zeros(len(rows), np.bool_)
        n_there = np.zeros(len(rows), np.int64)
        for modality in self.schema:
            if rows.schema.get_field_index(modality.name) < 0:
                continue
            there = as_numpy(rows[modality.name].is_valid())
            n_there += there
            mine = np.zeros(len(rows), np.bool_)
            mine[owner[as_numpy(pc.equal(named, modality.name)) > 0]] = True
            wrong |= there != mine
        wrong |= n_said != n_there
        if wrong.any():
            yield self._of_rows(
                FindingKind.WRONG_MODALITIES, rows, wrong, "list other modalities than they have"
            )

    def _refs(self, rows: pa.Table, modality: Modality, live: npt.NDArray[np.bool_]) -> Iterator[Finding]:
        """Look at the addresses of one modality; note what those that count use."""
        column = whole(rows[modality.name])
        there = np.flatnonzero(as_numpy(column.is_valid()))
        ref = column.take(as_arrow(there)).field("ref")
        keys = ref.field("key").dictionary_encode()
        words = keys.dictionary.to_pylist()
        possible = np.array([is_shard_key(word) for word in words], np.bool_)
        code = as_numpy(keys.indices, -1).astype(np.int64)
        row, offset, length = (
            as_numpy(ref.field(n), -1).astype(np.int64) for n in ("row", "offset", "length")
        )
        blocks = ref.field("block_bytes")
        n_blocks = as_numpy(pc.list_value_length(blocks), 0).astype(np.int64)
        sizes = as_numpy(pc.list_flatten(blocks), 0).astype(np.int64)
        total = np.bincount(
            as_numpy(pc.list_parent_indices(blocks)).astype(np.int64), sizes, len(there)
        ).astype(np.int64)
        sound = (code >= 0) & (row >= 0) & (offset >= 0) & (length > 0) & (total == length)
        sound &= n_blocks == modality.n_blocks
        if len(possible):
            sound &= possible[np.maximum(code, 0)]
        if not sound.all():
            wrong = np.zeros(len(rows), np.bool_)
            wrong[there[~sound]] = True
            yield self._of_rows(
                FindingKind.BAD_REF,
                rows,
                wrong,
                f"have an address of {modality.name} that cannot be",
                modality.name,
            )
        used = sound & live[there]
        for number in np.unique(code[used]).tolist():
            mine = used & (code == number)
            folder, _ = place_of_key(words[number])
            use = self.arrays.setdefault(folder, ArrayUse(modality.name))
            use.n_rows = max(use.n_rows, int(row[mine].max()) + 1)
            use.shards[words[number]] = use.shards.get(words[number], 0) + int(np.count_nonzero(mine))

    def _repeated(self, paths: Iterable[str]) -> Iterator[Finding]:
        """Yield a finding about samples with several rows that count."""
        rows = self.rows
        keys, times = np.unique(rows.keys[rows.live], return_counts=True)
        if (times > 1).any():
            ids = ids_of(paths, keys[times > 1])
            reason = f"{int(np.count_nonzero(times > 1))} samples have several rows"
            yield Finding(FindingKind.DUPLICATE_SAMPLE, self.folder, reason, "", ids)

    def _of_rows(
        self, kind: FindingKind, rows: pa.Table, wrong: npt.NDArray[np.bool_], what: str, modality: str = ""
    ) -> Finding:
        ids = tuple(map(str, rows["sample_id"].filter(as_arrow(wrong)).to_pylist()))
        return Finding(kind, self.folder, f"{len(ids)} rows {what}", modality, ids[:MAX_NAMED])


def batches(path: str, columns: Sequence[str] | None = None, n_rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
    """Yield the rows of an index file, so many at a time, with those of some columns that it has."""
    with pq.ParquetFile(path) as file:
        there = {*file.schema_arrow.names}
        chosen = None if columns is None else [c for c in columns if c.split(".")[0] in there]
        for batch in file.iter_batches(n_rows, columns=chosen):
            yield pa.Table.from_batches([batch])


def pairs_of(rows: pa.Table, parts: dict[str, int]) -> UInt64:
    """Return a number for each pair of ``key`` and ``part`` in some rows, (n,).

    ``parts`` has a number for each part, and gets those that are new. Two pairs have one number with a chance of 2**-64.
    """
    mixed = part_codes(rows, parts).astype(np.uint64) * _STEP
    mixed ^= mixed >> np.uint64(31)
    return as_numpy(rows["key"], 0).astype(np.int64).view(np.uint64) + mixed * _STEP


def part_codes(rows: pa.Table, parts: dict[str, int]) -> Int64:
    """Return the number of each row's part, (n,); new parts get one in ``parts``."""
    words = whole(rows["part"]).dictionary_encode()
    known = [parts.setdefault(str(word), len(parts) + 1) for word in words.dictionary.to_pylist()]
    return np.array([*known, 0], np.int64)[as_numpy(words.indices, -1).astype(np.int64)]


def ref_digests(ref: pa.StructArray) -> UInt64:
    """Return a number for each address, (n,): two addresses have one number with a chance of 2**-64."""
    words = ref.field("key").dictionary_encode()
    known = [hashlib.sha256(str(word).encode()).digest()[:8] for word in words.dictionary.to_pylist()]
    of_key = np.frombuffer(b"".join(known), np.uint64)
    code = as_numpy(words.indices, 0).astype(np.int64)
    found = of_key[code] if len(of_key) else np.zeros(len(code), np.uint64)
    for name, weight in zip(("row", "offset", "length"), _WEIGHTS, strict=False):
        found = _mixed(found + as_numpy(ref.field(name), -1).astype(np.int64).view(np.uint64) * weight)
    blocks = ref.field("block_bytes")
    sizes = as_numpy(pc.list_flatten(blocks), 0).astype(np.int64).view(np.uint64)
    owner = as_numpy(pc.list_parent_indices(blocks)).astype(np.int64)
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    total = np.zeros(len(found), np.uint64)
    np.add.at(total, owner, _mixed((sizes + np.uint64(1)) * _STEP + place.astype(np.uint64) * _WEIGHTS[3]))
    return _mixed(found + total)


def place_digests(rows: pa.Table) -> UInt64:
    """Return a number for season and centre of each row of samples or tiles, (n,)."""
    seasons = whole(rows["season"]).dictionary_encode()
    known = [hashlib.sha256(str(word).encode()).digest()[:8] for word in seasons.dictionary.to_pylist()]
    of_season = np.frombuffer(b"".join([*known, bytes(8)]), np.uint64)
    found = of_season[as_numpy(seasons.indices, -1).astype(np.int64)]
    for name, weight in zip(("lon", "lat"), _WEIGHTS, strict=False):
        degrees = as_numpy(rows[name]).astype(np.float64)
        degrees = np.where(np.isnan(degrees), np.inf, degrees)  # of nulls, all bits alike
        found = _mixed(found + degrees.view(np.uint64) * weight)
    return found


def _mixed(values: UInt64) -> UInt64:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return values ^ (values >> np.uint64(27))


def ids_of(paths: Iterable[str], keys: Int64) -> tuple[str, ...]:
    """Return the ids of samples with some keys, at most as many as a finding names."""
    wanted = as_arrow(np.unique(keys)[:MAX_NAMED])
    found: dict[str, None] = {}
    for path in paths:
        for rows in batches(path, ["split", "sample_id"]):
            mine = rows.filter(pc.is_in(as_arrow(keys_of(rows, "split", "sample_id")), value_set=wanted))
            found.update(dict.fromkeys(map(str, mine["sample_id"].to_pylist())))
    return tuple(found)[:MAX_NAMED]


def whole(column: pa.ChunkedArray | pa.Array) -> Any:
    """Return a column as one array."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
