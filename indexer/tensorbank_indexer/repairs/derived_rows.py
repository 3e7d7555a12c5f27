"""Rows of the index derived again: from rows of samples and the blocks that they lead to, or from tiles and archives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_arrow
from tensorbank.catalog import with_keys
from tensorbank.errors import TensorBankError
from tensorbank.index_schema import REF_TYPE
from tensorbank.layout import place_of_key
from tensorbank.schema import Modality, TableSchema
from tensorbank.statistics import measure
from tensorbank.storage import Store
from tensorbank.verification import sample_differences
from tensorbank_indexer.guarded_source import read_each
from tensorbank_indexer.parts import encode_sample
from tensorbank_indexer.parts.stored_pixels import StoredPixels
from tensorbank_indexer.repairs.repair_report import Unrepaired
from tensorbank_indexer.reports import StageClock
from tensorbank_indexer.rows import (
    IndexRows,
    StoredModality,
    StoredSample,
    index_rows,
    sample_facts,
)
from tensorbank_indexer.source import RawSample, SampleRef, Source

__all__ = [
    "Pair",
    "Place",
    "from_archives",
    "from_rows",
    "is_whole",
    "place_of",
    "rows_where",
]

Pair = tuple[int, str]
"""The key and part of a row."""
Place = tuple[str, int]
"""The part and number of a shard."""
AT_ONCE = 16
"""The number of samples whose pixels are in memory at a time."""


def rows_where(
    paths: Sequence[str], columns: Sequence[str], wanted: Callable[[pa.Table], npt.NDArray[np.bool_]]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of index files for which a function of some columns holds; of other row groups just these are read."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            there = [c for c in columns if c.split(".")[0] in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                mask = wanted(file.read_row_group(group, columns=there))
                if mask.any():
                    yield from file.read_row_group(group).filter(as_arrow(mask)).to_pylist()


def place_of(row: Mapping[str, Any], schema: TableSchema) -> tuple[int, int] | None:
    """Return the number of the shard that a row of samples lies in, and its row on the sample axis; None if in none."""
    for name in schema.names:
        if row.get(name) is not None:
            ref = row[name]["ref"]
            return place_of_key(ref["key"])[1], ref["row"]
    return None


def is_whole(store: Store, modality: Modality, ref: Mapping[str, Any]) -> bool:
    """Tell whether the blocks at an address are there, and have their checksums."""
    try:
        with StoredPixels(store) as stored:
            stored.read(modality, [ref])
    except TensorBankError:
        return False
    return True


def from_rows(
    store: Store,
    rows: Sequence[Mapping[str, Any]],
    schema: TableSchema,
    place: Place,
    n_tiles: int,
    *,
    trusted: bool = True,
) -> IndexRows:
    """Derive the rows of all levels of one shard from its rows of samples and the blocks that they lead to.

    Parameters
    ----------
    trusted
        False if statistics in the rows may be wrong, so that they cannot tell whether the blocks are theirs.

    Raises
    ------
    Unrepaired
        Blocks are damaged or missing, or have other pixels than the rows say.
    """
    ordered = sorted(rows, key=lambda row: (place_of(row, schema) or (0, 0))[1])
    held: list[dict[str, StoredModality]] = [{} for _ in ordered]
    with StoredPixels(store) as stored:
        for modality in schema:
            mine = [i for i, row in enumerate(ordered) if row.get(modality.name) is not None]
            for start in range(0, len(mine), AT_ONCE):
                some = mine[start : start + AT_ONCE]
                said = [ordered[i][modality.name] for i in some]
                try:
                    pixels, n_times = stored.read(modality, [one["ref"] for one in said])
                except TensorBankError as error:
                    raise Unrepaired(
                        f"blocks of shard {place[1]} of {place[0]} cannot be read: {error}"
                    ) from error
                for i, one, found, n in zip(some, said, pixels, n_times, strict=True):
                    of_blocks = measure(found[:n], modality, n_tiles)
                    if trusted and (told := next(sample_differences(one, of_blocks, modality), None)):
                        raise Unrepaired(
                            f"the blocks of shard {place[1]} of {place[0]} are others than its rows say: {told}"
                        )
                    held[i][modality.name] = StoredModality(
                        one["ref"],
                        one["source"],
                        tuple(one["product_ids"] or ()),
                        one["radiometric_offset"],
                        of_blocks,
                    )
    samples = [
        StoredSample(
            (place_of(row, schema) or (0, 0))[1],
            _facts(row, schema),
            of_modality,
        )
        for row, of_modality in zip(ordered, held, strict=True)
    ]
    made = index_rows(samples, schema, part=place[0], shard=place[1], n_tiles=n_tiles)
    return IndexRows(with_keys(made.samples), with_keys(made.tiles), made.shards)


def _facts(row: Mapping[str, Any], schema: TableSchema) -> dict[str, object]:
    """Return the columns of a row of samples that are not modalities."""
    facts = {name: value for name, value in row.items() if name not in schema and value is not None}
    return facts | {"modalities": sorted(name for name in schema.names if row.get(name) is not None)}


def from_archives(
    source: Source | None,
    refs: Mapping[int, SampleRef],
    store: Store,
    addresses: Mapping[Pair, Mapping[str, Mapping[str, Any]]],
    schema: TableSchema,
) -> list[StoredSample]:
    """Read samples from archives, and return them as they are stored.

    Parameters
    ----------
    refs
        References of the source, by key.
    addresses
        Where the samples lie, by pair and modality.

    Raises
    ------
    Unrepaired
        The source lacks a sample or a modality of it, or has other pixels than are stored.
    """
    if source is None:
        raise Unrepaired("rows of samples follow from archives, and none are given")
    for key, part in addresses:
        if key not in refs:
            raise Unrepaired(f"the source lacks the sample of key {key} in {part}")
    made = []
    read = read_each(source, [refs[key] for key, _ in addresses])
    with StoredPixels(store) as stored:
        for (pair, of_modality), raw in zip(addresses.items(), read, strict=True):
            if not isinstance(raw, RawSample):
                raise Unrepaired(f"a sample cannot be read from the source: {raw.reason}")
            made.append(_as_stored(raw, pair[1], of_modality, schema, stored))
    return made


def _as_stored(
    raw: RawSample,
    part: str,
    addresses: Mapping[str, Mapping[str, Any]],
    schema: TableSchema,
    stored: StoredPixels,
) -> StoredSample:
    name = raw.sample_id
    if lost := sorted({*addresses} - {*raw.modalities}):
        raise Unrepaired(f"the source lacks {lost[0]} of {name}, so where it came from is not known")
    raw.modalities = {m: raw.modalities[m] for m in schema.names if m in addresses}
    encoded = encode_sample(raw, schema, profile="raw", n_tiles=1, clock=StageClock())
    held: dict[str, StoredModality] = {}
    for modality_name, one in encoded.modalities.items():
        modality, ref = schema[modality_name], addresses[modality_name]
        try:
            pixels, n_times = stored.read(modality, [ref])
        except TensorBankError as error:
            raise Unrepaired(f"the blocks of {modality_name} of {name} cannot be read: {error}") from error
        of_blocks = measure(pixels[0][: n_times[0]], modality, 1)
        held[modality_name] = StoredModality(
            {field.name: ref[field.name] for field in REF_TYPE},
            one.source,
            one.product_ids,
            one.radiometric_offset,
            one.measure,
        )
        row = index_rows(
            [StoredSample(0, {"sample_id": name}, {modality_name: held[modality_name]})],
            TableSchema((modality,)),
            part=part,
            shard=0,
            n_tiles=1,
        )
        said = row.samples[modality_name][0].as_py()
        if told := next(sample_differences(said, of_blocks, modality), None):
            raise Unrepaired(f"{name} has other pixels in the archive than in the bank: {told}")
    if held.keys() != addresses.keys():
        raise Unrepaired(f"{name} does not fit the table any more: {encoded.findings[0].reason}")
    facts, _ = sample_facts(raw, part, {m: one.measure for m, one in held.items()})
    return StoredSample(int(next(iter(addresses.values()))["row"]), facts, held)
