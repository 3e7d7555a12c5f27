"""The repair of shards from archives: blocks that are damaged are made again, and put back where the index says.

A block is put back only if the archive's member is the one that it was read from, by path, place and ETag, if its length is
what the index says, and if its pixels have the statistics that the index says. So a repaired shard is what was written, under
the same key, and no snapshot changes. Whatever cannot be repaired is named, and nothing of it is touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import strings
from tensorbank.bank import Bank
from tensorbank.catalog import key_of
from tensorbank.errors import NotFoundError, TensorBankError
from tensorbank.layout import place_of_key
from tensorbank.reading import PROFILES
from tensorbank.schema import Modality, TableSchema
from tensorbank.storage import Store
from tensorbank.verification import FindingKind, sample_differences, verify
from tensorbank_indexer.guarded_source import read_each, scan_ahead
from tensorbank_indexer.parts import encode_sample
from tensorbank_indexer.repairs.stored_shard import StoredShard
from tensorbank_indexer.reports import StageClock
from tensorbank_indexer.source import RawSample, SampleRef, Source

__all__ = ["Left", "RepairReport", "repair"]

OF_SHARDS = frozenset(
    {
        FindingKind.MISSING_SHARD,
        FindingKind.CUT_SHARD,
        FindingKind.DAMAGED_SHARD_INDEX,
        FindingKind.OTHER_SHARD_INDEX,
        FindingKind.DAMAGED_BLOCK,
    }
)
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Left:
    """A finding of ``verify`` that was not repaired, and why."""

    kind: str
    key: str
    reason: str


@dataclass(slots=True)
class RepairReport:
    """The result of a repair; with ``dry_run``, what one would do. ``repaired`` are keys of shards, put back as they were."""

    table: str
    version: int
    dry_run: bool
    n_findings: int = 0
    n_samples: int = 0
    repaired: list[str] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.left


def repair(
    source: Source,
    bank: Bank,
    table: str,
    *,
    deep: bool = True,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RepairReport:
    """Verify a table, and repair its lost and damaged shards from archives. Run again, it does what is left to do.

    Parameters
    ----------
    source
        The archives that the table was made of, or some of them.
    deep
        False to look for shards that are gone, cut off, or have a wrong index, without a look at their blocks.
    dry_run
        True to write nothing. Archives are read all the same, since they tell what can be repaired.
    progress
        As for :func:`tensorbank.verification.verify`.

    Raises
    ------
    NotFoundError
        There is no such table.
    StorageError
        The source or the bank is out of reach.
    """
    catalog = bank.catalog
    if not dry_run:
        catalog.mirror.require_writable()
    found = verify(bank, table, deep=deep, progress=progress)
    report = RepairReport(table, found.version, dry_run, len(found.findings))
    damaged: dict[str, str] = {}
    for finding in found.findings:
        if finding.kind in OF_SHARDS:
            damaged[finding.key] = finding.modality
        else:
            report.left.append(
                Left(finding.kind, finding.key, f"nothing in archives helps: {finding.reason}")
            )
    if not damaged:
        return report
    version = catalog.version(table, found.version)
    rows = _rows_of(bank, table, found.version, version.schema, damaged)
    refs = _refs_of(source, {row["key"] for some in rows.values() for row in some})
    for key, modality in sorted(damaged.items()):
        try:
            n = _repair_shard(
                source, catalog.store, key, version.schema, modality, rows[key], refs, dry_run=dry_run
            )
        except _Unrepaired as error:
            report.left.append(Left("unrepaired-shard", key, str(error)))
        else:
            report.repaired.append(key)
            report.n_samples += n
    return report


class _Unrepaired(Exception):  # noqa: N818 - no error: it is told in the report
    """A shard cannot be made again."""


def _rows_of(
    bank: Bank, table: str, number: int, schema: TableSchema, damaged: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """Return what all rows say that lead to some shards, deleted ones too, by shard."""
    catalog = bank.catalog
    version = catalog.version(table, number)
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in damaged}
    names = [n for n in schema.names if n in damaged.values()]
    gone = catalog.deleted(version)
    dead = set() if gone is None else {(row["key"], row["part"]) for row in gone.to_pylist()}
    for file in version.samples.files:
        with pq.ParquetFile(catalog.path(file)) as opened:
            there = [n for n in names if n in opened.schema_arrow.names]
            for batch in opened.iter_batches(ROWS_AT_ONCE, columns=["key", "part", "sample_id", *there]):
                for name in there:
                    keys = pc.struct_field(batch[name], ["ref", "key"])
                    mine = batch.filter(pc.fill_null(pc.is_in(keys, value_set=strings(list(damaged))), False))
                    for row in mine.select(["key", "part", "sample_id", name]).to_pylist():
                        counts = (row["key"], row["part"]) not in dead
                        found[row[name]["ref"]["key"]].append({**row, "said": row[name], "counts": counts})
    return found


def _refs_of(source: Source, keys: set[int]) -> dict[int, SampleRef]:
    """Return the references of a source to some samples, by key."""
    archives, _ = source.archives()
    found: dict[int, SampleRef] = {}
    for scan in scan_ahead(source, archives):
        for ref in scan.samples:
            key = key_of(ref.split, ref.sample_id)
            if key in keys:
                found.setdefault(key, ref)
    return found


def _repair_shard(
    source: Source,
    store: Store,
    key: str,
    schema: TableSchema,
    modality: str,
    rows: Sequence[Mapping[str, Any]],
    refs: Mapping[int, SampleRef],
    *,
    dry_run: bool,
) -> int:
    """Put one shard back; return the number of samples whose blocks were made again."""
    if not rows:
        raise _Unrepaired("no row of samples that can be read leads to it")
    n_slots, profiles = _form(store, key)
    try:
        data = store.get(key)
    except NotFoundError:
        data = b""
    shard = StoredShard(key, data, schema[modality], [row["said"]["ref"] for row in rows], n_slots)
    lost = [row for row in rows if row["counts"] and not shard.is_sound(row["said"]["ref"])]
    for row in lost:
        if row["key"] not in refs:
            raise _Unrepaired(f"the source has no sample {row['sample_id']}")
    wanted = [refs[row["key"]] for row in lost]
    for row, raw in zip(lost, read_each(source, wanted), strict=True):
        if not isinstance(raw, RawSample) or modality not in raw.modalities:
            why = "it has none" if isinstance(raw, RawSample) else raw.reason
            raise _Unrepaired(f"{modality} of {row['sample_id']} cannot be read from the source: {why}")
        shard.put_back(row["said"]["ref"], _blocks(raw, row, schema, schema[modality], profiles))
    whole = shard.whole()
    if not dry_run and whole != data:
        store.put(key, whole)
    return len(lost)


def _blocks(
    raw: RawSample, row: Mapping[str, Any], schema: TableSchema, modality: Modality, profiles: Sequence[str]
) -> tuple[bytes, ...]:
    """Return the blocks of a sample as they were written, by whichever profile that was."""
    said = row["said"]
    raw.modalities = {modality.name: raw.modalities[modality.name]}
    for profile in profiles:
        encoded = encode_sample(raw, schema, profile=profile, n_tiles=1, clock=StageClock())
        made = encoded.modalities.get(modality.name)
        if made is None:
            raise _Unrepaired(
                f"{row['sample_id']} does not fit the table any more: {encoded.findings[0].reason}"
            )
        if dict(made.source) != said["source"]:
            raise _Unrepaired(
                f"the archive is not the one that {row['sample_id']} was read from: it is {dict(made.source)}, the index says "
                f"{said['source']}; ingest with --refresh takes what it has now"
            )
        told = next(sample_differences(said, made.measure, modality), None)
        if told is not None:
            raise _Unrepaired(f"{row['sample_id']} has other pixels in the archive: {told}")
        if [len(block) for block in made.blocks] == said["ref"]["block_bytes"]:
            return made.blocks
    raise _Unrepaired(
        f"the blocks of {row['sample_id']} have other lengths than the index says; another version of the codec wrote them"
    )


def _form(store: Store, key: str) -> tuple[int, list[str]]:
    """Return the samples that a shard has room for, and the profiles that may have written it, the likeliest first."""
    array, _ = place_of_key(key)
    try:
        document = json.loads(store.get(f"{array}/zarr.json"))
        n_slots = int(document["chunk_grid"]["configuration"]["chunk_shape"][0])
    except (TensorBankError, ValueError, KeyError, TypeError, IndexError) as error:
        raise _Unrepaired(f"{array}/zarr.json does not tell its form: {error}") from error
    try:
        group = json.loads(store.get(f"{array.rpartition('/')[0]}/zarr.json"))
        first = str(group["attributes"]["codec_profile"])
    except (TensorBankError, ValueError, KeyError, TypeError):
        first = ""
    return n_slots, sorted(PROFILES, key=lambda name: name != first)
