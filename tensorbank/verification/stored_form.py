"""Checks of the Zarr documents of parts and the indices of shards against the samples table.

Other readers of Zarr go by both. TensorBank needs neither, so damage to them shows nowhere else.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.bank import Bank
from tensorbank.catalog import find_document_flaw
from tensorbank.errors import NotFoundError, StorageError
from tensorbank.layout import (
    array_attributes,
    array_document,
    is_shard_key,
    place_of_key,
)
from tensorbank.reading import PROFILES, codec_for, crc32c
from tensorbank.schema import Modality, TableSchema
from tensorbank.storage import Store

__all__ = ["Flaw", "find_flaws"]

N_THREADS = 16
MISSING = 2**64 - 1
_CRC = struct.Struct("<I")
_PAIR_BYTES = 16

Refs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Flaw:
    """An object that does not say what the samples table says."""

    modality: str
    key: str
    reason: str


def find_flaws(bank: Bank, table: str, schema: TableSchema) -> Iterator[Flaw]:
    """Yield a flaw for each document and shard index of a table, at the bank's version,
    that is not as it was written.
    """
    store = bank.catalog.store
    parts = bank.sql(f'SELECT DISTINCT part FROM "{table}" ORDER BY part').arrow()["part"].to_pylist()
    for part in parts:
        slots: Counter[int] = Counter()
        arrays: dict[str, Modality] = {}
        n_rows = 0
        for modality in schema:
            refs = _refs(bank, table, part, modality)
            shards: dict[str, list[Mapping[str, Any]]] = {}
            for ref in refs:
                shards.setdefault(ref["key"], []).append(ref)
            arrays |= {place_of_key(key)[0]: modality for key in shards}
            n_rows = max([n_rows, *(ref["row"] + 1 for ref in refs)])
            with ThreadPoolExecutor(N_THREADS) as pool:
                found = list(pool.map(partial(_look_at_shard, store, modality), shards, shards.values()))
            slots.update(n for n, _ in found if n)
            yield from (flaw for _, flaw in found if flaw is not None)
        yield from _documents(store, arrays, schema, n_rows, slots)


def _refs(bank: Bank, table: str, part: str, modality: Modality) -> Refs:
    name = modality.name.replace('"', '""')
    rows = bank.sql(
        f"""SELECT "{name}".ref AS r FROM "{table}" WHERE part = '{part.replace("'", "''")}' AND "{name}" IS NOT NULL"""
    ).arrow()
    return [r for r in rows["r"].to_pylist() if r is not None and is_shard_key(r["key"])]


def _look_at_shard(store: Store, modality: Modality, key: str, refs: Refs) -> tuple[int, Flaw | None]:
    """Return the number of samples that a shard has room for, and the flaw of its index if there is one."""
    flaw = partial(Flaw, modality.name, key)
    end = max(ref["offset"] + ref["length"] for ref in refs)
    try:
        size = store.size(key)
        n_slots, rest = divmod(size - end - _CRC.size, _PAIR_BYTES * modality.n_blocks)
        if n_slots < 1 or rest:
            return 0, flaw(
                f"{store.url}/{key} has {size} bytes, and no index fits behind its blocks, which end at {end}"
            )
        data = store.get_range(key, end, size)
    except NotFoundError:
        return 0, None  # each of its samples is missed by itself
    except StorageError as error:
        return 0, flaw(str(error))
    body, (stored,) = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])
    if crc32c(body) != stored:
        return n_slots, flaw(
            f"the index of shard {store.url}/{key}, which other readers of Zarr use, has the checksum {crc32c(body):08x}, "
            f"{stored:08x} was written"
        )
    index = np.frombuffer(body, "<u8").reshape(n_slots, modality.n_blocks, 2)
    shard = place_of_key(key)[1]
    for ref in refs:
        slot = ref["row"] - shard * n_slots
        if not 0 <= slot < n_slots or (index[slot] != _expected(ref, modality)).any():
            return n_slots, flaw(
                f"the index of shard {store.url}/{key} leads to other bytes for row {ref['row']} than the samples table"
            )
    return n_slots, None


def _expected(ref: Mapping[str, Any], modality: Modality) -> npt.NDArray[np.uint64]:
    """Return the offset and length of each block of a sample, (n_blocks, 2)."""
    lengths = np.array(ref["block_bytes"], np.int64)
    if len(lengths) != modality.n_blocks:
        return np.zeros((modality.n_blocks, 2), np.uint64)
    ends = ref["offset"] + np.cumsum(lengths)
    pairs = np.stack([ends - lengths, lengths], axis=1).astype(np.uint64)
    pairs[lengths == 0] = MISSING
    return pairs


