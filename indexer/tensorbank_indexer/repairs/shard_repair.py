"""The repair of shards from archives: blocks that are damaged are made again, and put back where the index says.

A block is put back only if the archive's member is the one that it was read from, by path, place and ETag, if its length is
what the index says, and if its pixels have the statistics that the index says. So a repaired shard is what was written, under
the same key, and no snapshot changes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
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
from tensorbank.verification import sample_differences
from tensorbank_indexer.guarded_source import read_each, scan_ahead
from tensorbank_indexer.parts import encode_sample
from tensorbank_indexer.repairs.repair_report import Unrepaired
from tensorbank_indexer.repairs.stored_shard import StoredShard
from tensorbank_indexer.reports import StageClock
from tensorbank_indexer.source import RawSample, SampleRef, Source

__all__ = ["refs_of", "repair_shard", "rows_of_shards"]

ROWS_AT_ONCE = 1024


def rows_of_shards(
    bank: Bank, table: str, number: int, schema: TableSchema, damaged: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """Return what all rows say that lead to some shards, deleted ones too, by shard."""
    catalog = bank.catalog
    version = catalog.version(table, number)
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in damaged}
    names = [n for n in schema.names if n in damaged.values()]
    gone = None
    with suppress(TensorBankError):
        gone = catalog.deleted(version)
    dead = set() if gone is None else {(row["key"], row["part"]) for row in gone.to_pylist()}
    for file in version.samples.files:
        try:
            path = catalog.path(file)
        except TensorBankError:
            continue  # it is repaired, too, and then its shards are looked at again
        with pq.ParquetFile(path) as opened:
            there = [n for n in names if n in opened.schema_arrow.names]
            for batch in opened.iter_batches(ROWS_AT_ONCE, columns=["key", "part", "sample_id", *there]):
                for name in there:
                    keys = pc.struct_field(batch[name], ["ref", "key"])
                    mine = batch.filter(pc.fill_null(pc.is_in(keys, value_set=strings(list(damaged))), False))
                    for row in mine.select(["key", "part", "sample_id", name]).to_pylist():
                        counts = (row["key"], row["part"]) not in dead
                        found[row[name]["ref"]["key"]].append({**row, "said": row[name], "counts": counts})
    return found


def refs_of(source: Source, keys: set[int]) -> dict[int, SampleRef]:
    """Return the references of a source to some samples, by key."""
    archives, _ = source.archives()
    found: dict[int, SampleRef] = {}
    for scan in scan_ahead(source, archives):
        for ref in scan.samples:
            key = key_of(ref.split, ref.sample_id)
            if key in keys:
                found.setdefault(key, ref)
    return found


def repair_shard(
    source: Source | None,
    store: Store,
    key: str,
    schema: TableSchema,
    modality: str,
    rows: Sequence[Mapping[str, Any]],
    refs: Mapping[int, SampleRef],
    others: Collection[str] = (),
    *,
    dry_run: bool,
) -> int:
    """Put one shard back; return the number of samples whose blocks were made again.

    ``others`` are ids of samples whose blocks are whole, but not theirs.
    """
    if not rows:
        raise Unrepaired("no row of samples that can be read leads to it")
    n_slots, profiles = _form(store, key)
    try:
        data = store.get(key)
    except NotFoundError:
        data = b""
    shard = StoredShard(key, data, schema[modality], [row["said"]["ref"] for row in rows], n_slots)
    lost = [
        row
        for row in rows
        if row["counts"] and (row["sample_id"] in others or not shard.is_sound(row["said"]["ref"]))
    ]
    for row in lost:
        if source is None:
            raise Unrepaired(
                f"the blocks of sample {row['sample_id']} follow from archives, and none are given"
            )
        if row["key"] not in refs:
            raise Unrepaired(f"the source has no sample {row['sample_id']}")
    wanted = [refs[row["key"]] for row in lost]
    read = () if source is None else read_each(source, wanted)
    for row, raw in zip(lost, read, strict=True):
        if not isinstance(raw, RawSample) or modality not in raw.modalities:
            why = "it has none" if isinstance(raw, RawSample) else raw.reason
            raise Unrepaired(f"{modality} of {row['sample_id']} cannot be read from the source: {why}")
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
            raise Unrepaired(
                f"{row['sample_id']} does not fit the table any more: {encoded.findings[0].reason}"
            )
        if dict(made.source) != said["source"]:
            raise Unrepaired(
                f"the archive is not the one that {row['sample_id']} was read from: it is {dict(made.source)}, the index says "
                f"{said['source']}; ingest with --refresh takes what it has now"
            )
        told = next(sample_differences(said, made.measure, modality), None)
        if told is not None:
            raise Unrepaired(f"{row['sample_id']} has other pixels in the archive: {told}")
        if [len(block) for block in made.blocks] == said["ref"]["block_bytes"]:
            return made.blocks
    raise Unrepaired(
        f"the blocks of {row['sample_id']} have other lengths than the index says; another version of the codec wrote them"
    )


def _form(store: Store, key: str) -> tuple[int, list[str]]:
    """Return the samples that a shard has room for, and the profiles that may have written it, the likeliest first."""
    array, _ = place_of_key(key)
    try:
        document = json.loads(store.get(f"{array}/zarr.json"))
        n_slots = int(document["chunk_grid"]["configuration"]["chunk_shape"][0])
    except (TensorBankError, ValueError, KeyError, TypeError, IndexError) as error:
        raise Unrepaired(f"{array}/zarr.json does not tell its form: {error}") from error
    try:
        group = json.loads(store.get(f"{array.rpartition('/')[0]}/zarr.json"))
        first = str(group["attributes"]["codec_profile"])
    except (TensorBankError, ValueError, KeyError, TypeError):
        first = ""
    return n_slots, sorted(PROFILES, key=lambda name: name != first)
