"""The changes of modalities that users ask for, and the commit of one change, whatever asks for it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorbank.bank import Bank
from tensorbank.catalog import Catalog
from tensorbank.engines import PROCESSES, executor_for
from tensorbank.errors import ConflictError, ErrorKind, InvalidInputError
from tensorbank.index_files import disk_error
from tensorbank.reading import DEFAULT_PROFILE
from tensorbank.schema import Modality
from tensorbank_indexer.modality_changes.computed_origin import Compute, ComputedOrigin
from tensorbank_indexer.modality_changes.index_change import changing
from tensorbank_indexer.modality_changes.job import ADD, REPLACE, ModalityJob
from tensorbank_indexer.modality_changes.modality_report import ModalityReport
from tensorbank_indexer.modality_changes.origins import Origin, SourceOrigin
from tensorbank_indexer.options import AUTO, IngestOptions
from tensorbank_indexer.parts import IngestSetting, Progress
from tensorbank_indexer.source import Source

__all__ = ["add_modality", "change_modalities", "replace_modality"]

N_RACES = 5
"""The number of tries against writers who change the same samples meanwhile."""


def _own(options: IngestOptions | None) -> IngestOptions:
    """Return the options of a change: one modality gives no choice between profiles."""
    options = options or IngestOptions()
    return replace(options, profile=DEFAULT_PROFILE) if options.profile == AUTO else options


def _quiet(_what: str, _done: int, _total: int) -> None:
    return None


def replace_modality(
    source: Source,
    bank: Bank,
    table: str,
    modality: str,
    options: IngestOptions | None = None,
    *,
    where: str | None = None,
    progress: Progress = _quiet,
    report: ModalityReport | None = None,
) -> ModalityReport:
    """Replace a modality of the samples that a source has, by one commit; tensors of the others are not touched.

    Samples are known by split and id. Those that the source does not have keep what they have, and one that lacks the modality
    gets it. What columns say of time, place and clouds stays. The shards in which a sample is replaced are written anew, in parts
    of their own. Idempotent: members that are in the table as they are now, by their ETags, are not read again, and an
    interrupted run resumes at the shard where it stopped.

    Parameters
    ----------
    source
        The source, as :func:`tensorbank_indexer.open_source` returns it.
    modality
        Name of the modality, in the table and in the source.
    options
        Options of an ingest; ``n_tiles`` and ``samples_per_shard`` are those of the table, and
        the profile ``auto`` is the default one.
    where
        Condition in SQL on columns of samples: only those for which it holds are replaced.
    report
        A report that is filled while the run goes on, to have it even if the run fails.

    Raises
    ------
    NotFoundError
        There is no such table, the source or the table has no such modality, or the source has none of the samples.
    FormatError
        The modality has another shape, dtype, bands or classes than in the table (``kind`` is ``other-table``), or
        ``strict`` and something was found. Nothing is committed.
    InvalidInputError
        The condition is no SQL, or the bank cannot be written to.
    ConflictError
        The store does not arbitrate between writers, or others change the same samples again and again.
    IntegrityError
        Pixels that samples keep are damaged.
    StorageError
        Source or bank cannot be reached.
    """
    options = _own(options)
    report = report or ModalityReport(REPLACE, table, modality, source.root)
    with closing(executor_for(options.workers, IngestSetting(source, bank.catalog.store))) as executor:
        origin = SourceOrigin.scanned(source, modality, options, executor, progress)
        job = ModalityJob(REPLACE, origin, bank, table, modality, where, options, progress, report)
        change_modalities([job], bank, table, REPLACE, job.details)
    return report


def add_modality(
    origin: Source | Compute,
    bank: Bank,
    table: str,
    modality: str | Modality,
    options: IngestOptions | None = None,
    *,
    inputs: Sequence[str] = (),
    batch_size: int = 32,
    where: str | None = None,
    progress: Progress = _quiet,
    report: ModalityReport | None = None,
) -> ModalityReport:
    """Give the samples of a table a modality that they lack, by one commit; tensors of the others are not touched.

    Samples that have it keep it, so a second source may bring what the first did not have. See :func:`replace_modality`.

    Parameters
    ----------
    origin
        A source; or a callable that is given batches of stored samples, in the order of storage, and makes the modality of
        them: ``compute({"S2L2A": (n, time, band, y, x), "sample_id": [...]})`` returns ``(n, time, band, y, x)`` in the
        modality's dtype. Where a sample has fewer dates than its table, the others are fill values, and the same dates of
        what it returns are left out if the modality has as many dates as the inputs. It runs in this process.
    modality
        Name of a source's modality; of a callable the whole description.
    options
        Options of an ingest. ``revision`` names a computation: under one revision an interrupted run resumes, without it
        begins anew.
    inputs
        Names of modalities that the callable is given; samples that lack one of them get nothing.
    batch_size
        The most samples in one call.

    Raises
    ------
    InvalidInputError
        The callable failed, or returned another shape or type; the message names a sample. Or the name cannot be that of a
        modality. Nothing is committed.
    TensorBankError
        As :func:`replace_modality`.
    """
    options = _own(options)
    name = modality if isinstance(modality, str) else modality.name
    made: Origin
    with ExitStack() as stack:
        if not callable(origin):
            if inputs or not isinstance(modality, str):
                raise InvalidInputError(
                    "inputs and a description of the modality belong to a callable; a source has its own"
                )
            setting = IngestSetting(origin, bank.catalog.store)
            executor = stack.enter_context(closing(executor_for(options.workers, setting)))
            made = SourceOrigin.scanned(origin, name, options, executor, progress)
        elif isinstance(modality, str):
            raise InvalidInputError(
                f"describe what the callable makes by Modality(...); got the name {modality!r} alone"
            )
        elif options.engine != PROCESSES:
            raise InvalidInputError(
                f"a callable runs in this process; there is no engine {options.engine!r} for it"
            )
        else:
            schema = bank.table(table).schema
            made = ComputedOrigin(origin, bank.catalog.store, schema, modality, inputs, options, batch_size)
        report = report or ModalityReport(ADD, table, name, made.name)
        job = ModalityJob(ADD, made, bank, table, name, where, options, progress, report)
        change_modalities([job], bank, table, ADD, job.details)
    return report


def change_modalities(
    jobs: Sequence[ModalityJob],
    bank: Bank,
    table: str,
    operation: str,
    details: Callable[[], Mapping[str, Any]],
) -> int | None:
    """Change modalities of a table, or give it some, by one commit. Return the version that shows it, None if nothing changes.

    The errors are those of :func:`tensorbank_indexer.modality_changes.replace_modality`.

    Parameters
    ----------
    jobs
        Jobs, at least one, each of another modality.
    details
        Callable that returns what the history says, once all is written.
    """
    started = time.perf_counter()
    try:
        for attempt in range(N_RACES):
            try:
                return _changed(jobs, bank.catalog, table, operation, details)
            except ConflictError as lost:
                if lost.kind != ErrorKind.LOST_RACE or attempt == N_RACES - 1:
                    raise
        raise AssertionError("the last try returns or raises")
    finally:
        for job in jobs:
            job.report.elapsed_s = time.perf_counter() - started


def _changed(
    jobs: Sequence[ModalityJob],
    catalog: Catalog,
    table: str,
    operation: str,
    details: Callable[[], Mapping[str, Any]],
) -> int | None:
    """Plan for the newest version, write, commit."""
    head = catalog.head(table)
    if head.pins is None:  # of format 1: it is upgraded, and then nothing changes
        catalog.publish(table, lambda _: None)
        head = catalog.head(table)
    for job in jobs:
        job.require(head)
    with tempfile.TemporaryDirectory(prefix="tensorbank-") as scratch:
        folder = Path(scratch)
        try:
            written = [change for job in jobs if (change := job.written(head, folder)) is not None]
            if not written:
                return None
            done = catalog.publish(table, changing(written, operation, details()))
        except OSError as error:  # what does not fit into memory lies there
            raise disk_error(error, folder) from error
    for job in jobs:
        job.end(done.version)
    return done.version
