"""A damaged index: which files and rows of a version are lost or wrong, and how others come in their place.

Where rows give the very file that was written, which its name tells, it is put back under its key, and no snapshot changes.
Else they go to a new file, which one commit puts in the place of the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_arrow
from tensorbank.catalog import Catalog, LevelChange, TableVersion
from tensorbank.errors import TensorBankError
from tensorbank.index_files import IndexFile, NewFile, index_file_name, parquet_bytes, put_file
from tensorbank.layout import index_key
from tensorbank.schema import TableSchema
from tensorbank.verification import Finding, FindingKind, pairs_of
from tensorbank_indexer.repairs.derived_rows import Pair, Place, place_of, rows_where
from tensorbank_indexer.repairs.repair_report import Unrepaired

__all__ = ["DamagedIndex"]

FLAWS_OF_FILES = frozenset({FindingKind.MISSING_INDEX_FILE, FindingKind.DAMAGED_INDEX_FILE})

Numbers = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Derive = Callable[[bool], pa.Table]


@dataclass
class DamagedIndex:
    """The index of one version, and what is found wrong in it.

    ``put_back`` are keys of files that are whole again, ``changes`` is what a commit is to change. A pair of key and part stands
    as a number, as :func:`tensorbank.verification.pairs_of` makes it; ``dead`` are those of rows that do not count.
    """

    catalog: Catalog
    version: TableVersion
    findings: Sequence[Finding]
    dry_run: bool
    put_back: list[str] = field(default_factory=list)
    changes: dict[str, LevelChange] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._parts: dict[str, int] = {}
        self.lost = {f.key for f in self.findings if f.kind in FLAWS_OF_FILES}
        self.dead: Numbers = np.zeros(0, np.uint64)
        self.look_for_deleted()

    def look_for_deleted(self) -> None:
        """Read which rows do not count, if that can be read."""
        with suppress(TensorBankError):
            gone = self.catalog.deleted(self.version)
            self.dead = np.unique(self.numbers_of(gone)) if gone is not None else self.dead

    @property
    def schema(self) -> TableSchema:
        return self.version.schema

    def folder(self, level: str) -> str:
        """Return the key of the folder of a level."""
        return index_key(self.version.table, level)

    def of_level(self, level: str) -> list[Finding]:
        """Return what is wrong in the rows of a level."""
        return [f for f in self.findings if f.level == level or f.key == self.folder(level)]

    def files(self, level: str, *, lost: bool) -> list[IndexFile]:
        """Return the files of a level that are lost, or those that can be read."""
        files = self.catalog.state(self.version, level).files.files
        if lost:
            return [f for f in files if f.key in self.lost and f.key not in self.put_back]
        absent = self.lost if self.dry_run else self.lost - {*self.put_back}
        return [f for f in files if f.key not in absent]

    def paths(self, level: str) -> list[str]:
        """Return the local paths of the sound files of a level."""
        return [self.catalog.path(f) for f in self.files(level, lost=False)]

    def numbers_of(self, rows: pa.Table) -> Numbers:
        """Return the number of each row's key and part, (n,)."""
        return pairs_of(rows, self._parts)

    def numbers(self, level: str) -> Numbers:
        """Return the numbers of all rows of a level that can be read."""
        found = [np.zeros(0, np.uint64)]
        for path in self.paths(level):
            found += map(self.numbers_of, _groups(path, ["key", "part"]))
        return np.concatenate(found)

    def among(self, numbers: Numbers) -> Callable[[pa.Table], Mask]:
        """Return what tells which of some rows have one of these numbers."""
        return lambda rows: np.isin(self.numbers_of(rows), numbers)

    def named(self, findings: Iterable[Finding]) -> Numbers:
        """Return the numbers of the rows of samples that findings name."""
        ids = pa.array(sorted({i for f in findings for i in f.sample_ids}), pa.string())
        found = [np.zeros(0, np.uint64)]
        for path in self.paths("samples") if len(ids) else ():
            for rows in _groups(path, ["key", "part", "sample_id"]):
                found += [self.numbers_of(rows.filter(pc.is_in(rows["sample_id"], value_set=ids)))]
        return np.unique(np.concatenate(found))

    def places(
        self, wanted: Callable[[pa.Table], Mask], instead: Mapping[Pair, dict[str, Any]] | None = None
    ) -> dict[Place, list[dict[str, Any]]]:
        """Return rows of samples by the shards that they lie in, others in place of some."""
        places: dict[Place, list[dict[str, Any]]] = {}
        for found in rows_where(self.paths("samples"), ["key", "part"], wanted):
            row = (instead or {}).get((found["key"], found["part"]), found)
            at = place_of(row, self.schema)
            if at is not None:
                places.setdefault((row["part"], at[0]), []).append(row)
        return places

    def require_whole_samples(self, what: str) -> None:
        """Raise Unrepaired if files of samples are lost."""
        if len(self.files("samples", lost=False)) < len(self.version.samples.files):
            raise Unrepaired(
                f"{what} follow from rows of samples, and files of these are lost; they come first"
            )

    def from_copies(self) -> None:
        """Put back lost files of which this machine, or another table of the bank, has a sound copy."""
        for key in sorted(self.lost):
            data = self._copy_of(key)
            if data is not None:
                self.restore(key, data)

    def _copy_of(self, key: str) -> bytes | None:
        folder, _, name = key.rpartition("/")
        level = folder.partition("/index/")[2]
        with suppress(TensorBankError, OSError):
            data = Path(self.catalog.path(IndexFile(key, self._size_of(key), 0))).read_bytes()
            if index_file_name(data) == name:
                return data
        for table in self.catalog.tables():
            other = f"{index_key(table, level)}/{name}"
            with suppress(TensorBankError):
                if other != key and index_file_name(data := self.catalog.store.get(other)) == name:
                    return data
        return None

    def _size_of(self, key: str) -> int:
        level = key.rpartition("/")[0].partition("/index/")[2]
        return next(f.n_bytes for f in self.catalog.state(self.version, level).files.files if f.key == key)

    def restore(self, key: str, data: bytes) -> None:
        """Put a file back as it was written."""
        if not self.dry_run:
            self.catalog.store.put(key, data)
        self.put_back.append(key)

    def replace(
        self,
        level: str,
        derive: Derive,
        lost: Sequence[IndexFile],
        goes: Callable[[pa.Table], Mask],
    ) -> None:
        """Put a lost file back if all its rows make it again; else note the change that has them in other files.

        Parameters
        ----------
        derive
            Callable that returns the rows, of samples that count or of all.
        goes
            Callable that tells which rows of the other files are wrong.
        """
        folder = self.folder(level)
        derive = cache(derive)
        if len(lost) == 1:
            for rows in self._candidates(derive):
                data = parquet_bytes(rows)
                if f"{folder}/{index_file_name(data)}" == lost[0].key:
                    self.restore(lost[0].key, data)
                    lost = []
                    break
        removed, added = list(lost), []
        for file in self.files(level, lost=False):
            if file.key in self.put_back:
                continue
            rows = pq.read_table(self.catalog.path(file))
            wrong = goes(rows)
            if wrong.any():
                removed.append(file)
                if not wrong.all():
                    added.append(self.written(level, rows.filter(as_arrow(~wrong))))
        if removed:
            rows = derive(True)
            if rows.num_rows:
                added.append(self.written(level, rows))
            self.changes[level] = LevelChange(tuple(added), tuple(removed))

    def _candidates(self, derive: Derive) -> Iterable[pa.Table]:
        """Yield the rows that a lost file may have had: with those of deleted samples or without, and without modalities that
        none of them has.
        """
        for live in (False, True) if len(self.dead) else (True,):
            try:
                rows = derive(live)
            except Unrepaired:
                if live:
                    raise
                continue  # of deleted samples nothing may be left
            yield rows
            empty = [n for n in self.schema.names if rows[n].null_count == rows.num_rows]
            if empty:
                yield rows.drop_columns(empty)

    def written(self, level: str, rows: pa.Table) -> NewFile:
        """Write rows as a file that a commit may add; a dry run only names it."""
        folder = self.folder(level)
        if self.dry_run:
            return NewFile(f"{folder}/{index_file_name(parquet_bytes(rows))}", 0, rows.num_rows, "")
        return put_file(self.catalog.store, folder, parquet_bytes(rows))


def _groups(path: str, columns: Sequence[str]) -> Iterable[pa.Table]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=list(columns))
