"""Ingest: archives become shards, statistics and one commit a part."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import tensorbank
from tensorbank.bank import Bank
from tensorbank.catalog import Commit
from tensorbank.codec import PROFILES, codec_for
from tensorbank.errors import FormatError, InvalidInputError, NotFoundError, nearest
from tensorbank.layout import (
    array_document,
    array_key,
    check_table_name,
    group_document,
    part_key,
    report_key,
)
from tensorbank.schema import Modality, TableSchema
from tensorbank.store import Store
from tensorbank_indexer import checkpoint
from tensorbank_indexer.boundary import NAMELESS, scan
from tensorbank_indexer.part_plan import PartPlan, plan_part, samples_per_shard_for
from tensorbank_indexer.report import IngestReport
from tensorbank_indexer.shard_task import ShardResult, ShardTask
from tensorbank_indexer.source import Archive, Finding, SampleRef, Scan, Source
from tensorbank_indexer.survey import extend, survey
from tensorbank_indexer.workers import execute

__all__ = ["IngestOptions", "ingest"]

N_SCAN_THREADS = 4


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to ingest.

    Parameters
    ----------
    profile
        Codec profile, one of :data:`tensorbank.codec.PROFILES`.
    n_workers
        Processes that read, measure and encode; the machine's processors if None. 1 works in this process.
    samples_per_shard
        None chooses by the size of a sample.
    samples_per_part
        A commit is made whenever so many samples have been scanned.
    n_tiles
        Cells of the finest index level along each axis of a sample. 4 keeps the index below 0.5 % of TerraMesh.
    revision
        Revision of the source, such as the commit of a dataset on a hub; a hash of its files' ETags if None.
    strict
        Commit nothing of a part if anything was damaged, missing or doubtful.
    single_writer
        Go on although the store does not honour conditional writes.
    """

    profile: str = "balanced"
    n_workers: int | None = None
    samples_per_shard: int | None = None
    samples_per_part: int = 16_384
    n_tiles: int = 4
    revision: str | None = None
    strict: bool = False
    single_writer: bool = False

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise InvalidInputError(f"no codec profile {self.profile!r}.{nearest(self.profile, PROFILES)}")
        for name in ("n_workers", "samples_per_shard", "samples_per_part", "n_tiles"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"{name} is {value}; at least 1 is needed")


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done and how many there are, as far as known."""


def _quiet(_what: str, _done: int, _total: int) -> None:
    return None


def ingest(
    source: Source,
    bank: Bank,
    table: str,
    options: IngestOptions | None = None,
    *,
    progress: Progress = _quiet,
) -> IngestReport:
    """Add the samples of a source to a table, which is created if it does not exist.

    Idempotent: what is in the snapshot is not added again, and an interrupted run resumes at the shard where it stopped.
    Each part is committed as a whole. With more than one worker, processes are started by ``forkserver``; a script that
    calls this needs the usual ``if __name__ == "__main__"``.

    Parameters
    ----------
    source
        As :func:`tensorbank_indexer.open_source` returns it.

    Raises
    ------
    FormatError
        No sample could be read, or ``strict`` and something was found; nothing is committed then.
    ConflictError
        The store does not arbitrate between writers, or another writer was first.
    StorageError
        Source or bank cannot be reached.
    """
    job = _Job(source, bank, check_table_name(table), options or IngestOptions(), progress)
    return job.run()


class _Job:
    """State of one run."""

    def __init__(
        self, source: Source, bank: Bank, table: str, options: IngestOptions, progress: Progress
    ) -> None:
        self.source = source
        self.bank = bank
        self.table = table
        self.options = options
        self.progress = progress
        self.report = IngestReport(source.root, table, source.format)
        self.created = False

    def run(self) -> IngestReport:
        started = time.perf_counter()
        if not self.options.single_writer:
            self.bank.catalog.require_arbitration()
        archives, findings = self.source.archives()
        self.report.findings += findings
        self.report.n_archives = len(archives)
        for refs in self._batches(archives):
            self._add(refs)
        if not self.report.n_found:
            raise FormatError(f"no sample was found in {self.source.root} (format {self.source.format})")
        self.report.elapsed_s = time.perf_counter() - started
        return self.report

    def _batches(self, archives: Sequence[Archive]) -> Iterator[list[SampleRef]]:
        """References of as many archives as make a part."""
        batch: list[SampleRef] = []
        for number, scanned in enumerate(_scan_ahead(self.source, archives)):
            self.progress("scan", number + 1, len(archives))
            self.report.findings += scanned.findings
            nameless = sum(f.kind == NAMELESS for f in scanned.findings)
            self.report.n_found += len(scanned.samples) + nameless
            batch += scanned.samples
            if len(batch) >= self.options.samples_per_part:
                yield batch
                batch = []
        if batch:
            yield batch

    def _add(self, found: list[SampleRef]) -> None:
        """Write and commit one part."""
        refs = self._new(found)
        if not refs:
            return
        schema = self._schema(refs)
        self.bank.catalog.create(self.table, schema, single_writer=True)  # the store has been probed
        plan = plan_part(
            refs,
            schema,
            placement=self.source.placement,
            samples_per_shard=self.options.samples_per_shard or samples_per_shard_for(schema),
            profile=self.options.profile,
            n_tiles=self.options.n_tiles,
        )
        results = self._write(plan, schema)
        self._describe(plan, schema)
        findings = [f for r in results for f in r.findings]
        self.report.findings += findings
        if self.options.strict and self.report.harmful:
            self._refuse(plan)
        commit = Commit(
            plan.part,
            *(
                pa.concat_tables([getattr(r, level) for r in results])
                for level in ("samples", "tiles", "shards")
            ),
        )
        if not commit.samples.num_rows:
            return
        self._save_report(plan, results, commit.samples.num_rows)
        self.bank.catalog.commit(self.table, commit)
        checkpoint.forget(self._store, self.table, plan.part, len(plan.shards))

    @property
    def _store(self) -> Store:
        return self.bank.catalog.store

    def _new(self, found: list[SampleRef]) -> list[SampleRef]:
        """References that are neither committed nor repeated; repeated ones become findings."""
        committed = self._committed(found)
        fresh: list[SampleRef] = []
        stems: set[tuple[str, str, str]] = set()
        samples: set[tuple[str, str]] = set()
        for ref, known in zip(found, committed, strict=True):
            if known == "same":
                self.report.n_present += 1
                continue
            stem, sample = (ref.split, ref.subset, ref.stem), (ref.split, ref.sample_id)
            if known == "other" or stem in stems or sample in samples:
                self.report.findings.append(_repeated(ref))
                continue
            stems.add(stem)
            samples.add(sample)
            fresh.append(ref)
        return fresh

    def _committed(self, found: list[SampleRef]) -> list[str]:
        """For each reference ``same`` (in the snapshot), ``other`` (its id or stem is, of another member) or empty."""
        try:
            keys = self.bank.catalog.committed_keys(self.table)
        except NotFoundError:
            return [""] * len(found)
        ids = _among([f"{r.split}/{r.sample_id}" for r in found], _joined(keys, "split", "sample_id"))
        stems = _among(
            [f"{r.split}/{r.subset}/{r.stem}" for r in found], _joined(keys, "split", "subset", "stem")
        )
        return ["same" if i and s else ("other" if i or s else "") for i, s in zip(ids, stems, strict=True)]

    def _schema(self, refs: Sequence[SampleRef]) -> TableSchema:
        found = survey(self.source, refs)
        try:
            return extend(self.bank.catalog.schema(self.table), found)
        except NotFoundError:
            return found

    def _write(self, plan: PartPlan, schema: TableSchema) -> list[ShardResult]:
        """Results of all shards in order, from checkpoints where they exist."""
        results: dict[int, ShardResult] = {}
        tasks = []
        for number, refs in enumerate(plan.shards):
            done = checkpoint.load(self._store, self.table, plan.part, number)
            if done is not None:
                results[number] = done
                self.report.n_resumed += done.samples.num_rows
            else:
                tasks.append(
                    ShardTask(
                        self.table,
                        plan.part,
                        number,
                        plan.samples_per_shard,
                        refs,
                        schema,
                        self.options.profile,
                        self.options.n_tiles,
                    )
                )
        n_workers = self.options.n_workers or os.cpu_count() or 1
        with closing(execute(tasks, self.source, self._store, n_workers)) as finished:
            for result in finished:
                checkpoint.save(self._store, self.table, plan.part, result)
                results[result.shard] = result
                written = sum(len(plan.shards[n]) for n in results)
                self.progress("write", written, plan.n_samples)
                self.report.seconds.add(result.seconds)
        return [results[n] for n in sorted(results)]

    def _describe(self, plan: PartPlan, schema: TableSchema) -> None:
        """Write the Zarr documents of a part."""
        etags = _etags(plan)
        attributes: dict[str, object] = {
            "Conventions": "CF-1.11",
            "source": self.source.root,
            "source_format": self.source.format,
            "source_revision": self.options.revision or _digest(etags),
            "source_etags": etags,
            "crs": "each sample lies in the UTM zone of its EPSG code: column epsg of the samples table",
            "history": f"written by tensorbank {tensorbank.__version__}, codec profile {self.options.profile}",
            **self.source.attributes,
        }
        arrays = {
            modality.name: array_document(
                modality,
                schema.modalities,
                n_samples=plan.n_rows,
                samples_per_shard=plan.samples_per_shard,
                blosc=codec_for(self.options.profile, modality).configuration(),
                attributes=_array_attributes(modality),
            )
            for modality in schema
        }
        for name, document in arrays.items():
            self._put_json(f"{array_key(self.table, plan.part, name)}/zarr.json", document)
        self._put_json(f"{part_key(self.table, plan.part)}/zarr.json", group_document(attributes, arrays))

    def _put_json(self, key: str, document: Any) -> None:
        self._store.put(key, json.dumps(document, indent=1).encode())

    def _save_report(self, plan: PartPlan, results: Sequence[ShardResult], n_added: int) -> None:
        """Account for a part and leave the report beside it."""
        self.report.parts.append(plan.part)
        self.report.n_added += n_added
        self.report.tensor_bytes += sum(r.tensor_bytes for r in results)
        self.report.stored_bytes += sum(r.stored_bytes for r in results)
        self._store.put(report_key(self.table, plan.part), self.report.to_json().encode())

    def _refuse(self, plan: PartPlan) -> None:
        self._store.put(report_key(self.table, plan.part), self.report.to_json().encode())
        first = self.report.harmful[0]
        more = f" and {len(self.report.harmful) - 1} more" if len(self.report.harmful) > 1 else ""
        raise FormatError(
            f"nothing is committed, since strict was asked for: {first.kind} in {first.archive} "
            f"{first.member} {first.modality}: {first.reason}{more}; the report is "
            f"{self._store.url}/{report_key(self.table, plan.part)}",
            kind="strict",
        )


def _scan_ahead(source: Source, archives: Sequence[Archive]) -> Iterator[Scan]:
    """Scans in the order of the archives, a few ahead: the references of 17 TB would not fit into memory."""
    with ThreadPoolExecutor(N_SCAN_THREADS) as pool:
        coming: deque[Future[Scan]] = deque()
        try:
            for archive in archives:
                coming.append(pool.submit(scan, source, archive))
                if len(coming) > N_SCAN_THREADS:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for scanning in coming:
                scanning.cancel()


def _repeated(ref: SampleRef) -> Finding:
    reason = f"{ref.stem} (sample {ref.sample_id}) occurs more than once in split {ref.split}"
    return Finding(
        "duplicate-sample", ref.archive, reason, "the first one kept, this one left out", member=ref.stem
    )


def _joined(keys: pa.Table, *columns: str) -> pa.Array:
    return pc.binary_join_element_wise(*(keys[c] for c in columns), "/")


def _among(names: list[str], known: pa.Array) -> list[bool]:
    result: list[bool] = pc.is_in(pa.array(names, pa.string()), value_set=known).to_pylist()
    return result


def _array_attributes(modality: Modality) -> dict[str, object]:
    """CF-like attributes of one array; archives mark missing pixels of floats only."""
    missing = "NaN" if np.dtype(modality.dtype).kind == "f" else "none"
    bands = {b.name: b.long_name for b in modality.bands if b.long_name}
    return {
        **modality.attributes,
        "band_names": list(modality.band_names),
        **({"band_long_names": bands} if bands else {}),
        "nodata": missing,
    }


def _digest(etags: dict[str, str]) -> str:
    """Name for a source's content where nobody gave its revision."""
    return "sha256:" + hashlib.sha256(json.dumps(etags, sort_keys=True).encode()).hexdigest()


def _etags(plan: PartPlan) -> dict[str, str]:
    """ETag of every source file of a part, by path."""
    members = (m for shard in plan.shards for ref in shard for m in ref.members.values())
    return dict(sorted({m.path: m.etag for m in members}.items()))
