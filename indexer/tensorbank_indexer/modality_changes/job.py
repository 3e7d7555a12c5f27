"""One change of a modality of a table: planned, written shard by shard, and committed as a whole."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.bank import Bank
from tensorbank.catalog import TableVersion
from tensorbank.errors import (
    ConflictError,
    ErrorKind,
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from tensorbank.index_files import disk_error
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
from tensorbank_indexer.source import MemberAddress

__all__ = ["ADD", "REPLACE", "change_modality"]

ADD, REPLACE = "add-modality", "replace-modality"
ROWS_AT_ONCE = 65_536
N_RACES = 5
"""The number of tries against writers who change the same samples meanwhile."""


def change_modality(
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
    """Change a modality of a table, or give it one, by one commit.

    The errors are those of :func:`tensorbank_indexer.modality_changes.replace_modality`.
    """
    started = time.perf_counter()
    job = _Job(operation, origin, bank, table, name, where, options, progress, report)
    for attempt in range(N_RACES):
        try:
            job.run()
            break
        except ConflictError as lost:
            if lost.kind != ErrorKind.LOST_RACE or attempt == N_RACES - 1:
                raise
    report.elapsed_s = time.perf_counter() - started


class _Job:
    """The state of one run."""

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

    def run(self) -> None:
        """Plan for the newest version, write, commit."""
        head = self.catalog.head(self.table)
        if head.pins is None:  # of format 1: it is upgraded, and then nothing changes
            self.catalog.publish(self.table, lambda _: None)
            head = self.catalog.head(self.table)
        if self.operation == REPLACE:
            head.schema[self.name]
        self.origin.require()
        with tempfile.TemporaryDirectory(prefix="tensorbank-") as scratch:
            folder = Path(scratch)
            try:
                self._run(head, folder)
            except OSError as error:  # what does not fit into memory lies there
                raise disk_error(error, folder) from error

    def _run(self, head: TableVersion, folder: Path) -> None:
        rows = TableRows(self.catalog, head, folder, self.name, self.origin.inputs)
        wanted = self._wanted(rows)
        self.report.version = rows.version.version
        self.report.n_unknown = self.origin.n_unknown
        self.report.findings = list(self.origin.findings)
        self.report.n_kept = int(np.count_nonzero(rows.live & rows.has))
        self.report.n_without = rows.n_live - self.report.n_kept
        if not len(wanted):
            self._forget(shard_states(self.catalog, head, [self.name]))
            return
        modality = self._modality(head)
        if not self.arbitrated:
            self.catalog.require_arbitration()
            self.arbitrated = True
        self._write(rows, wanted, modality, folder)

    def _modality(self, head: TableVersion) -> Modality:
        """Return the modality as the table has it, or will have it.

        Raises
        ------
        NotFoundError, FormatError, InvalidInputError
            It cannot be changed to what the origin has.
        """
        if self.operation == REPLACE or self.name in head.schema:
            there = head.schema[self.name]
            found = self.origin.modality()
            require_fit(head.schema, TableSchema((found,)), self.table)
            if found.classes != there.classes:
                raise FormatError(
                    f"{self.name} has other classes than in {self.table}; nothing is written",
                    kind=ErrorKind.OTHER_TABLE,
                )
            return there
        found = self.origin.modality()
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
        if not len(having):
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
    ) -> None:
        """Write the shards of all parts, then commit."""
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
        self.report.n_given = self.report.n_resumed = n_done = 0
        parts = []
        for part in planned:
            n_of_part = 0
            for task, numbers, result in self._results(part):
                n_of_task = self._count(task, numbers, result)
                if n_of_task:  # else its samples keep what they have, where they have it
                    change.add(part.base, task.shard, task.n_tiles, result.rows)
                    self.report.tensor_bytes += result.tensor_bytes
                    self.report.stored_bytes += result.stored_bytes
                n_of_part += n_of_task
                n_done += len(numbers)
                self.report.findings += result.findings
                self.progress("write", n_done, len(wanted))
            if n_of_part:
                parts.append(part.part)
                write_documents(self.catalog.store, part, whole, modality, self.origin, self.options)
        self._refuse_harm()
        if not parts:
            return
        done = self.catalog.publish(self.table, change.changing(self.operation, self._details()))
        self.report.version, self.report.changed, self.report.parts = done.version, True, parts
        for name in parts:
            checkpoint.remove(self.catalog.store, self.table, name)

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
        with closing(self.origin.results(rest, numbers_of, store)) as finished:
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

    def _details(self) -> dict[str, Any]:
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


def _given(source: Mapping[str, Any] | None) -> MemberAddress | None:
    """Return the origin that a row states."""
    if source is None:
        return None
    return MemberAddress(source["path"], source["offset"], source["length"], source["etag"])
