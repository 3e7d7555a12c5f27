"""The change of one modality of a table: planned, and written shard by shard. A commit then shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.bank import Bank
from tensorbank.catalog import TableVersion
from tensorbank.errors import (
    ErrorKind,
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from tensorbank.layout import part_of_key
from tensorbank.schema import Modality, TableSchema
from tensorbank_indexer.column_names import check_names
from tensorbank_indexer.modality_changes.change_plan import PartChange, plan_parts
from tensorbank_indexer.modality_changes.group_task import GroupTask
from tensorbank_indexer.modality_changes.index_change import IndexChange, ShardStates, shard_states
from tensorbank_indexer.modality_changes.modality_report import ModalityReport
from tensorbank_indexer.modality_changes.origins import Origin
from tensorbank_indexer.modality_changes.part_documents import write_documents
from tensorbank_indexer.modality_changes.table_rows import TableRows
from tensorbank_indexer.options import IngestOptions
from tensorbank_indexer.parts import Progress, ShardResult, checkpoint
from tensorbank_indexer.reports import HARMLESS
from tensorbank_indexer.schema_survey import require_fit
from tensorbank_indexer.source import Finding, MemberAddress

__all__ = ["ADD", "REFRESH", "REPLACE", "ModalityJob"]

ADD, REPLACE, REFRESH = "add-modality", "replace-modality", "refresh"
ROWS_AT_ONCE = 65_536


class ModalityJob:
    """The job of writing one modality anew for the samples that an origin has, which a commit then shows."""

    def __init__(
        self,
        operation: str,
        origin: Origin,
        bank: Bank,
        table: str,
        name: str,
        where: str | None,
        options: IngestOptions,
        progress: Progress,
        report: ModalityReport,
    ) -> None:
        self.operation = operation
        self.origin = origin
        self.bank = bank
        self.catalog = bank.catalog
        self.table = table
        self.name = name
        self.where = where
        self.options = options
        self.progress = progress
        self.report = report
        self.arbitrated = options.single_writer
        self.given: list[npt.NDArray[np.int64]] = []
        """The keys of the samples that are given pixels, as of the last :meth:`written`."""
        self.changed: list[npt.NDArray[np.int64]] = []
        """The keys of those whose pixels are not the ones that they had."""
        self._parts: list[str] = []
        self._begun: list[str] = []

    def require(self, head: TableVersion) -> None:
        """Raise NotFoundError if table or origin lack the modality."""
        if self.operation == REPLACE:
            head.schema[self.name]
        self.origin.require()

    def written(self, head: TableVersion, folder: Path) -> IndexChange | None:
        """Write what a version lacks of the modality, but for the index; None if it lacks nothing.

        Parameters
        ----------
        folder
            Folder on the local disk, for what does not fit into memory until the commit.
        """
        self._parts, self._begun, self.given, self.changed = [], [], [], []
        scratch = folder / self.name
        scratch.mkdir()
        rows = TableRows(self.catalog, head, scratch, self.name, self.origin.inputs)
        wanted = self._wanted(rows)
        self.report.version = rows.version.version
        self.report.n_unknown = self.origin.n_unknown
        self.report.findings = list(self.origin.findings)
        self.report.n_kept = int(np.count_nonzero(rows.live & rows.has))
        self.report.n_without = rows.n_live - self.report.n_kept
        self.report.n_given = self.report.n_same = self.report.n_resumed = 0
        if not len(wanted):
            self._forget(shard_states(self.catalog, head, [self.name]))
            return None
        modality = self._modality(head)
        if modality is None:
            return None
        if not self.arbitrated:
            self.catalog.require_arbitration()
            self.arbitrated = True
        return self._write(rows, wanted, modality, scratch)

    def end(self, version: int) -> None:
        """Say in the report that a version shows what was written, and remove the checkpoints."""
        self.report.version, self.report.changed, self.report.parts = version, True, self._parts
        self._remove_checkpoints()

    def _remove_checkpoints(self) -> None:
        for name in self._begun:
            checkpoint.remove(self.catalog.store, self.table, name)

    def _modality(self, head: TableVersion) -> Modality | None:
        """Return the modality as the table has it, or will have it; None if a refresh brings nothing that could be read.

        Raises
        ------
        NotFoundError, FormatError, InvalidInputError
            It cannot be changed to what the origin has.
        """
        try:
            found = self.origin.modality()
            if self.operation == REPLACE or self.name in head.schema:
                return _fitting(found, head.schema[self.name], head)
        except FormatError as error:
            if self.operation != REFRESH:
                raise
            action = "the table keeps what it has of it"
            self.report.findings.append(
                Finding("unusable-modality", self.origin.name, str(error), action, modality=self.name)
            )
            return None
        check_names(TableSchema((*head.schema.modalities, found)))
        if self.name.lower() in {column.lower() for column in head.columns}:
            raise InvalidInputError(
                f"{self.table} has a column {self.name!r}, which was added to it; drop it, or take another name",
                kind=ErrorKind.BAD_NAME,
            )
        longest = max(m.n_times for m in head.schema)
        if found.n_times > longest:
            raise FormatError(
                f"{self.name} has {found.n_times} dates, and {self.table} has rows of tiles for {longest}; nothing is written",
                kind=ErrorKind.OTHER_TABLE,
            )
        return found

    def _wanted(self, rows: TableRows) -> npt.NDArray[np.int64]:
        """Return the numbers of the samples that get new pixels.

        Raises
        ------
        NotFoundError
            The origin has none of the table's samples (``kind`` is ``unknown-sample``).
        """
        having = self.origin.having(rows)
        if not len(having) and self.operation != REFRESH:  # whose samples were there a moment ago
            raise NotFoundError(
                f"{self.origin.name} has {self.name} for none of the samples of {self.table}; nothing is written",
                kind=ErrorKind.UNKNOWN_SAMPLE,
            )
        if self.where is not None:
            sql = f'SELECT key, part FROM "{self.table}" WHERE ({self.where})'
            chosen = self.bank.at({self.table: rows.version.version}).sql(sql).arrow()
            having = having[rows.matching(chosen, otherwise=False)[having]]
        if self.operation == ADD:
            return having[~rows.has[having]]
        changed = [
            _given(row.source) != self.origin.address(row.key)
            for start in range(0, len(having), ROWS_AT_ONCE)
            for row in rows.take(having[start : start + ROWS_AT_ONCE])
        ]
        return having[np.array(changed, np.bool_)]

    def _write(
        self, rows: TableRows, wanted: npt.NDArray[np.int64], modality: Modality, folder: Path
    ) -> IndexChange | None:
        """Write the shards of all parts and their documents; return what the index will say, None if it says the same."""
        inputs = self.origin.inputs
        states = shard_states(self.catalog, rows.version, (self.name, *inputs))
        change = IndexChange(self.catalog, self.table, modality, folder, states, inputs)
        schema = rows.version.schema
        whole = schema if self.name in schema else TableSchema((*schema.modalities, modality))
        planned = plan_parts(
            rows,
            wanted,
            self.origin,
            modality,
            self._n_tiles(rows.version, modality),
            store=self.catalog.store,
            table=self.table,
            profile=self.options.profile,
        )
        n_done = n_changed = 0
        for part in planned:
            has_shards = False
            for task, numbers, result in self._results(part):
                n_of_task = self._count(task, numbers, result)
                if n_of_task:  # else its samples keep what they have, where they have it
                    change.add(part.base, task.shard, task.n_tiles, result.rows)
                    self.report.tensor_bytes += result.tensor_bytes
                    self.report.stored_bytes += result.stored_bytes
                    n_changed += n_of_task
                    has_shards |= _has_shard(result, self.name, part.part)
                n_done += len(numbers)
                self.report.findings += result.findings
                self.progress("write", n_done, len(wanted))
            self._begun.append(part.part)
            if has_shards:
                self._parts.append(part.part)
                write_documents(self.catalog.store, part, whole, modality, self.origin, self.options)
        self._refuse_harm()
        if not n_changed:
            self._remove_checkpoints()
            return None
        return change

    def _results(self, part: PartChange) -> Iterator[tuple[GroupTask, Sequence[int], ShardResult]]:
        """Yield tasks, the numbers of their rows that get new pixels, and results, those of an earlier run first."""
        store = self.catalog.store
        tasks = {t.shard: (t, numbers) for t, numbers in zip(part.tasks, part.wanted, strict=True)}
        rest, numbers_of = [], []
        for task, numbers in zip(part.tasks, part.wanted, strict=True):
            done = checkpoint.load(store, self.table, part.part, task.shard)
            if done is None:
                rest.append(task)
                numbers_of.append(numbers)
                continue
            self.report.n_resumed += len(numbers)
            yield task, numbers, done
        with closing(self.origin.results(rest, numbers_of)) as finished:
            for result in finished:
                checkpoint.save(store, self.table, part.part, result)
                self.report.seconds.add(result.seconds)
                yield *tasks[result.shard], result

    def _count(self, task: GroupTask, numbers: Sequence[int], result: ShardResult) -> int:
        """Count the samples that have new pixels, those whose origin is the one of now, and tell the report."""
        samples = result.rows.samples
        sources = dict(zip(samples["key"].to_pylist(), samples[self.name].to_pylist(), strict=True))
        given = [
            row
            for row in (task.rows[n] for n in numbers)
            if row.key in sources and _given(sources[row.key]["source"]) == self.origin.address(row.key)
        ]
        n_had = sum(row.ref is not None for row in given)
        changed = [
            row.key for row in given if row.ref is None or row.ref["key"] != sources[row.key]["ref"]["key"]
        ]
        self.given.append(np.array([row.key for row in given], np.int64))
        self.changed.append(np.array(changed, np.int64))
        self.report.n_same += len(given) - len(changed)
        self.report.n_given += len(given)
        self.report.n_kept -= n_had
        self.report.n_without -= len(given) - n_had
        return len(given)

    def _n_tiles(self, version: TableVersion, modality: Modality) -> dict[str, int]:
        """Return the cells along each axis of a sample, by part."""
        sql = f'SELECT part, max(tile) AS last FROM "{self.table}".tiles GROUP BY part'
        found = self.bank.at({self.table: version.version}).sql(sql).arrow().to_pylist()
        n_tiles = {row["part"]: math.isqrt(row["last"]) + 1 for row in found}
        most, side = max(n_tiles.values(), default=1), min(modality.height, modality.width)
        if most > side:
            raise InvalidInputError(
                f"samples of {self.table} have {most} x {most} tiles, but {modality.name} is {side} pixels wide"
            )
        return n_tiles

    def details(self) -> dict[str, Any]:
        """Return what the history says of the change."""
        return {
            "modality": self.name,
            "source": self.origin.name,
            "source_format": self.origin.format,
            "revision": self.origin.revision,
            "n_samples": self.report.n_given,
            **({"where": self.where} if self.where is not None else {}),
        }

    def _refuse_harm(self) -> None:
        """Raise if strict was asked for and something was found."""
        harmful = [f for f in self.report.findings if f.kind not in HARMLESS]
        if self.options.strict and harmful:
            first = harmful[0]
            where = " ".join(filter(None, (first.archive, first.member)))
            raise FormatError(
                f"nothing is committed, since strict was asked for: {first.kind} in {where}: {first.reason}"
                + (f" and {len(harmful) - 1} more" if len(harmful) > 1 else ""),
                kind=ErrorKind.STRICT,
            )

    def _forget(self, states: ShardStates) -> None:
        """Remove what is left of the checkpoints of committed parts: a run that was killed right after its commit left them."""
        store = self.catalog.store
        with suppress(NotFoundError, StorageError):  # a bank that one may only read keeps them
            committed = {part_of_key(key) for _, key in states.values() if key is not None}
            for part in sorted(committed & {*checkpoint.parts_with(store, self.table)}):
                checkpoint.remove(store, self.table, part)


def _fitting(found: Modality, there: Modality, head: TableVersion) -> Modality:
    """Return a modality of a version of a table, of which others are to be samples.

    Raises
    ------
    FormatError
        They do not fit it (``kind`` is ``other-table``).
    """
    require_fit(head.schema, TableSchema((found,)), head.table)
    if found.classes != there.classes:
        raise FormatError(
            f"{there.name} has other classes than in {head.table}; nothing is written",
            kind=ErrorKind.OTHER_TABLE,
        )
    return there


def _has_shard(result: ShardResult, modality: str, part: str) -> bool:
    """Tell whether a task has written a shard of a part: not, if all samples have the pixels that they had."""
    keys = (row["ref"]["key"] for row in result.rows.samples[modality].to_pylist())
    return any(part_of_key(key) == part for key in keys)


def _given(source: Mapping[str, Any] | None) -> MemberAddress | None:
    """Return the origin that a row states."""
    if source is None:
        return None
    return MemberAddress(source["path"], source["offset"], source["length"], source["etag"])
