"""The commit of finished parts: whoever wrote them, and however often, each of their samples is shown once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import tensorbank
from tensorbank.bank import Bank
from tensorbank.catalog import Commit, keys_of
from tensorbank.errors import ConflictError, ErrorKind, NotFoundError
from tensorbank.index_schema import table_schema
from tensorbank.layout import check_table_name
from tensorbank_indexer.array_jobs.finished_part import FinishedPart
from tensorbank_indexer.array_jobs.finished_task import PREFIX, unfinished
from tensorbank_indexer.parts import WRITER_VERSION, checkpoint
from tensorbank_indexer.rows import IndexRows

__all__ = ["CommitReport", "LeftPart", "commit_parts"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class LeftPart:
    """A part that is not committed, and why."""

    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class UnfinishedTasks:
    """The tasks of a job that have not said that they are finished."""

    source: str
    n_tasks: int
    numbers: tuple[int, ...]


@dataclass(slots=True)
class CommitReport:
    """The outcome of a commit of finished parts.

    ``n_present`` samples were in the table before, by other parts; ``left`` are parts that are not committed, ``unfinished``
    tasks that have not ended, and ``superseded`` parts that nobody finished and nobody needs: other parts have all of their
    samples that were written, as after a task whose second run found a table with other modalities.
    """

    table: str
    version: int | None = None
    parts: list[str] = field(default_factory=list)
    n_added: int = 0
    n_present: int = 0
    tensor_bytes: int = 0
    stored_bytes: int = 0
    left: list[LeftPart] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    unfinished: list[UnfinishedTasks] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """True if nothing is left, and all tasks have finished."""
        return not (self.left or self.unfinished)

    def to_json(self) -> str:
        """Return the whole report."""
        return json.dumps(asdict(self), indent=1)

    def lines(self) -> list[str]:
        """Return what to say on the screen."""
        said = f"{self.table}: {self.n_added} samples of {len(self.parts)} parts added"
        if self.n_present:
            said += f"; {self.n_present} were there already"
        if self.n_added:
            said += f"; {self.tensor_bytes / 1e6:,.0f} MB as {self.stored_bytes / 1e6:,.0f} MB"
        lines = [said]
        for job in self.unfinished:
            numbers = ",".join(map(str, job.numbers))
            lines.append(
                f"{len(job.numbers)} of {job.n_tasks} tasks on {job.source} have not finished: {numbers}"
            )
        lines += (f"{one.part} is not committed: {one.reason}" for one in self.left)
        if self.superseded:
            lines.append(
                f"{len(self.superseded)} parts were begun whose samples other parts have by now; `tensorbank gc` removes them"
            )
        return lines


def commit_parts(
    bank: Bank, table: str, *, single_writer: bool = False, progress: Progress | None = None
) -> CommitReport:
    """Show the samples of all finished parts of a table, part by part; one that is in the table already is tidied up.

    May be killed and run again at any time, and run by several at once.

    Parameters
    ----------
    progress
        Callable that takes ``commit``, the parts that are done, and all of them.

    Raises
    ------
    NotFoundError
        There is no such table, and no part of it.
    ConflictError
        The store does not arbitrate between writers, or other writers won every try.
    StorageError
        The store fails.
    """
    catalog = bank.catalog
    names = checkpoint.parts_with(catalog.store, check_table_name(table))
    if not names:
        catalog.version(table)  # says that there is no such table
    if not single_writer:
        catalog.require_arbitration()
    report = CommitReport(table)
    parts = sorted(name for name in names if not name.startswith(PREFIX))
    begun: list[str] = []
    for n_done, part in enumerate(parts):
        if progress is not None:
            progress("commit", n_done, len(parts))
        finished = FinishedPart.load(catalog.store, table, part)
        if finished is None:
            begun.append(part)
        else:
            _commit(bank, table, finished, report)
    for part in begun:  # last: what was committed now may have its samples
        _judge(bank, table, part, report)
    if progress is not None and parts:
        progress("commit", len(parts), len(parts))
    report.unfinished = [
        UnfinishedTasks(job.source, job.n_tasks, tuple(numbers))
        for job, numbers in unfinished(catalog.store, table).items()
    ]
    try:
        report.version = catalog.version(table).version
    except NotFoundError:
        report.version = None
    return report


def _commit(bank: Bank, table: str, finished: FinishedPart, report: CommitReport) -> None:
    """Commit one part, if it is not in the table yet."""
    catalog, part = bank.catalog, finished.part
    if finished.writer != WRITER_VERSION:
        here = f"version {WRITER_VERSION}, of tensorbank {tensorbank.__version__}"
        report.left.append(
            LeftPart(
                part,
                f"it was written by a writer of version {finished.writer}, of tensorbank {finished.written_by}, and this one has "
                f"{here}; commit with the tensorbank that wrote it",
            )
        )
        return
    results = [checkpoint.load(catalog.store, table, part, n) for n in range(finished.n_shards)]
    there = [result for result in results if result is not None]
    if len(there) < len(results):
        if part in _parts(bank, table):
            checkpoint.remove(catalog.store, table, part)
            return
        missing = [n for n, result in enumerate(results) if result is None]
        report.left.append(
            LeftPart(part, f"what was kept of its shards {missing} is lost or damaged; run its task again")
        )
        return
    rows = IndexRows.of_shards(result.rows for result in there)
    n_samples = rows.samples.num_rows
    catalog.create(table, table_schema(rows.samples.schema), single_writer=True)  # the store has been probed
    try:
        done = catalog.add(table, Commit(part, rows.samples, rows.tiles, rows.shards, finished.details))
    except ConflictError as lost:
        if lost.kind != ErrorKind.LOST_RACE:
            raise
        keys = keys_of(rows.samples, "split", "sample_id")
        n_there = int(catalog.membership(catalog.version(table)).has_samples(keys).sum())
        report.n_present += n_there
        if (
            n_there == n_samples
        ):  # by parts that were cut otherwise: by an ingest, or by another number of tasks
            checkpoint.remove(catalog.store, table, part)
        else:
            report.left.append(
                LeftPart(
                    part,
                    f"other parts have {n_there} of its {n_samples} samples, or some of them were deleted; run its task again, "
                    "which writes those that are new, and then gc",
                )
            )
        return
    if done.added:
        report.parts.append(part)
        report.n_added += n_samples
        report.tensor_bytes += sum(result.tensor_bytes for result in there)
        report.stored_bytes += sum(result.stored_bytes for result in there)
    checkpoint.remove(catalog.store, table, part)


def _judge(bank: Bank, table: str, part: str, report: CommitReport) -> None:
    """Say why a part that is not finished is not committed, if it should be."""
    if part in _parts(bank, table):  # who committed it was killed before all was tidied up
        checkpoint.remove(bank.catalog.store, table, part)
    elif _is_superseded(bank, table, part):
        report.superseded.append(part)  # it goes with the garbage: who writes it may still be at work
    else:
        report.left.append(
            LeftPart(
                part, "it is not finished: its task, or another ingest, is still at work or was interrupted"
            )
        )


def _is_superseded(bank: Bank, table: str, part: str) -> bool:
    """Tell whether the table has all samples of the finished shards of a part, of which there are some."""
    catalog = bank.catalog
    try:
        membership = catalog.membership(catalog.version(table))
    except NotFoundError:
        return False
    shards = checkpoint.finished_shards(catalog.store, table, part)
    results = (checkpoint.load(catalog.store, table, part, n) for n in shards)  # the first new sample decides
    return bool(shards) and all(
        result is not None
        and membership.has_samples(keys_of(result.rows.samples, "split", "sample_id")).all()
        for result in results
    )


def _parts(bank: Bank, table: str) -> frozenset[str]:
    """Return the parts of the newest version of a table, none if there is no such table."""
    try:
        return frozenset(bank.table(table).parts())
    except NotFoundError:
        return frozenset()
