"""The writer of one part: shards by an executor, with checkpoints, and the Zarr documents that describe them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from typing import Any

import tensorbank
from tensorbank.catalog import part_document
from tensorbank.engines import Executor
from tensorbank.errors import NotFoundError, StorageError
from tensorbank.layout import (
    array_attributes,
    array_document,
    array_key,
    part_key,
    report_key,
)
from tensorbank.reading import codec_for
from tensorbank.schema import TableSchema
from tensorbank.storage import Store
from tensorbank_indexer.options import IngestOptions
from tensorbank_indexer.parts import checkpoint
from tensorbank_indexer.parts.checkpoint import remove_empty
from tensorbank_indexer.parts.part_plan import PartPlan
from tensorbank_indexer.parts.shard_task import ShardResult, ShardTask, run
from tensorbank_indexer.reports import IngestReport
from tensorbank_indexer.source import Archive, Source

__all__ = ["PartWriter", "Progress"]

Progress = Callable[[str, int, int], None]
"""A callback that takes a stage, how many are done, and how many there are as far as known."""


class PartWriter:
    """A writer of parts of one table. What it writes becomes visible by a commit, which the ingest makes."""

    def __init__(
        self,
        source: Source,
        store: Store,
        table: str,
        options: IngestOptions,
        executor: Executor,
        progress: Progress,
    ) -> None:
        self.source = source
        self.store = store
        self.table = table
        self.options = options
        self.executor = executor
        self.progress = progress

    def write(self, plan: PartPlan, schema: TableSchema, report: IngestReport) -> list[ShardResult]:
        """Return the results of all shards in order, from checkpoints where they exist."""
        results: dict[int, ShardResult] = {}
        tasks = []
        for number, refs in enumerate(plan.shards):
            done = checkpoint.load(self.store, self.table, plan.part, number)
            if done is not None:
                results[number] = done
                report.n_resumed += done.rows.samples.num_rows
            else:
                tasks.append(
                    ShardTask(
                        self.table,
                        plan.part,
                        number,
                        plan.samples_per_shard,
                        refs,
                        schema,
                        plan.profile,
                        self.options.n_tiles,
                    )
                )
        if results:
            self.progress("write", sum(len(plan.shards[n]) for n in results), plan.n_samples)
        with closing(self.executor.execute(tasks, run)) as finished:
            for result in finished:
                checkpoint.save(self.store, self.table, plan.part, result)
                results[result.shard] = result
                written = sum(len(plan.shards[n]) for n in results)
                self.progress("write", written, plan.n_samples)
                report.seconds.add(result.seconds)
        return [results[n] for n in sorted(results)]

    def describe(
        self, plan: PartPlan, schema: TableSchema, archives: Sequence[Archive], why: str = ""
    ) -> str:
        """Write the Zarr documents of a part; ``why`` is the reason of its codec profile. Return the source's revision."""
        etags = _etags(plan, archives)
        revision = self.options.revision or _digest(etags)
        attributes: dict[str, object] = {
            "Conventions": "CF-1.11",
            "source": self.source.root,
            "source_format": self.source.format,
            "source_revision": revision,
            "source_etags": etags,
            "crs": "each sample lies in the UTM zone of its EPSG code: column epsg of the samples table",
            "history": f"written by tensorbank {tensorbank.__version__}, codec profile {plan.profile}",
            "codec_profile": plan.profile,
            **({"codec_choice": why} if why else {}),
            **self.source.attributes,
            **({"licence": self.options.licence} if self.options.licence else {}),
        }
        arrays = {
            modality.name: array_document(
                modality,
                schema.modalities,
                n_samples=plan.n_rows,
                samples_per_shard=plan.samples_per_shard,
                blosc=codec_for(plan.profile, modality).configuration(),
                attributes=array_attributes(modality),
            )
            for modality in schema
        }
        for name, document in arrays.items():
            self._put_json(f"{array_key(self.table, plan.part, name)}/zarr.json", document)
        group = part_document(plan.part, attributes, arrays)
        self.store.put(f"{part_key(self.table, plan.part)}/zarr.json", group)
        return revision

    def _put_json(self, key: str, document: Any) -> None:
        self.store.put(key, json.dumps(document, indent=1).encode())

    def save_report(self, plan: PartPlan, report: IngestReport) -> None:
        """Write the report beside a part."""
        self.store.put(report_key(self.table, plan.part), report.to_json().encode())

    def discard(self, plan: PartPlan) -> None:
        """Remove a part that was not committed, and never will be by this run."""
        for folder in (part_key(self.table, plan.part), checkpoint.folder_of(self.table, plan.part)):
            for found in self.store.objects(folder):
                if found.key.startswith(f"{folder}/"):
                    self.store.delete(found.key)
            if self.store.local_path is not None:  # an object store has no folders to begin with
                remove_empty(self.store.local_path / folder, self.store.local_path)

    def complete(self, part: str, report: IngestReport) -> None:
        """Write a report beside a part that another run has committed, unless it has one."""
        if not self.store.exists(report_key(self.table, part)):
            self.store.put(report_key(self.table, part), report.to_json().encode())

    def forget(self, committed: Callable[[], Collection[str]]) -> list[str]:
        """Remove what is left of the checkpoints of committed parts, and return these parts.

        A run that was killed right after its commit left them.
        """
        done: list[str] = []
        with suppress(NotFoundError, StorageError):  # a bank that one may only read keeps them
            parts = checkpoint.parts_with(self.store, self.table)
            for part in parts and sorted(set(parts) & set(committed())):
                checkpoint.remove(self.store, self.table, part)
                done.append(part)
        return done


def _digest(etags: dict[str, str]) -> str:
    """Return the revision of a source that was given none: a hash of its files' ETags."""
    return "sha256:" + hashlib.sha256(json.dumps(etags, sort_keys=True).encode()).hexdigest()


def _etags(plan: PartPlan, archives: Sequence[Archive]) -> dict[str, str]:
    """Return the ETag of every source file of a part, by path; of files that gave it no sample, too."""
    members = (m for shard in plan.shards for ref in shard for m in ref.members.values())
    files = {f.path: f.etag for archive in archives for f in archive.files}
    return dict(sorted((files | {m.path: m.etag for m in members}).items()))
