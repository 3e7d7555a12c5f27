"""Checkpoints: the finished shards of an unfinished part, kept in the bank so that an interrupted ingest resumes.

Their rows end up in the index, so each object ends with a checksum; one that is damaged is none, and its shard is made anew.
"""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import crc32c as crc
import pyarrow as pa
import pyarrow.ipc

from tensorbank.errors import NotFoundError
from tensorbank.layout import part_key
from tensorbank.storage import Store
from tensorbank_indexer.parts.shard_task import ShardResult
from tensorbank_indexer.reports import StageSeconds
from tensorbank_indexer.rows import IndexRows
from tensorbank_indexer.source import Finding

__all__ = ["finished_shards", "folder_of", "forget", "load", "parts_with", "remove", "remove_empty", "save"]

_ENDING = ".progress"
_SHARD = ".arrow"
_CRC = struct.Struct("<I")


def save(store: Store, table: str, part: str, result: ShardResult) -> None:
    """Keep the result of a finished shard, whose objects are in the store already."""
    rest = {
        "findings": [asdict(f) for f in result.findings],
        "tensor_bytes": result.tensor_bytes,
        "stored_bytes": result.stored_bytes,
        "seconds": asdict(result.seconds),
    }
    levels = {"samples": result.rows.samples, "tiles": result.rows.tiles, "shards": result.rows.shards}
    columns: dict[str, list[bytes]] = {name: [_to_ipc(rows)] for name, rows in levels.items()}
    data = _to_ipc(pa.table({**columns, "rest": [json.dumps(rest).encode()]}))
    store.put(_key(table, part, result.shard), data + _CRC.pack(crc.crc32c(data)))


def load(store: Store, table: str, part: str, shard: int) -> ShardResult | None:
    """Return the result of a finished shard; None if it is not finished, or what was kept of it is damaged."""
    try:
        data = store.get(_key(table, part, shard))
    except NotFoundError:
        return None
    body, end = data[: -_CRC.size], data[-_CRC.size :]
    if end != _CRC.pack(crc.crc32c(body)):
        return None
    stored = _from_ipc(body)
    rest = json.loads(stored["rest"][0].as_py())
    rows = IndexRows(*(_from_ipc(stored[name][0].as_py()) for name in ("samples", "tiles", "shards")))
    return ShardResult(
        shard,
        rows,
        [Finding(**f) for f in rest["findings"]],
        rest["tensor_bytes"],
        rest["stored_bytes"],
        StageSeconds(**rest["seconds"]),
    )


def finished_shards(store: Store, table: str, part: str) -> list[int]:
    """Return the numbers of the shards of a part that are kept."""
    keys = (found.key for found in store.objects(folder_of(table, part)))
    return sorted(int(Path(key).stem) for key in keys if key.endswith(_SHARD))


def forget(store: Store, table: str, part: str, n_shards: int) -> None:
    """Remove what :func:`save` kept."""
    for shard in range(n_shards):
        store.delete(_key(table, part, shard))
    _remove_folder(store, table, part)


def parts_with(store: Store, table: str) -> list[str]:
    """Return the parts of which finished shards are kept."""
    folders = store.folders(part_key(table, ""))
    return [name.removesuffix(_ENDING) for name in folders if name.endswith(_ENDING)]


def remove(store: Store, table: str, part: str) -> None:
    """Remove all that is kept of a part, however many shards it had."""
    for found in store.objects(folder_of(table, part)):
        store.delete(found.key)
    _remove_folder(store, table, part)


def _remove_folder(store: Store, table: str, part: str) -> None:
    if store.local_path is not None:  # an object store has no folders to begin with
        remove_empty(store.local_path / folder_of(table, part), store.local_path)


def remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder, those in it and those above it up to ``top``, as far as no file lies in them."""
    within = sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True)
    above = [p for p in folder.parents if top in p.parents]
    for empty in (*within, folder, *above):
        with suppress(OSError):  # not empty, or gone
            empty.rmdir()


def folder_of(table: str, part: str) -> str:
    """Return the folder of the finished shards of a part."""
    return f"{part_key(table, part)}{_ENDING}"


def _key(table: str, part: str, shard: int) -> str:
    return f"{folder_of(table, part)}/{shard}{_SHARD}"


def _to_ipc(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue().to_pybytes())


def _from_ipc(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()
