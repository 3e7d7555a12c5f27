"""Shards that hold blocks of samples which do not count, written anew without them.

Blocks are copied as they are stored, and their checksums compared. What is written lies in parts of its own, which mirror the
rows of the parts before; snapshots that lead to the old shards keep them.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import tensorbank
from tensorbank.arrow_numpy import as_numpy
from tensorbank.catalog import Catalog, part_attributes, part_document
from tensorbank.engines import BankSetting, Executor
from tensorbank.errors import FormatError, IntegrityError, NotFoundError
from tensorbank.index_files import IndexFile
from tensorbank.layout import array_key, dimension_names, part_key, place_of_key, shard_key
from tensorbank.maintenance.dead_rows import DeadRows
from tensorbank.maintenance.merged_level import read_groups
from tensorbank.maintenance.moved_samples import MovedSamples, MovedShard
from tensorbank.reading import ShardAssembler, crc32c
from tensorbank.schema import Modality, TableSchema
from tensorbank.storage import Store

__all__ = ["N_COPIES", "WastedShards", "rewrite", "wasted_shards"]

N_THREADS = 16
N_COPIES = 2
"""The number of shards that threads of this process have in memory at once."""
SHARD_COPY_VERSION = 1
_CRC = struct.Struct("<I")
_PAIR_BYTES = 16

Numbers = npt.NDArray[np.int64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Form:
    """The form of the array in a folder: its document, and the samples that a shard has room for."""

    document: Mapping[str, Any]
    n_slots: int


@dataclass(frozen=True)
class WastedShards:
    """The shards with blocks that no row which counts leads to.

    Parameters
    ----------
    n_bytes
        Bytes of these blocks, by key.
    modalities
        Names of their modalities, by key.
    forms
        Forms of the arrays that the shards belong to, by folder.
    """

    n_bytes: Mapping[str, int] = field(default_factory=dict)
    modalities: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[str, _Form] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.n_bytes)

    def files(self, catalog: Catalog, files: Sequence[IndexFile]) -> frozenset[str]:
        """Return the keys of the index files that lead to one of the shards."""
        return frozenset(f.key for f in files if self.n_bytes and self._is_in(catalog.path(f)))

    def _is_in(self, path: str) -> bool:
        wanted = pa.array(list(self.n_bytes), pa.string())
        with pq.ParquetFile(path) as file:
            paths = {file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)}
            named = {
                f"{name}.{where}": (name, where.split("."))
                for name in {*self.modalities.values()}
                for where in ("ref.key", "key")
                if f"{name}.{where}" in paths
            }
            for group in range(file.num_row_groups if named else 0):
                rows = file.read_row_group(group, columns=list(named))
                for name, where in named.values():
                    if pc.any(pc.is_in(pc.struct_field(rows[name], where), value_set=wanted)).as_py():
                        return True
        return False


def wasted_shards(
    catalog: Catalog, schema: TableSchema, samples: Sequence[IndexFile], dead: DeadRows
) -> WastedShards:
    """Find the shards that are longer than the blocks of their samples and their index take.

    Parameters
    ----------
    samples
        All files of the level.

    Raises
    ------
    FormatError
        The document of an array is missing or damaged.
    StorageError
        The store does not answer.
    """
    used: dict[str, int] = {}
    modality_of: dict[str, Modality] = {}
    for modality in schema:
        for rows in _refs(catalog, samples, dead, modality.name, ("key", "length")):
            keys = rows.field("key").dictionary_encode()
            sums = np.zeros(len(keys.dictionary), np.int64)
            np.add.at(sums, as_numpy(keys.indices), as_numpy(rows.field("length")))
            for key, n_bytes in zip(keys.dictionary.to_pylist(), sums.tolist(), strict=True):
                used[key] = used.get(key, 0) + n_bytes
                modality_of[key] = modality
    folders = {place_of_key(key)[0]: modality for key, modality in modality_of.items()}
    with ThreadPoolExecutor(N_THREADS) as pool:
        listed = list(pool.map(lambda folder: catalog.store.objects(f"{folder}/c"), folders))
        forms = dict(
            zip(folders, pool.map(lambda folder: _form(catalog.store, folder), folders), strict=True)
        )
    sizes = {info.key: info.n_bytes for found in listed for info in found}
    wasted = {}
    for key, n_used in used.items():
        n_index = _PAIR_BYTES * modality_of[key].n_blocks * forms[place_of_key(key)[0]].n_slots + _CRC.size
        n_wasted = sizes.get(key, 0) - n_index - n_used
        if n_wasted > 0:  # a shard that is gone or cut off is told of by verify
            wasted[key] = n_wasted
    return WastedShards(wasted, {key: modality_of[key].name for key in wasted}, forms)


def _form(store: Store, folder: str) -> _Form:
    try:
        document = json.loads(store.get(f"{folder}/zarr.json"))
        return _Form(document, int(document["chunk_grid"]["configuration"]["chunk_shape"][0]))
    except (NotFoundError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FormatError(
            f"{store.url}/{folder}/zarr.json is missing or damaged, and says how rows lie in shards; `tensorbank repair` puts "
            "it back"
        ) from error


def _refs(
    catalog: Catalog, samples: Sequence[IndexFile], dead: DeadRows, modality: str, fields: Sequence[str]
) -> Iterator[pa.StructArray]:
    """Yield the addresses in a modality of the rows that count, those of one row group after the other."""
    for file in samples:
        path = catalog.path(file)
        if modality not in pq.read_schema(path).names:
            continue
        for rows in read_groups([path], ["key", "part", *(f"{modality}.ref.{f}" for f in fields)]):
            column = dead.drop(rows)[modality].combine_chunks()
            there = column.drop_null() if column.null_count else column
            yield there.field("ref")


@dataclass(frozen=True)
class _Copy:
    """The copy of a shard: its samples by their offsets, (n,) rows and offsets, and the lengths of their blocks, (n, block)."""

    key: str
    rows: Numbers
    offsets: Numbers
    blocks: Numbers
    n_slots: int

    @property
    def identity(self) -> list[Any]:
        """The facts that decide the content of the new shard."""
        said = np.concatenate([self.rows[:, None], self.offsets[:, None], self.blocks], axis=1)
        return [self.key, hashlib.sha256(said.astype("<i8").tobytes()).hexdigest()]


@dataclass(frozen=True)
class _CopyTask:
    """The task of writing one shard anew, in a part."""

    table: str
    part: str
    modality: Modality
    copy: _Copy

    @property
    def label(self) -> str:
        """See ``Task.label``."""
        return f"the copy of {self.copy.key}"


def rewrite(
    catalog: Catalog,
    table: str,
    schema: TableSchema,
    samples: Sequence[IndexFile],
    dead: DeadRows,
    wasted: WastedShards,
    executor: Executor,
    progress: Progress,
) -> MovedSamples:
    """Write shards anew with the samples that count, and the documents that describe them; return where their samples lie now.

    An executor copies shards; what is copied, and all documents, are this process's.

    Raises
    ------
    IntegrityError
        A block, or the document of a part, is not what was written.
    StorageError
        The store failed.
    """
    copies: dict[str, list[tuple[Modality, _Copy]]] = {}
    for modality in schema:
        for copy in _copies(catalog, samples, dead, wasted, modality):
            base = place_of_key(copy.key)[0].rpartition("/")[0]
            copies.setdefault(base, []).append((modality, copy))
    tasks: list[_CopyTask] = []
    parts: dict[str, str] = {}
    for base, of_base in sorted(copies.items()):
        identity = [
            SHARD_COPY_VERSION,
            tensorbank.__version__,
            table,
            base,
            *(c.identity for _, c in of_base),
        ]
        parts[base] = f"part-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}"
        tasks += [_CopyTask(table, parts[base], modality, copy) for modality, copy in of_base]
    moved: dict[str, MovedShard] = {}
    with closing(executor.execute(tasks, _copied)) as copied:
        for shard in copied:
            moved[shard.key] = shard
            progress("rewritten shards", len(moved), len(wasted))
    for base, part in parts.items():
        modalities = list({modality.name: modality for modality, _ in copies[base]}.values())
        _describe(catalog.store, table, part, base, modalities, wasted)
    return MovedSamples.of([moved[task.copy.key] for task in tasks])


def _copies(
    catalog: Catalog, samples: Sequence[IndexFile], dead: DeadRows, wasted: WastedShards, modality: Modality
) -> Iterator[_Copy]:
    """Yield what is to be copied of the wasted shards of one modality."""
    keys = sorted(key for key, name in wasted.modalities.items() if name == modality.name)
    if not keys:
        return
    words = pa.array(keys, pa.string())
    found: list[Numbers] = [np.zeros((0, 3 + modality.n_blocks), np.int64)]
    for refs in _refs(catalog, samples, dead, modality.name, ("key", "row", "offset", "block_bytes")):
        of_key = pc.index_in(refs.field("key"), value_set=words)
        mine = refs.filter(of_key.is_valid())
        shard = as_numpy(of_key.drop_null()).astype(np.int64)
        row, offset = (as_numpy(mine.field(name)).astype(np.int64) for name in ("row", "offset"))
        blocks = as_numpy(pc.list_flatten(mine.field("block_bytes"))).astype(np.int64)
        if len(blocks) != len(mine) * modality.n_blocks:
            raise IntegrityError(
                f"rows of samples have other blocks of {modality.name} than its {modality.n_blocks}; see what `tensorbank "
                "verify` says of the table"
            )
        columns = (shard[:, None], offset[:, None], row[:, None], blocks.reshape(-1, modality.n_blocks))
        found.append(np.concatenate(columns, axis=1))
    every = np.concatenate(found)
    every = every[np.lexsort((every[:, 1], every[:, 0]))]
    ends = np.searchsorted(every[:, 0], np.arange(len(keys) + 1))
    for number, key in enumerate(keys):
        some = every[ends[number] : ends[number + 1]]
        n_slots = wasted.forms[place_of_key(key)[0]].n_slots
        yield _Copy(key, some[:, 2], some[:, 1], some[:, 3:], n_slots)


def _copied(task: _CopyTask, setting: BankSetting) -> MovedShard:
    """Write the new shard, and return where its samples lie in it."""
    store, modality, copy = setting.store, task.modality, task.copy
    number = place_of_key(copy.key)[1]
    data = memoryview(store.get(copy.key))
    assembler = ShardAssembler(copy.n_slots, modality.n_blocks)
    starts = []
    for row, offset, sizes in zip(
        copy.rows.tolist(), copy.offsets.tolist(), copy.blocks.tolist(), strict=True
    ):
        blocks = []
        for size in sizes:
            block = data[offset : offset + size]
            if size and (
                len(block) < size or crc32c(block[: -_CRC.size]) != _CRC.unpack(block[-_CRC.size :])[0]
            ):
                raise IntegrityError(
                    f"a block of row {row} in {store.url}/{copy.key} is not what was written, and is not copied; "
                    "`tensorbank repair` makes it again from the archives"
                )
            blocks.append(bytes(block))
            offset += size
        starts.append(assembler.add(row - number * copy.n_slots, blocks)[0])
    key = shard_key(task.table, task.part, modality.name, number)
    store.put(key, assembler.finish())
    return MovedShard(modality.name, copy.key, key, copy.offsets, np.array(starts, np.int64))


def _describe(
    store: Store, table: str, part: str, base: str, modalities: Sequence[Modality], wasted: WastedShards
) -> None:
    """Write the documents of a part that mirrors another one, as that one's say."""
    name = base.rpartition("/")[2]
    try:
        attributes = dict(part_attributes(store, base, name))
    except NotFoundError:  # of another writer: it says nothing
        attributes = {"Conventions": "CF-1.11"}
    arrays = {}
    for modality in modalities:
        document = dict(wasted.forms[f"{base}/{modality.name}"].document)
        document["dimension_names"] = list(dimension_names(modality, modalities))
        arrays[modality.name] = document
        store.put(
            f"{array_key(table, part, modality.name)}/zarr.json", json.dumps(document, indent=1).encode()
        )
    history = f"shards written anew by tensorbank {tensorbank.__version__}"
    said = str(attributes.get("history", ""))
    own = {
        **{k: v for k, v in attributes.items() if not k.startswith("tensorbank.")},
        "rows_of": attributes.get("rows_of", name),
        "history": f"{said}; {history}" if said else history,
    }
    store.put(f"{part_key(table, part)}/zarr.json", part_document(part, own, arrays))
