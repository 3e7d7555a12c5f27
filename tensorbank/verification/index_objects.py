"""Checks of the objects of an index: logs, checkpoints, index files, tags and leases, each as the store has it now.

Copies of them in the cache are not asked: a sound copy says nothing of the object.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import crc32c as crc
import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.catalog import COLUMNS_FOLDER, SORTED_FOLDER, Catalog, TableVersion
from tensorbank.errors import NotFoundError, StorageError, TensorBankError
from tensorbank.index_files import (
    LOG,
    IndexFile,
    check_commit,
    checksum_in_name,
    commit_name,
    is_static,
    require_sealed,
)
from tensorbank.layout import index_key
from tensorbank.retention import list_leases, list_tags
from tensorbank.storage import Store
from tensorbank.verification.findings import Finding, FindingKind

__all__ = ["damaged_logs", "damaged_notes", "file_flaws", "missing_pins"]

N_THREADS = 16
CHUNK_BYTES = 16 << 20
DIGITS = 20
"""The digits of a version in the name of a log's file."""


def damaged_logs(store: Store, table: str, levels: Iterable[str]) -> Iterator[Finding]:
    """Yield a finding for each file of some levels' logs that is damaged, and for each commit that is missing.

    Commits before a checkpoint may have been removed; one that is missing between others may not.
    """
    if is_static(store):  # nothing can be listed; what the snapshot needs was read to get here
        return
    for level in levels:
        folder = f"{index_key(table, level)}/{LOG}"
        keys = sorted(info.key for info in store.objects(folder))
        names = {key.removeprefix(f"{folder}/") for key in keys}
        with ThreadPoolExecutor(N_THREADS) as pool:
            looked = list(pool.map(partial(_look_at_log_file, store, names=names), keys))
        yield from (finding for finding in looked if finding is not None)
        versions = {int(n[:DIGITS]) for n in names if n == f"{n[:DIGITS]}.json" and n[:DIGITS].isdigit()}
        if not versions:
            continue
        checkpoints = {int(n[:DIGITS]) for n in names if n.endswith(".checkpoint.parquet")}
        first = 0 if not any(v + 1 >= min(versions) for v in checkpoints) else min(versions)
        for version in range(first, max(versions)):
            if version not in versions:
                name = commit_name(version)
                yield Finding(
                    FindingKind.DAMAGED_LOG,
                    f"{folder}/{name}",
                    f"{name} is gone, and later commits are there",
                )


def _look_at_log_file(store: Store, key: str, *, names: set[str]) -> Finding | None:
    name = key.rpartition("/")[2]
    where = f"{store.url}/{key}"
    try:
        if name.endswith(".json") and name[:DIGITS].isdigit():
            data = store.get(key)
            check_commit(data, where)
            for line in data.decode("utf-8").splitlines():
                if line and not isinstance(json.loads(line), dict):
                    raise ValueError("a line is no JSON object")
        elif name.endswith(".checkpoint.parquet"):
            data = store.get(key)
            seal = key.removesuffix(".parquet") + ".crc32c"
            if seal.rpartition("/")[2] in names:
                require_sealed(data, store.get(seal), where)
            pq.ParquetFile(pa.BufferReader(data)).read()
    except (TensorBankError, ValueError, RecursionError, OSError, pa.ArrowException) as error:
        return Finding(FindingKind.DAMAGED_LOG, key, _first_line(error))
    return None


def missing_pins(catalog: Catalog, version: TableVersion) -> Iterator[Finding]:
    """Yield a finding for each level that belongs to a version and cannot be read as it is pinned."""
    levels = ["tiles", "shards"]
    if version.pins is not None:
        wanted = ["keys", *(f"{COLUMNS_FOLDER}/{name}" for name in version.columns)]
        wanted += [f"{SORTED_FOLDER}/{name}" for name in version.sorted_copies]
        levels += [*version.pins, *wanted]
    for level in dict.fromkeys(levels):
        key = index_key(version.table, level)
        if not version.has(level) or (version.pins is not None and level not in version.pins):
            yield Finding(
                FindingKind.MISSING_PIN, key, f"version {version.version} pins no version of {level}"
            )
            continue
        try:
            catalog.state(version, level)
        except NotFoundError as error:
            pinned = version.pinned(level)
            yield Finding(
                FindingKind.MISSING_PIN,
                key,
                f"version {version.version} pins {level} at {pinned}, which is not there: {_first_line(error)}",
            )
        except (TensorBankError, pa.ArrowException) as error:
            yield Finding(FindingKind.DAMAGED_LOG, f"{key}/{LOG}", _first_line(error))


def file_flaws(catalog: Catalog, files: Iterable[IndexFile]) -> list[Finding | None]:
    """Return for each index file the finding about it, None if it is what its name and its commit say."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(partial(_look_at_file, catalog), files))


def _look_at_file(catalog: Catalog, file: IndexFile) -> Finding | None:
    store = catalog.store
    damaged = partial(Finding, FindingKind.DAMAGED_INDEX_FILE, file.key)
    try:
        size = store.size(file.key)
        if size != file.n_bytes:
            return damaged(f"it has {size} bytes, its commit says {file.n_bytes}")
        said = checksum_in_name(file.key)
        if said is not None:
            found = 0
            for start in range(0, size, CHUNK_BYTES):
                found = crc.crc32c(store.get_range(file.key, start, min(start + CHUNK_BYTES, size)), found)
            if found != said:
                return damaged(f"its checksum is {found:08x}, its name says {said:08x}")
        path = catalog.path(file)
        if said is None:
            for _ in pq.ParquetFile(path).iter_batches():
                pass
    except NotFoundError as error:
        return Finding(FindingKind.MISSING_INDEX_FILE, file.key, _first_line(error))
    except StorageError as error:
        return Finding(FindingKind.UNREADABLE, file.key, _first_line(error))
    except (TensorBankError, pa.ArrowException, OSError, ValueError) as error:
        return damaged(_first_line(error))
    return None


def damaged_notes(catalog: Catalog, version: TableVersion) -> Iterator[Finding]:
    """Yield a finding for each tag and lease of a table that cannot be read, or that names a version which is not there."""
    store, table = catalog.store, version.table
    if is_static(store):
        return
    tags, damaged = list_tags(store, table)
    yield from (Finding(FindingKind.DAMAGED_TAG, f"{table}/tags", _first_line(error)) for error in damaged)
    for tag in tags:
        key = f"{table}/tags/{tag.name}.json"
        if tag.table_id != version.table_id:
            yield Finding(FindingKind.DAMAGED_TAG, key, f"it is of another table, {tag.table_id}")
            continue
        with suppress(StorageError):
            try:
                catalog.version(table, tag.version)
            except NotFoundError:
                yield Finding(
                    FindingKind.DAMAGED_TAG, key, f"it names version {tag.version}, which is not there"
                )
            except TensorBankError as error:
                yield Finding(FindingKind.DAMAGED_TAG, key, _first_line(error))
    _, damaged = list_leases(store, table)
    yield from (
        Finding(FindingKind.DAMAGED_LEASE, f"{table}/leases", _first_line(error)) for error in damaged
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
