"""Checks of the Zarr documents of parts and the indices of shards against the samples table.

Other readers of Zarr go by both. TensorBank needs neither, so damage to them shows nowhere else. No pixel is read for it.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.catalog import find_document_flaw
from tensorbank.errors import NotFoundError, StorageError
from tensorbank.index_files import is_static
from tensorbank.layout import array_attributes, array_document, place_of_key
from tensorbank.reading import PROFILES, codec_for, crc32c
from tensorbank.schema import Modality, TableSchema
from tensorbank.storage import Store
from tensorbank.verification.findings import MAX_NAMED, Finding, FindingKind
from tensorbank.verification.sample_rows import ArrayUse, batches, pairs_of, whole

__all__ = ["StoredForm"]

N_THREADS = 16
MAX_REFS = 2_000_000
"""The most addresses that are held at once: of more, the files of samples are read several times."""
MISSING = 2**64 - 1
_CRC = struct.Struct("<I")
_PAIR_BYTES = 16

Int64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class _Refs:
    """The addresses in one shard, in chunks: row, offset, length (n, 3), lengths of blocks (n, block), and ids."""

    numbers: list[Int64] = field(default_factory=list)
    blocks: list[Int64] = field(default_factory=list)
    ids: list[pa.Array] = field(default_factory=list)


class StoredForm:
    """The stored objects that the rows of samples lead to.

    Parameters
    ----------
    arrays
        What the rows that count say of each array, by the key of its folder.
    """

    def __init__(self, store: Store, schema: TableSchema, arrays: Mapping[str, ArrayUse]) -> None:
        self.store = store
        self.schema = schema
        self.arrays = arrays
        self.missing: set[str] = set()
        """The keys of shards that are gone, once they were looked for."""
        self._n_slots: dict[str, int] = {}

    def documents(self) -> Iterator[Finding]:
        """Yield the flaws of the documents of parts and arrays."""
        parts: dict[str, dict[str, ArrayUse]] = {}
        for folder, use in self.arrays.items():
            parts.setdefault(folder.rpartition("/")[0], {})[folder.rpartition("/")[2]] = use
        with ThreadPoolExecutor(N_THREADS) as pool:
            for found in pool.map(self._documents, parts, parts.values()):
                yield from found

    def _documents(self, part: str, used: Mapping[str, ArrayUse]) -> list[Finding]:
        flaws: list[Finding] = []
        key = f"{part}/zarr.json"
        group, reason = _document(self.store, key, part.rpartition("/")[2])
        told = _consolidated(group)
        names = [n for n in dict.fromkeys([*(told or ()), *used]) if n in self.schema]
        keys = {name: f"{part}/{name}/zarr.json" for name in names}
        found = {name: _document(self.store, keys[name]) for name in names}
        # Arrays of a part agree in both numbers, so the one that most of them have is right.
        n_rows = max((use.n_rows for use in used.values()), default=0)
        n_samples = _most_common(Counter(_number_at(d, "shape", 0) for d, _ in found.values()), n_rows)
        claimed = Counter(
            _number_at(d, "chunk_grid", "configuration", "chunk_shape", 0) for d, _ in found.values()
        )
        n_slots = _most_common(claimed, 1)
        order = [self.schema[n] for n in told or () if n in self.schema] or list(self.schema.modalities)
        is_whole = all(n in self.schema for n in told or ())
        for name in names:
            document, why = found[name]
            if document is not None:
                why = _difference(document, self.schema[name], order, n_samples, n_slots, named=is_whole)
            if why:
                reason_of = f"{self.store.url}/{keys[name]}, which other readers of Zarr use, {why}"
                flaws.append(Finding(FindingKind.ZARR_DOCUMENT, keys[name], reason_of, name))
            self._n_slots[f"{part}/{name}"] = n_slots if claimed.keys() - {0} else 0
        if group is not None and not reason:
            reason = _difference_of_group(group, {n: d for n, (d, _) in found.items() if d is not None})
        if reason:
            whole_reason = f"{self.store.url}/{key}, which other readers of Zarr use, {reason}"
            flaws.append(Finding(FindingKind.ZARR_DOCUMENT, key, whole_reason))
        return flaws

    def shards(
        self, samples: Sequence[str], dead: npt.NDArray[np.uint64], parts: dict[str, int]
    ) -> Iterator[Finding]:
        """Yield the flaws of shards: those that are gone or too short, and indices that say something else than samples.

        Parameters
        ----------
        samples
            Local paths of the files of samples.
        dead
            Numbers of the pairs of key and part of rows that do not count, made with ``parts``.
        """
        sizes = self._sizes()
        n_refs = sum(n for use in self.arrays.values() for n in use.shards.values())
        n_passes = max(1, -(-n_refs // MAX_REFS))
        for number in range(n_passes):
            for modality in self.schema:
                refs = self._refs(samples, modality, dead, parts, number, n_passes)
                look = partial(self._look_at_shard, modality, sizes)
                with ThreadPoolExecutor(N_THREADS) as pool:
                    for finding in pool.map(look, refs, refs.values()):
                        if finding is not None:
                            yield finding

    def _sizes(self) -> dict[str, int] | None:
        """Return the lengths of the shards that are there, by key; None where nothing can be listed."""
        if is_static(self.store):
            return None
        with ThreadPoolExecutor(N_THREADS) as pool:
            listed = pool.map(lambda folder: self.store.objects(f"{folder}/c"), self.arrays)
            return {info.key: info.n_bytes for found in listed for info in found}

    def _refs(
        self,
        samples: Sequence[str],
        modality: Modality,
        dead: npt.NDArray[np.uint64],
        parts: dict[str, int],
        number: int,
        n_passes: int,
    ) -> dict[str, _Refs]:
        """Return the addresses of one modality in the shards of one pass."""
        found: dict[str, _Refs] = {}
        for path in samples:
            for rows in batches(path, [f"{modality.name}.ref", "key", "part", "sample_id"]):
                if rows.schema.get_field_index(modality.name) < 0:
                    continue
                there = as_numpy(whole(rows[modality.name]).is_valid()) & ~np.isin(
                    pairs_of(rows, parts), dead
                )
                mine = rows.filter(as_arrow(there))
                ref = whole(mine[modality.name]).field("ref")
                keys = ref.field("key").dictionary_encode()
                code = as_numpy(keys.indices, -1).astype(np.int64)
                numbers = np.stack(
                    [as_numpy(ref.field(n), -1).astype(np.int64) for n in ("row", "offset", "length")], axis=1
                )
                lengths = as_numpy(pc.list_value_length(ref.field("block_bytes")), 0)
                for at, key in enumerate(keys.dictionary.to_pylist()):
                    use = self.arrays.get(place_of_key(key)[0]) if "/c/" in key else None
                    if use is None or key not in use.shards or zlib.crc32(key.encode()) % n_passes != number:
                        continue
                    (places,) = np.nonzero((code == at) & (lengths == modality.n_blocks))
                    taken = ref.field("block_bytes").take(as_arrow(places))
                    blocks = as_numpy(pc.list_flatten(taken), 0).astype(np.int64)
                    of_shard = found.setdefault(key, _Refs())
                    of_shard.numbers.append(numbers[places])
                    of_shard.blocks.append(blocks.reshape(-1, modality.n_blocks))
                    of_shard.ids.append(whole(mine["sample_id"]).take(as_arrow(places)))
        return found

    def _look_at_shard(
        self, modality: Modality, sizes: Mapping[str, int] | None, key: str, refs: _Refs
    ) -> Finding | None:
        numbers, blocks = np.concatenate(refs.numbers), np.concatenate(refs.blocks)
        ids = [str(i) for chunk in refs.ids for i in chunk.to_pylist()]
        where = f"{self.store.url}/{key}"

        def flaw(kind: FindingKind, reason: str, wrong: npt.NDArray[np.bool_] | None = None) -> Finding:
            named = (
                ids
                if wrong is None
                else [i for i, is_wrong in zip(ids, wrong.tolist(), strict=True) if is_wrong]
            )
            return Finding(kind, key, reason, modality.name, tuple(named[:MAX_NAMED]))

        if sizes is not None and key not in sizes:
            self.missing.add(key)
            return flaw(FindingKind.MISSING_SHARD, f"{where} is gone")
        try:
            size = self.store.size(key) if sizes is None else sizes[key]
            ends = numbers[:, 1] + numbers[:, 2]
            folder, shard = place_of_key(key)
            n_slots = self._n_slots.get(folder, 0)
            start = size - _CRC.size - _PAIR_BYTES * modality.n_blocks * n_slots
            if not n_slots:  # no document says it: then the index begins where the last sample ends
                n_slots, rest = divmod(size - int(ends.max()) - _CRC.size, _PAIR_BYTES * modality.n_blocks)
                start = int(ends.max()) if n_slots > 0 and not rest else 0
            if (ends > start).any():
                reason = f"{where} has {size} bytes, and no index fits behind its blocks, which end at {ends.max()}"
                return flaw(FindingKind.CUT_SHARD, reason, ends > start)
            data = self.store.get_range(key, start, size)
        except NotFoundError:
            self.missing.add(key)
            return flaw(FindingKind.MISSING_SHARD, f"{where} is gone")
        except StorageError as error:
            return flaw(FindingKind.UNREADABLE, str(error))
        body, (stored,) = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])
        if crc32c(body) != stored:
            return Finding(
                FindingKind.DAMAGED_SHARD_INDEX,
                key,
                f"the index of shard {where}, which other readers of Zarr use, has the checksum {crc32c(body):08x}, "
                f"{stored:08x} was written",
                modality.name,
            )
        index = np.frombuffer(body, "<u8").reshape(n_slots, modality.n_blocks, 2)
        slots = numbers[:, 0] - shard * n_slots
        inside = (slots >= 0) & (slots < n_slots)
        same = (index[np.clip(slots, 0, n_slots - 1)] == _expected(numbers, blocks)).all(axis=(1, 2))
        if not (inside & same).all():
            rows = ", ".join(map(str, numbers[~(inside & same), 0][:3].tolist()))
            return flaw(
                FindingKind.OTHER_SHARD_INDEX,
                f"the index of shard {where} leads to other bytes for row {rows} than the samples table",
                ~(inside & same),
            )
        return None


def _expected(numbers: Int64, blocks: Int64) -> npt.NDArray[np.uint64]:
    """Return the offset and length of each block of samples, (n, block, 2)."""
    ends = numbers[:, 1:2] + np.cumsum(blocks, axis=1)
    pairs = np.stack([ends - blocks, blocks], axis=2).astype(np.uint64)
    pairs[blocks == 0] = MISSING
    return pairs


def _consolidated(group: Any) -> Collection[str] | None:
    """Return the names of the arrays that the document of a group repeats."""
    try:
        found = group["consolidated_metadata"]["metadata"]
    except (KeyError, TypeError):
        return None
    return list(found) if isinstance(found, dict) else None


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


def _difference(
    document: Any, modality: Modality, order: Sequence[Modality], n_samples: int, n_slots: int, *, named: bool
) -> str:
    """Describe how an array's document differs from what was written; an empty text if it does not.

    ``order`` are the modalities of its part, which decide the names of axes; they are compared if ``named``.
    """
    written = [
        array_document(
            modality,
            order,
            n_samples=n_samples,
            samples_per_shard=n_slots,
            blosc=codec_for(profile, modality).configuration(),
            attributes=array_attributes(modality),
        )
        for profile in PROFILES
    ]
    if not isinstance(document, dict):
        return "describes no array"
    if not named:  # of modalities that the table does not have any more
        document = {**document, "dimension_names": written[0]["dimension_names"]}
    if any(_same(document, w) for w in written):
        return ""
    different = [
        n for n in {*document, *written[0]} if all(not _same(document.get(n), w.get(n)) for w in written)
    ]
    return f"is not as it was written: {', '.join(sorted(different)) or 'the codec'}"


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