def _documents(
    store: Store, arrays: Mapping[str, Modality], schema: TableSchema, n_rows: int, slots: Counter[int]
) -> Iterator[Flaw]:
    """Yield the flaws of the documents of the arrays that the samples of a part lie in, and of their groups.

    A modality that was replaced or added lies in a group of its own. All arrays must fit the part's number of samples and the
    number in a shard.
    """
    found = {array: _document(store, f"{array}/zarr.json") for array in arrays}
    # They agree in both numbers, so the one that most of them have is right.
    n_samples = _most_common(Counter(_number_at(d, "shape", 0) for d, _ in found.values()), n_rows)
    claimed = Counter(
        _number_at(d, "chunk_grid", "configuration", "chunk_shape", 0) for d, _ in found.values()
    )
    n_slots = _most_common(slots or claimed, 1)
    for array, modality in arrays.items():
        document, reason = found[array]
        if document is not None:
            reason = _difference(document, modality, schema, n_samples, n_slots)
        if reason:
            key = f"{array}/zarr.json"
            yield Flaw(modality.name, key, f"{store.url}/{key}, which other readers of Zarr use, {reason}")
    for folder in dict.fromkeys(array.rpartition("/")[0] for array in arrays):
        key = f"{folder}/zarr.json"
        group, reason = _document(store, key, folder.rpartition("/")[2])
        if group is not None and not reason:
            inside = {
                array.rpartition("/")[2]: d
                for array, (d, _) in found.items()
                if d is not None and array.rpartition("/")[0] == folder
            }
            reason = _difference_of_group(group, inside)
        if reason:
            yield Flaw("", key, f"{store.url}/{key}, which other readers of Zarr use, {reason}")


def _most_common(found: Counter[int], least: int) -> int:
    return next((n for n, _ in found.most_common() if n >= least), least)


def _number_at(document: Any, *path: str | int) -> int:
    """Return a number in a document, 0 if there is none."""
    try:
        for step in path:
            document = document[step]
    except (KeyError, IndexError, TypeError):
        return 0
    return document if isinstance(document, int) else 0


def _document(store: Store, key: str, part: str | None = None) -> tuple[Any, str]:
    """Return a JSON document and an empty text, or None and what is wrong with it; ``part`` if it is that of a part's group."""
    try:
        data = store.get(key)
        return json.loads(data), "" if part is None else find_document_flaw(data, part)
    except (NotFoundError, StorageError) as error:
        return None, f"cannot be read: {error}"
    except (ValueError, RecursionError) as error:
        return None, f"is no JSON: {error}"


def _difference(document: Any, modality: Modality, schema: TableSchema, n_samples: int, n_slots: int) -> str:
    """Describe how an array's document differs from what was written; an empty text if it does not."""
    written = [
        array_document(
            modality,
            schema.modalities,
            n_samples=n_samples,
            samples_per_shard=n_slots,
            blosc=codec_for(profile, modality).configuration(),
            attributes=array_attributes(modality),
        )
        for profile in PROFILES
    ]
    if not isinstance(document, dict):
        return "describes no array"
    if _are_axes(document.get("dimension_names"), modality.name):
        # The first modality decides which axes have a prefix, and may have been dropped.
        document = document | {"dimension_names": written[0]["dimension_names"]}
    if any(_same(document, w) for w in written):
        return ""
    different = [
        n for n in {*document, *written[0]} if all(not _same(document.get(n), w.get(n)) for w in written)
    ]
    return f"is not as it was written: {', '.join(sorted(different)) or 'the codec'}"


def _are_axes(names: Any, modality: str) -> bool:
    """Tell whether some names can be those of the axes of a modality's array."""
    time, y, x = ({axis, f"{modality}_{axis}"} for axis in ("time", "y", "x"))
    wanted = ({"sample"}, time, {f"{modality}_band"}, y, x)
    return isinstance(names, list) and [n in w for n, w in zip(names, wanted, strict=False)] == [True] * 5


def _difference_of_group(group: Any, arrays: Mapping[str, Any]) -> str:
    if not isinstance(group, dict) or (group.get("zarr_format"), group.get("node_type")) != (3, "group"):
        return "describes no group"
    if not isinstance(group.get("attributes"), dict):
        return "has no attributes"
    consolidated = group.get("consolidated_metadata")
    if consolidated is None:
        return ""
    if not isinstance(consolidated, dict) or not isinstance(consolidated.get("metadata"), dict):
        return "is not as it was written: consolidated_metadata"
    said = consolidated["metadata"]
    different = [n for n, document in arrays.items() if not _same(said.get(n), document)]
    return (
        f"describes otherwise than their own documents: {', '.join(sorted(different))}" if different else ""
    )


def _same(a: Any, b: Any) -> bool:
    """Return True if two values are the same JSON, in which true is not 1."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
