"""Tables of a bank: what each holds, at one version or the newest, and samples of it by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tensorbank.bank.engine import Snapshot
from tensorbank.bank.own_tables import read_own_table
from tensorbank.catalog import Provenance, Published, SnapshotInfo
from tensorbank.columns import ColumnsReport, drop_columns, put_columns
from tensorbank.corrections import (
    Deleted,
    Difference,
    Restored,
    changed_samples,
    delete,
    diff,
    drop_modality,
    restore,
)
from tensorbank.engines import Workers
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError
from tensorbank.maintenance import Compaction, compact
from tensorbank.maintenance.sorting import (
    SortedCopyReport,
    add_sorted_copy,
    drop_sorted_copy,
    sorted_columns,
)
from tensorbank.queries import MAX_DATASET_BYTES
from tensorbank.reading import read_tensors
from tensorbank.retention import Tag, VersionName
from tensorbank.schema import TableSchema
from tensorbank.statistics import Statistics

if TYPE_CHECKING:
    from tensorbank.bank.bank import Bank

__all__ = ["Table"]


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """A versioned set of samples with one schema. ``version`` is None for the newest."""

    bank: Bank
    name: str
    version: int | None = None

    def __repr__(self) -> str:
        version = "" if self.version is None else f", version {self.version}"
        return f"Table({self.name!r} of {self.bank.url}{version})"

    @property
    def schema(self) -> TableSchema:
        """Return the modalities; NotFoundError with the nearest names if there is no such table."""
        return self.bank.engine.schema(self.name, self.version)

    def at(self, version: VersionName) -> Table:
        """Return the same table at another version: by its number, a tag, or a time as :meth:`Bank.at` takes them.

        Raises
        ------
        InvalidInputError
            It is none of these.
        NotFoundError
            The table has no such tag, or is younger than the time.
        """
        return Table(self.bank, self.name, self.bank.engine.version_of(self.name, version))

    def history(self) -> list[SnapshotInfo]:
        """Return the versions, newest first. A service does not tell which part a version added."""
        return self.bank.engine.history(self.name)

    def tag(self, name: str, *, message: str = "") -> Tag:
        """Give the table's version, the newest if it is at none, a name that keeps it: maintenance removes nothing of it.

        A tag is never moved. Who wants the name for another version takes it away with :meth:`untag` first.

        Raises
        ------
        InvalidInputError
            The name cannot be one: a letter, then letters, digits, ``.``, ``_`` and ``-``, at most 64; or the bank is read
            through a service, and the kind is ``served``.
        ConflictError
            The table has a tag of this name already (``kind`` is ``tag-exists``).
        NotFoundError, StorageError
            The table has no such version; the store cannot be written.
        """
        return self.bank.engine.tag(self.name, self.version, name, message)

    def tags(self) -> list[Tag]:
        """Return the tags of the table by their names. A service does not tell who made them.

        Raises
        ------
        IntegrityError
            A tag is damaged.
        """
        return list(self.bank.engine.tags(self.name))

    def untag(self, name: str) -> None:
        """Take a name from a version of the table; what nothing else keeps may then be removed by maintenance.

        Raises
        ------
        InvalidInputError
            The bank is read through a service; the kind is ``served``.
        NotFoundError
            There is no such tag; the nearest names are told.
        """
        self.bank.engine.untag(self.name, name)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that were added after the ingest."""
        return self.bank.catalog.version(self.name, self.version).columns

    def add_columns(
        self, data: Any, on: str = "sample_id", *, replace: bool = False, unknown: str = "refuse"
    ) -> ColumnsReport:
        """Give samples columns of values, as a new version: scores, labels, captions, embeddings.

        They are columns of SQL from then on, in ``WHERE``, as weights, and in batches. Samples without a value have null, and
        so have those whose value is NaN.

        Parameters
        ----------
        data
            An Arrow table, a data frame, or a Parquet or CSV file, with the column ``on``, with ``split`` where ids are in
            several splits, and with columns of numbers, texts, times, or lists of them.
        on
            ``sample_id`` or ``key``.
        replace
            Also replace all values of columns that were added before.
        unknown
            ``refuse`` rows of samples that the table does not have, or ``ignore`` them.

        Raises
        ------
        InvalidInputError
            A name is taken, a type cannot be stored, or an id is unknown, given twice, or in several splits: nothing is
            written. Or the bank is read through a service; the kind is ``served``.
        """
        mode = "replace" if replace else "add"
        rows = read_own_table("columns", data)
        return put_columns(self.bank.catalog, self.name, rows, on=on, mode=mode, unknown=unknown)

    def update_columns(self, data: Any, on: str = "sample_id", *, unknown: str = "refuse") -> ColumnsReport:
        """Replace the values of the given samples in columns that were added before, as a new version; others keep theirs.

        Raises
        ------
        NotFoundError
            The table has no such column.
        InvalidInputError
            As :meth:`add_columns`; or the values are of another type.
        """
        rows = read_own_table("columns", data)
        return put_columns(self.bank.catalog, self.name, rows, on=on, mode="update", unknown=unknown)

    def drop_columns(self, names: Sequence[str]) -> int:
        """Drop columns that were added, and return the version without them; versions before it keep them.

        Raises
        ------
        NotFoundError
            The table has no such added column.
        """
        return drop_columns(self.bank.catalog, self.name, names)

    @property
    def sorted_copies(self) -> tuple[str, ...]:
        """The columns by which the table has sorted copies of its samples."""
        catalog = self.bank.catalog
        return sorted_columns(catalog.version(self.name, self.version), catalog)

    def add_sorted_copy(
        self, column: str, *, progress: Callable[[str, int, int], None] | None = None
    ) -> SortedCopyReport:
        """Write a copy of all samples sorted by a column, as a new version: queries that ask for few of its values read it.

        No answer changes, and no rows of a plan; its fingerprint is that of a new version. Samples that come later are read where
        they are, until :meth:`compact` writes the copy anew. See :func:`tensorbank.maintenance.sorting.add_sorted_copy`.

        Parameters
        ----------
        column
            Column of samples as SQL names it, such as ``cloud_cover`` or ``S2L2A.B04.mean``: numbers, texts or times.

        Raises
        ------
        InvalidInputError
            There is no such column, its values have no order, this is not the newest version, or the bank is read through a
            service (``kind`` is ``served``).
        ConflictError, StorageError
            Other writers replaced files of samples again and again; the store cannot be written.
        """
        self._require_newest("add a sorted copy")
        return add_sorted_copy(self.bank.catalog, self.name, column, progress=progress)

    def drop_sorted_copy(self, column: str) -> int:
        """Drop a sorted copy, and return the version without it; versions before it keep it.

        Raises
        ------
        NotFoundError
            The table has no copy that is sorted by this column.
        """
        self._require_newest("drop a sorted copy")
        return drop_sorted_copy(self.bank.catalog, self.name, column)

    def compact(
        self,
        *,
        rewrite_shards: bool = False,
        dry_run: bool = False,
        workers: Workers | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Compaction:
        """Merge the small index files of the newest version into sorted ones, and drop the rows of deleted samples.
        Sorted copies are written anew where they lack samples then, and dropped where their column is gone.

        With ``rewrite_shards``, shards that hold deleted samples are written anew without them, so that :meth:`Bank.gc` can
        remove their bytes; ``workers`` copy them in the place of threads. See :func:`tensorbank.maintenance.compact`.

        Raises
        ------
        InvalidInputError
            The bank is read through a service; the kind is ``served``. Or there are workers, and no shards to rewrite.
        ConflictError, StorageError
            Other writers replaced merged files again and again; the store cannot be written.
        """
        return compact(
            self.bank.catalog,
            self.name,
            rewrite_shards=rewrite_shards,
            dry_run=dry_run,
            workers=workers,
            progress=progress,
        )

    def snapshot(self) -> Snapshot:
        """Count what the table holds at its version."""
        return self.bank.engine.snapshot(self.name, self.version)

    def describe(self) -> dict[str, Statistics]:
        """Summarize every modality, from the roll-ups of the shards: no pixel and no sample row is read."""
        return self.bank.engine.describe(self.name, self.version)

    def read(
        self, sample_id: str, *, split: str | None = None, modalities: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Read one sample: ``(time, band, y, x)`` in the stored dtype, by modality; those that it lacks are left out.

        Parameters
        ----------
        split
            Split that is meant where several splits have a sample of this id.
        modalities
            Names, or names with bands such as ``S2L2A[B04,B08]``; all if not given.

        Raises
        ------
        NotFoundError
            There is no such sample (``kind`` is ``unknown-sample``).
        InvalidInputError
            Several splits have one (``kind`` is ``ambiguous-sample``).
        IntegrityError, StorageError
            Blocks are damaged, or the store does not answer.
        """
        chosen = list(modalities) if modalities is not None else list(self.schema.names)
        versions = {} if self.version is None else {self.name: self.version}
        found = self.bank.engine.select(self.name, versions, {}).where(f"sample_id = {_text(sample_id)}")
        if split is not None:
            found = found.where(f"split = {_text(split)}")
        plan = found.select("sample_id", "split", *chosen).plan()
        if not len(plan):
            where = f"{self.name} has no sample {sample_id!r}" + (
                f" in {split!r}" if split is not None else ""
            )
            raise NotFoundError(f"table {where}", kind=ErrorKind.UNKNOWN_SAMPLE)
        if len(plan) > 1:
            splits = ", ".join(map(repr, plan.table["split"].to_pylist()))
            raise InvalidInputError(
                f"{len(plan)} samples are called {sample_id!r}, in splits {splits}; choose one with split=",
                kind=ErrorKind.AMBIGUOUS_SAMPLE,
            )
        tensors = read_tensors(plan, MAX_DATASET_BYTES)
        return {h.name: tensors[h.name][0] for h in plan.handles if plan.addresses[h.name].present[0]}

    def delete(self, where: str, *, reason: str = "", dry_run: bool = False) -> Deleted:
        """Delete the samples that satisfy a condition: one commit, after which no query sees them.

        Their bytes stay where they are, for older versions, and :meth:`at` shows them. To delete again what is deleted deletes
        nothing.

        Parameters
        ----------
        where
            Condition in SQL as a query has it after WHERE: columns, statistics, predicates of pixels, polygons.
        reason
            Sentence for the history.
        dry_run
            True to count what would be deleted.

        Raises
        ------
        InvalidInputError
            The condition is wrong, this is not the newest version, or the bank cannot be written to.
        ConflictError
            Other writers won every one of many tries.
        """
        self._require_newest("delete samples")
        return delete(
            self.bank.catalog,
            self.name,
            where,
            reason=reason,
            dry_run=dry_run,
            registered=self.bank.registered,
        )

    def restore(self, version: VersionName) -> Restored:
        """Make the table what it was at a version: samples, modalities, columns and deletions, by one more commit.

        Versions in between stay, and can be restored as well. What the newest version holds already is not committed again.

        Parameters
        ----------
        version
            A version by its number, a tag, or a time as :meth:`Bank.at` takes them.

        Raises
        ------
        NotFoundError
            There is no such version, or some of its files were removed since.
        InvalidInputError
            It names no version, this is not the newest version, or the bank cannot be written to.
        """
        self._require_newest("restore a version")
        return restore(self.bank.catalog, self.name, self.bank.engine.version_of(self.name, version))

    def diff(
        self, a: VersionName, b: VersionName | None = None, *, ids: str | os.PathLike[str] | None = None
    ) -> Difference:
        """Return what differs in version ``b`` from version ``a``: samples, statistics, modalities, columns. No pixel is read.

        Parameters
        ----------
        a, b
            Versions by number, tag or time as :meth:`Bank.at` takes them; ``b`` is this version of the table if not given.
        ids
            File for the samples that differ, whose name ends with ``.parquet`` or ``.csv``.

        Raises
        ------
        NotFoundError
            There is no such version.
        InvalidInputError
            It names no version, the file has another ending, or the bank is read through a service (``kind`` is ``served``).
        """
        catalog, of = self.bank.catalog, self.bank.engine.version_of
        newest = self.version if self.version is not None else catalog.version(self.name).version
        versions = of(self.name, a), newest if b is None else of(self.name, b)
        if ids is not None:
            changed_samples(catalog, self.name, *versions, Path(ids))
        return diff(catalog, self.name, *versions)

    def _require_newest(self, what: str) -> None:
        if self.version is not None:
            raise InvalidInputError(
                f"{self.name} is pinned to version {self.version}, and changes are made of the newest; {what} by "
                f"bank.table({self.name!r}) of a bank without pinned versions"
            )

    def drop_modality(self, name: str) -> Published:
        """Remove a modality, by one commit, after which no query sees it; older versions keep it. Tensors of the others stay.

        Raises
        ------
        NotFoundError
            The table has no such modality.
        InvalidInputError
            It is the only one, this is not the newest version, or the bank cannot be written to.
        ConflictError
            Other writers won every one of many tries.
        """
        self._require_newest("drop a modality")
        return drop_modality(self.bank.catalog, self.name, name)

    def provenance(self) -> list[Provenance]:
        """Return the source, revision and licence of every part, by the name of the part.

        Raises
        ------
        InvalidInputError
            The bank is read through a service, which does not tell; the kind is ``served``.
        """
        return self.bank.engine.provenance(self.name, self.version)

    def parts(self) -> dict[str, str]:
        """Return the URLs of the Zarr groups that samples lie in, by the name of the part.

        A modality that was replaced or added later lies in a group of its own, with the same number of rows, each sample at the
        same one; the array that it replaced stays where it was. ``S2L2A.ref.key`` of a sample tells where it lies now.

        Raises
        ------
        InvalidInputError
            The bank is read through a service, which does not hand out parts; the kind is ``served``.
        """
        return self.bank.engine.parts(self.name, self.version)


def _text(value: str) -> str:
    """Return a text as SQL and CQL2 write it."""
    if not isinstance(value, str):
        raise InvalidInputError(f"the id or split of a sample is a text, got {value!r}")
    return "'" + value.replace("'", "''") + "'"
