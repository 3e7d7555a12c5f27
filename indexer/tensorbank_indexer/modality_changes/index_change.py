"""The rows of the index with other modalities in them: every file that has one of the samples is written anew, in one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_numpy
from tensorbank.catalog import Catalog, Change, LevelChange, TableVersion
from tensorbank.corrections import rewritten
from tensorbank.errors import ConflictError, ErrorKind
from tensorbank.index_files import IndexFile, NewFile
from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema
from tensorbank.layout import LEVELS, Level
from tensorbank.schema import Modality, TableSchema
from tensorbank_indexer.modality_changes.spooled_rows import SpooledRows
from tensorbank_indexer.rows import IndexRows

__all__ = ["IndexChange", "ShardStates", "changing", "shard_states"]

Numbers = npt.NDArray[np.int64]
_SCHEMAS = {"samples": samples_schema, "tiles": tiles_schema, "shards": shards_schema}
_IDENTITY = {
    "samples": ("key", "part"),
    "tiles": ("key", "part", "time_index", "tile"),
    "shards": ("part", "shard"),
}
ShardStates = dict[tuple[str, int], tuple[Any, ...]]


def shard_states(catalog: Catalog, version: TableVersion, modalities: Sequence[str]) -> ShardStates:
    """Return what a change rests on, by part and shard: the number of samples, and the keys of the shards of modalities.

    Who rewrites, replaces or drops any of it makes another state.
    """
    found: ShardStates = {}
    for file in catalog.state(version, "shards").files.files:
        with pq.ParquetFile(catalog.path(file)) as parquet:
            there = [m for m in modalities if m in parquet.schema_arrow.names]
            columns = ["part", "shard", "n_samples", *(f"{m}.key" for m in there)]
            for row in parquet.read(columns=columns).to_pylist():
                keys = ((row.get(m) or {}).get("key") for m in modalities)
                found[row["part"], row["shard"]] = (row["n_samples"], *keys)
    return found


class IndexChange:
    """The new fields of one modality, by the rows that get them.

    Parameters
    ----------
    folder
        Folder on the local disk for the fields.
    expected
        State of the table for which they were made.
    inputs
        Modalities of which they were made.
    """

    def __init__(
        self,
        catalog: Catalog,
        table: str,
        modality: Modality,
        folder: Path,
        expected: ShardStates,
        inputs: Sequence[str],
    ) -> None:
        self.catalog = catalog
        self.table = table
        self.modality = modality
        self.watched = (modality.name, *inputs)
        self.expected = expected
        one = TableSchema((modality,))
        self.fields = {level: _SCHEMAS[level](one).field(modality.name) for level in LEVELS}
        self._fields = {
            level: SpooledRows(folder / f"{level}.arrow", pa.schema([field]))
            for level, field in self.fields.items()
        }
        self._parts: dict[str, int] = {}
        self._shards: dict[tuple[str, int], int] = {}
        self._samples: list[tuple[npt.NDArray[np.int64], ...]] = []
        self._sorted: tuple[npt.NDArray[np.int64], ...] | None = None

    def add(self, base: str, shard: int, n_tiles: int, rows: IndexRows) -> None:
        """Add what one task has found for the samples of a shard of a part."""
        code = self._parts.setdefault(base, len(self._parts))
        name, n = self.modality.name, rows.samples.num_rows
        first = {level: self._fields[level].append(getattr(rows, level).select([name])) for level in LEVELS}
        if rows.shards.num_rows:
            self._shards[base, shard] = first["shards"]
        of_sample = rows.tiles.num_rows // n if n else 0
        own = np.arange(n, dtype=np.int64)
        self._samples.append(
            (
                as_numpy(rows.samples["key"]).astype(np.int64),
                np.full(n, code, np.int64),
                first["samples"] + own,
                first["tiles"] + own * of_sample,
                np.full(n, n_tiles**2, np.int64),
            )
        )

    def close(self) -> None:
        """Put the fields in order, once all are added."""
        columns = [np.concatenate(c) for c in zip(*self._samples, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        self._sorted = tuple(column[order] for column in columns)

    def require_unchanged(self, head: TableVersion) -> None:
        """Raise ConflictError of kind ``lost-race`` if another writer changed some of the same samples."""
        there = shard_states(self.catalog, head, self.watched)
        touched = self._shards
        changed = [place for place in touched if there.get(place) != self.expected.get(place)]
        other = self.modality.name in head.schema and head.schema[self.modality.name] != self.modality
        if changed or other:
            raise ConflictError(
                f"another writer changed {self.modality.name} or samples of {len(changed)} of {len(touched)} shards of "
                f"{self.table} meanwhile; run again",
                kind=ErrorKind.LOST_RACE,
            )

    def touches(self, level: Level, file: IndexFile) -> bool:
        """Tell whether a file has a row that changes; few columns of it are read."""
        if file.part is not None and file.part not in self._parts:
            return False
        with pq.ParquetFile(self.catalog.path(file)) as parquet:
            groups = (
                parquet.read_row_group(g, columns=list(_IDENTITY[level]))
                for g in range(parquet.num_row_groups)
            )
            return any((self._numbers(level, rows) >= 0).any() for rows in groups)

    def _numbers(self, level: Level, rows: pa.Table) -> Numbers:
        """Return for each of the rows the number of its new fields, -1 where it gets none."""
        if level == "shards":
            pairs = zip(rows["part"].to_pylist(), rows["shard"].to_pylist(), strict=True)
            return np.array([self._shards.get(pair, -1) for pair in pairs], np.int64)
        keys, parts, samples, tiles, cells = self._sorted or ()
        names = pa.array(list(self._parts), pa.string())
        own_key = as_numpy(rows["key"]).astype(np.int64)
        own_part = as_numpy(pc.index_in(rows["part"], value_set=names), -1)
        found = np.full(len(own_key), -1, np.int64)
        first, last = (np.searchsorted(keys, own_key, side) for side in ("left", "right"))
        for step in range(
            int((last - first).max(initial=0))
        ):  # one key in several parts: all but one are deleted
            at = np.minimum(first + step, len(keys) - 1)
            found = np.where((first + step < last) & (parts[at] == own_part), at, found)
        hit = found >= 0
        if level == "samples":
            return np.where(hit, samples[found], -1)
        time = as_numpy(rows["time_index"]).astype(np.int64)
        hit &= time < self.modality.n_times
        return np.where(hit, tiles[found] + time * cells[found] + as_numpy(rows["tile"]).astype(np.int64), -1)

    def changed(self, level: Level, rows: pa.Table) -> pa.Table:
        """Return rows of a file with their new fields."""
        numbers = self._numbers(level, rows)
        hit = numbers >= 0
        field = self.fields[level]
        place = rows.schema.get_field_index(field.name)
        old = pa.nulls(len(rows), field.type) if place < 0 else _whole(rows[place].cast(field.type))
        new = _whole(self._fields[level].take(numbers[hit])[field.name])
        choice = np.arange(len(rows))
        choice[hit] = len(rows) + np.arange(len(new))
        column = pa.concat_arrays([old, new]).take(pa.array(choice))
        rows = rows.append_column(field, column) if place < 0 else rows.set_column(place, field, column)
        return _with_name(rows, field.name, hit) if level == "samples" else rows


def changing(
    changes: Sequence[IndexChange], operation: str, details: Mapping[str, Any]
) -> Callable[[TableVersion], Change]:
    """Return what makes one change of several, each of another modality of one table.

    Raises
    ------
    ConflictError
        Of kind ``lost-race``, raised by the callable: another writer changed some of the same samples.
    """
    catalog, table = changes[0].catalog, changes[0].table
    written: dict[str, NewFile] = {}
    for change in changes:
        change.close()

    def of_level(head: TableVersion, level: Level) -> LevelChange:
        touched = []
        for file in catalog.state(head, level).files.files:
            if file.key not in written:
                mine = [change for change in changes if change.touches(level, file)]
                if not mine:
                    continue
                written[file.key] = rewritten(catalog, table, level, file, partial(_all_changed, mine, level))
            touched.append(file)
        return LevelChange(tuple(written[f.key] for f in touched), tuple(touched))

    def make(head: TableVersion) -> Change:
        new = []
        for change in changes:
            change.require_unchanged(head)
            if change.modality.name not in head.schema:
                new.append(change.modality)
        levels: dict[str, LevelChange] = {level: of_level(head, level) for level in LEVELS}
        schema = TableSchema((*head.schema.modalities, *new)) if new else None
        return Change(operation, levels, details, schema=schema)

    return make


def _all_changed(changes: Sequence[IndexChange], level: Level, rows: pa.Table) -> pa.Table:
    for change in changes:
        rows = change.changed(level, rows)
    return rows


def _with_name(rows: pa.Table, name: str, hit: npt.NDArray[np.bool_]) -> pa.Table:
    """Return rows of samples with a modality among those of some of them."""
    place = rows.schema.get_field_index("modalities")
    field = rows.schema.field(place)
    lists = zip(rows[place].to_pylist(), hit.tolist(), strict=True)
    named = [sorted({*(words or ()), name}) if has else words for words, has in lists]
    return rows.set_column(place, field, pa.array(named, field.type))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([pa.array([], column.type), *column.chunks])
