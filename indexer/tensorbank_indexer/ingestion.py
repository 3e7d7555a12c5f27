"""Ingest: archives become shards, statistics and one commit a part."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt

from tensorbank.bank import Bank
from tensorbank.catalog import Commit, key_of, keys_of
from tensorbank.engines import Executor, executor_for
from tensorbank.errors import (
    ConflictError,
    ErrorKind,
    FormatError,
    InvalidInputError,
    NotFoundError,
    TensorBankError,
)
from tensorbank.layout import check_table_name, part_of_key
from tensorbank.reading import DEFAULT_PROFILE
from tensorbank.schema import TableSchema
from tensorbank_indexer.array_jobs import FinishedPart, FinishedTask
from tensorbank_indexer.column_names import check_names
from tensorbank_indexer.guarded_source import NAMELESS, scan_ahead
from tensorbank_indexer.modality_changes import shard_states
from tensorbank_indexer.options import AUTO, IngestOptions
from tensorbank_indexer.ordering import (
    Batch,
    OrderedReferences,
    archive_batches,
    listed_archives,
    require_single_samples,
)
from tensorbank_indexer.parts import (
    IngestSetting,
    PartPlan,
    PartWriter,
    Progress,
    ShardResult,
    checkpoint,
    plan_part,
    samples_per_shard_for,
)
from tensorbank_indexer.presence import deleted_from, presence_of
from tensorbank_indexer.profile_choice import ProfileChoice, ProfileTrial, ReadingMachine, choose_profile
from tensorbank_indexer.reports import CHANGES, IngestReport
from tensorbank_indexer.rows import IndexRows
from tensorbank_indexer.schema_survey import extend, require_fit, survey
from tensorbank_indexer.source import Archive, Finding, SampleRef, Scan, Source
from tensorbank_indexer.source_changes import ModalityRefresh, SourceHistory, live_rows

__all__ = ["ingest"]

N_NAMED = 8
"""The number of archives that the history of a table names."""
N_RACES = 5
"""The number of tries to commit what other writers have not committed meanwhile."""


def _quiet(_what: str, _done: int, _total: int) -> None:
    return None


def ingest(
    source: Source,
    bank: Bank,
    table: str,
    options: IngestOptions | None = None,
    *,
    progress: Progress = _quiet,
    report: IngestReport | None = None,
) -> IngestReport:
    """Add the samples of a source to a table, which is created if it does not exist.

    Idempotent: what is in the snapshot is not added again, and an interrupted run resumes at the shard where it stopped. Of two
    runs of the same source at once, the second to commit reports what the first has added.
    Each part is committed as a whole. With more than one worker, processes are started by ``forkserver``, or by ``spawn`` for
    the engine ``dask``; a script that calls this needs the usual ``if __name__ == "__main__"``.

    Parameters
    ----------
    source
        The source, as :func:`tensorbank_indexer.open_source` returns it.
    report
        A report that is filled while the run goes on, to have it even if the run fails: ``IngestReport.of(source, table)``.

    Raises
    ------
    FormatError
        No sample could be read; or the archive does not fit the table (``kind`` is ``other-table``); or ``strict`` and
        something was found. Nothing is written then.
    InvalidInputError
        A table, a modality or a band cannot have its name (``kind`` is ``bad-name``); nothing is written.
    ConflictError
        The store does not arbitrate between writers, or other writers won every try.
    StorageError
        Source or bank cannot be reached.
    TensorBankError
        Workers were lost (``kind`` is ``worker-lost``), or the engine has none that could take tasks (``scheduler-lost``,
        ``no-workers``, ``other-release``, ``worker-start``, ``unguarded-program``). Finished shards are kept.
    """
    options = options or IngestOptions()
    report = report if report is not None else IngestReport.of(source, table)
    with closing(executor_for(options.workers, IngestSetting(source, bank.catalog.store))) as executor:
        _Ingest(source, bank, check_table_name(table), options, executor, progress, report).run()
    return report


class _Ingest:
    """The state of one run."""

    def __init__(
        self,
        source: Source,
        bank: Bank,
        table: str,
        options: IngestOptions,
        executor: Executor,
        progress: Progress,
        report: IngestReport,
    ) -> None:
        self.source = source
        self.bank = bank
        self.table = table
        self.options = options
        self.executor = executor
        self.progress = progress
        self.report = report
        self.writer = PartWriter(source, bank.catalog.store, table, options, executor, progress)
        self.history = SourceHistory(bank.catalog, table, source.root)
        self.modalities = ModalityRefresh(source, bank, table, options, executor, progress)
        self.arbitrated = False

    def run(self) -> None:
        started = time.perf_counter()
        if self.options.global_order:
            require_single_samples(self.source)
        archives, findings = self.source.archives()
        self.report.findings += findings
        word = self._word()
        if self.options.task is not None:
            archives = self.options.task.share(archives)
        self.report.n_archives = len(archives)
        if word is not None:
            word.take_back(self.bank.catalog.store, self.table)
        for batch in self._batches(archives):
            self._add(batch)
        if not self.report.n_found and word is None:
            raise FormatError(f"no sample was found in {self.source.root} (format {self.source.format})")
        if self.options.dry_run:
            self.report.elapsed_s = time.perf_counter() - started
            return
        if self.options.refresh:
            details = self._details(self.modalities.archives, self.options.revision)
            self.modalities.commit(self.report, details)
        self.report.elapsed_s = time.perf_counter() - started
        self._complete()
        if word is not None:
            word.give(self.bank.catalog.store, self.table)

    def _complete(self) -> None:
        """Do what is left of runs that were killed right after a commit."""
        self.report.completed = self.writer.forget(self._committed)
        for part in {*self.report.completed} & {*(self._parts() if self.report.completed else ())}:
            self.writer.complete(part, self.report)

    def _word(self) -> FinishedTask | None:
        """Return what this run will say at its end if it is a task of an array job."""
        if self.options.task is None or self.options.dry_run:
            return None
        return FinishedTask.of(self.source.root, self.options.task)

    def _batches(self, archives: Sequence[Archive]) -> Iterator[Batch]:
        """Yield the samples of a part, time after time."""
        if not self.options.global_order:
            yield from archive_batches(self._scans(archives), self.options.samples_per_part)
            return
        findings: dict[int, Sequence[Finding]] = {}
        with OrderedReferences() as references:
            for number, scanned in listed_archives(archives, self.executor):
                references.add(number, scanned)
                findings[number] = self._met(scanned)
                self.progress("scan", len(findings), len(archives))
            self.report.findings += [f for number in sorted(findings) for f in findings[number]]
            yield from references.batches(self.options.samples_per_part, self._are_there)

    def _scans(self, archives: Sequence[Archive]) -> Iterator[Scan]:
        for number, scanned in enumerate(scan_ahead(self.source, archives)):
            self.progress("scan", number + 1, len(archives))
            self.report.findings += self._met(scanned)
            yield scanned

    def _met(self, scanned: Scan) -> Sequence[Finding]:
        """Count what was found in an archive, and return the findings about it."""
        nameless = sum(f.kind == NAMELESS for f in scanned.findings)
        self.report.n_found += len(scanned.samples) + nameless
        return scanned.findings

    def _are_there(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell which samples the newest snapshot has."""
        catalog = self.bank.catalog
        try:
            return catalog.membership(catalog.version(self.table)).has_samples(keys)
        except NotFoundError:
            return np.zeros(len(keys), np.bool_)

    def _add(self, batch: Batch) -> None:
        """Write and commit what a batch has that is new."""
        refs = batch.refs
        before = now = presence_of(refs, self.bank.catalog, self.table)
        # Asked before the commit: after it, the files of today are among those of the table.
        changes = self.history.changes(before.present, refresh=self.options.refresh)
        n_replaced = 0
        for _ in range(N_RACES):
            stale = changes.whole if self.options.refresh else ()
            try:
                if (now.fresh or stale) and not self.options.dry_run:
                    n_replaced = self._add_part([*now.fresh, *stale], batch.archives, stale)
                break
            except ConflictError as lost:
                if lost.kind != ErrorKind.LOST_RACE:
                    raise
                now = presence_of(refs, self.bank.catalog, self.table)
                changes = self.history.changes(now.present, refresh=self.options.refresh)
        else:
            raise ConflictError(f"other writers of {self.table} won {N_RACES} times; try again later")
        self.history.meet(refs)
        for ref in changes.partial:
            self.modalities.add(ref)
        self.report.n_changed += changes.n_changed
        self.report.n_moved += changes.n_moved
        self.report.n_replaced += n_replaced
        self.report.n_present += len(now.present) - n_replaced
        self.report.n_elsewhere += len(now.present) - len(before.present)
        self.report.findings += now.findings
        self.report.findings += changes.findings

    def _parts(self) -> list[str]:
        """Return the committed parts of the table; none if there is no such table."""
        try:
            return list(self.bank.table(self.table).parts())
        except NotFoundError:
            return []

    def _committed(self) -> set[str]:
        """Return the committed parts of the table, those of single modalities, too."""
        version = self.bank.catalog.version(self.table)
        states = shard_states(self.bank.catalog, version, version.schema.names)
        of_modalities = {part_of_key(key) for _, *keys in states.values() for key in keys if key is not None}
        return of_modalities | {*self._parts()}

    def _add_part(
        self, refs: Sequence[SampleRef], archives: Sequence[Archive], stale: Sequence[SampleRef]
    ) -> int:
        """Write one part and commit it; it is in the bank as a whole or, if it was refused, not at all.

        Returns the number of stale samples that it replaces.
        """
        self._refuse_harm()
        self.executor.open()
        if not (self.options.single_writer or self.arbitrated):
            self.bank.catalog.require_arbitration()
            self.arbitrated = True
        schema, choice = self._schema(refs)
        plan = self._plan(refs, schema, choice.profile)
        if choice.reason and choice.reason not in self.report.choices:
            self.report.choices.append(choice.reason)
        if not self.options.strict:
            self.bank.catalog.create(self.table, schema, single_writer=True)  # the store has been probed
        results: list[ShardResult] = []
        try:
            results = self.writer.write(plan, schema, self.report)
            self.report.findings += [f for r in results for f in r.findings]
            self._refuse_part(plan)
            return self._commit(plan, schema, archives, results, choice, stale)
        except TensorBankError as error:
            if error.kind == ErrorKind.LOST_RACE:  # they are found again by the next try
                found = {id(f) for r in results for f in r.findings}
                self.report.findings = [f for f in self.report.findings if id(f) not in found]
            raise

    def _plan(self, refs: Sequence[SampleRef], schema: TableSchema, profile: str) -> PartPlan:
        smallest = min(min(m.height, m.width) for m in schema)
        if self.options.n_tiles > smallest:
            raise InvalidInputError(
                f"n_tiles is {self.options.n_tiles}, but a sample is {smallest} pixels wide"
            )
        return plan_part(
            refs,
            schema,
            placement=self.source.placement,
            samples_per_shard=self.options.samples_per_shard or samples_per_shard_for(schema),
            profile=profile,
            n_tiles=self.options.n_tiles,
            strict=self.options.strict,
            deleted_from=deleted_from(refs, self.bank.catalog, self.table),
        )

    def _commit(
        self,
        plan: PartPlan,
        schema: TableSchema,
        archives: Sequence[Archive],
        results: Sequence[ShardResult],
        choice: ProfileChoice,
        stale: Sequence[SampleRef],
    ) -> int:
        rows = IndexRows.of_shards(r.rows for r in results)
        n_samples = rows.samples.num_rows
        if not n_samples:  # nothing could be read, and no commit will tidy up
            checkpoint.forget(self.bank.catalog.store, self.table, plan.part, len(plan.shards))
            return 0
        self.bank.catalog.create(self.table, schema, single_writer=True)
        revision = self.writer.describe(plan, schema, archives, choice.reason)
        commit = Commit(
            plan.part,
            rows.samples,
            rows.tiles,
            rows.shards,
            self._details((archive.name for archive in archives), revision) | {"profile": choice.profile},
        )
        catalog = self.bank.catalog
        if self.options.task is not None:
            FinishedPart(plan.part, len(plan.shards), dict(commit.details)).save(catalog.store, self.table)
            self.report.parts.append(plan.part)
            self.report.n_waiting += n_samples
            self.report.tensor_bytes += sum(r.tensor_bytes for r in results)
            self.report.stored_bytes += sum(r.stored_bytes for r in results)
            self.writer.save_report(plan, self.report)
            return 0
        replaced = {key_of(ref.split, ref.sample_id) for ref in stale} & set(
            keys_of(rows.samples, "split", "sample_id").tolist()
        )
        done = catalog.add(
            self.table, commit, (lambda head: live_rows(catalog, head, stale)) if replaced else None
        )
        self.report.parts.append(plan.part)
        n_replaced = len(replaced) if done.added else 0
        if done.added:
            self.report.n_added += n_samples - n_replaced
            self.report.tensor_bytes += sum(r.tensor_bytes for r in results)
            self.report.stored_bytes += sum(r.stored_bytes for r in results)
            self.writer.save_report(plan, self.report)
        else:
            n_new = n_samples - len(replaced)
            self.report.n_present += n_new
            self.report.n_elsewhere += n_new
        checkpoint.forget(catalog.store, self.table, plan.part, len(plan.shards))
        return n_replaced

    def _details(self, archives: Iterable[str], revision: str | None) -> dict[str, object]:
        """Return what the history says of a commit."""
        names = sorted(set(archives))
        licence = self.options.licence or self.source.attributes.get("licence", "")
        return {
            "source": self.source.root,
            "source_format": self.source.format,
            **({"source_revision": revision} if revision else {}),
            "n_archives": len(names),
            "archives": names[:N_NAMED],
            **({"licence": licence} if licence else {}),
        }

    def _schema(self, refs: Sequence[SampleRef]) -> tuple[TableSchema, ProfileChoice]:
        """Return the schema of a part and its codec profile, both by a look at its first samples."""
        there = self._schema_there()
        trial = ProfileTrial() if self.options.profile == AUTO else None
        try:
            found = survey(self.source, refs, **({} if trial is None else {"look": trial.add}))
        except FormatError:
            if there is None:
                raise
            # What no run before this one could read does not end it: a finding will say so of each sample.
            return there, ProfileChoice(DEFAULT_PROFILE if trial is not None else self.options.profile)
        schema = self._fitted(there, found)
        if trial is None:
            return schema, ProfileChoice(self.options.profile)
        machine = ReadingMachine(self.options.reader_cores, self.options.reader_network_gbps)
        return schema, choose_profile(trial.stored_shares(), machine)

    def _schema_there(self) -> TableSchema | None:
        """Return the schema of the table; None if there is no such table."""
        try:
            return self.bank.catalog.schema(self.table)
        except NotFoundError:
            return None

    def _fitted(self, there: TableSchema | None, found: TableSchema) -> TableSchema:
        """Return the schema that the table has with these modalities."""
        if there is None:
            check_names(found)
            return found
        require_fit(there, found, self.table)
        schema = extend(there, found)
        check_names(schema)
        return schema

    def _refuse_part(self, plan: PartPlan) -> None:
        """Raise if strict was asked for and something was found, and leave nothing of the part.

        After any other error its objects stay, for another run or the collection of garbage: its name follows from what it
        holds, so that another writer may have committed it, or be about to.
        """
        try:
            self._refuse_harm()
        except FormatError:
            if plan.part not in self._parts():
                self.writer.discard(plan)
            raise

    def _refuse_harm(self) -> None:
        """Raise if strict was asked for and something was found."""
        allowed = CHANGES if self.options.refresh else ()
        harmful = [finding for finding in self.report.harmful if finding.kind not in allowed]
        if not (self.options.strict and harmful):
            return
        first = harmful[0]
        more = f" and {len(harmful) - 1} more" if len(harmful) > 1 else ""
        before = f"; {len(self.report.parts)} parts before it stay" if self.report.parts else ""
        where = " ".join(filter(None, (first.archive, first.member, first.modality)))
        raise FormatError(
            f"nothing is committed of this part, since strict was asked for: {first.kind} in {where}: {first.reason}{more}"
            f"{before}; --report FILE keeps the whole list",
            kind=ErrorKind.STRICT,
        )
