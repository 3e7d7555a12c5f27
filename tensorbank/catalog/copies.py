"""Copies of tables: index files under another name, which lead to the same tensors."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorbank.catalog.changes import DELETED, TableVersion
from tensorbank.catalog.publishing import FORMAT, INDEX_VERSION, MAX_RACES, PIN, RACE_PAUSE_S, commit_info
from tensorbank.delta import (
    LevelChange,
    LostCommitError,
    VersionState,
    append_commit,
    change_between,
    commit_actions,
    creation_actions,
    readded,
)
from tensorbank.errors import ConflictError, ErrorKind, InvalidInputError
from tensorbank.index_files import FINITE, IndexFile, NewFile
from tensorbank.layout import index_key
from tensorbank.storage import backoff_s

if TYPE_CHECKING:
    from tensorbank.catalog.catalog import Catalog

__all__ = ["TENSORS", "copy_table", "origins_of"]

TENSORS = "tensorbank.tensors"
"""The setting of ``samples`` that lists the tables below whose names tensors lie, too, separated by commas."""
N_THREADS = 8


def copy_table(catalog: Catalog, source: TableVersion, new: str) -> int:
    """Make a table that has the samples of a version of another one, and return its version.

    Its index files are copies, its tensors are those of the other table. All of it is visible with the last object that is
    written; a copy that was stopped before is completed by another one.

    Raises
    ------
    InvalidInputError
        There is another table of this name already, or the version is of format 1.
    ConflictError
        Another writer makes a table of this name.
    """
    if source.pins is None:
        raise InvalidInputError(
            f"version {source.version} of {source.table} is of format 1; copy one of format 2: the next commit upgrades the table"
        )
    told = {
        "source_table": source.table,
        "source_version": source.version,
        "source_id": source.table_id,
    }
    if catalog.newest(new, "samples") is not None:
        return _made_before(catalog, new, told)
    pins = {f"{PIN}{level}": _copy_level(catalog, source, level, new) for level in source.pins}
    state = catalog.state(source, "samples")
    tables = dict.fromkeys((*origins_of(state), source.table))
    kept = {name: value for name, value in state.configuration.items() if name != "tensorbank.name"}
    settings = {**kept, TENSORS: ",".join(name for name in tables if name != new)}
    folder = index_key(new, "samples")
    added = LevelChange(_copied(catalog, state, "samples", new))
    actions = creation_actions(str(uuid.uuid4()), state.columns, settings)
    actions += commit_actions(folder, added, {FORMAT: INDEX_VERSION, FINITE: 1, **pins})
    deleted = catalog.state(source, DELETED).files.n_rows if source.has(DELETED) else 0
    info = commit_info("copy", told, source.samples.n_rows - deleted, None)
    try:
        append_commit(catalog.store, folder, 0, actions, info)
    except LostCommitError:
        return _made_before(catalog, new, told)
    return 0


def origins_of(state: VersionState) -> tuple[str, ...]:
    """Return the other tables below whose names tensors of a table lie, by the settings of its samples."""
    return tuple(filter(None, state.configuration.get(TENSORS, "").split(",")))


def _made_before(catalog: Catalog, new: str, told: dict[str, Any]) -> int:
    """Return the version of a table that is the wanted copy; raise InvalidInputError if it is another one."""
    first = catalog.history(new)[-1]
    if first.operation == "copy" and first.version == 0 and told.items() <= first.details.items():
        return 0
    raise InvalidInputError(
        f"{catalog.store.url} has a table {new!r} already; take another name", kind=ErrorKind.EXISTS
    )


def _copy_level(catalog: Catalog, source: TableVersion, level: str, new: str) -> int:
    """Copy the files of a level, and commit them below the new name; return the version that has them and no others."""
    state = catalog.state(source, level)
    folder, added = index_key(new, level), _copied(catalog, state, level, new)
    info = commit_info("copy", {"source_table": source.table}, 0, None)
    for attempt in range(MAX_RACES):
        newest = catalog.newest(new, level)  # of a copy that was stopped, or of who makes the table now
        try:
            if newest is None:
                actions = creation_actions(str(uuid.uuid4()), state.columns, state.configuration)
                append_commit(
                    catalog.store, folder, 0, actions + commit_actions(folder, LevelChange(added), {}), info
                )
                return 0
            rest = change_between(newest.files, replace(newest.files, files=()), LevelChange(added))
            if not rest:
                return newest.version
            version = newest.version + 1
            append_commit(catalog.store, folder, version, commit_actions(folder, rest, {}), info)
        except LostCommitError:
            time.sleep(backoff_s(attempt, RACE_PAUSE_S, max_s=1.0))
            continue
        return version
    raise ConflictError(f"{new}.{level} lost {MAX_RACES} commits to other writers; try again later")


def _copied(catalog: Catalog, state: VersionState, level: str, new: str) -> tuple[NewFile, ...]:
    """Copy the files of a level below the new name."""
    files = state.files
    with ThreadPoolExecutor(N_THREADS) as pool:
        keys = list(pool.map(partial(_copy_file, catalog, index_key(new, level)), files.files))
    again = readded(files, range(len(files.files)))
    return tuple(replace(file, key=key) for file, key in zip(again, keys, strict=True))


def _copy_file(catalog: Catalog, folder: str, file: IndexFile) -> str:
    key = f"{folder}/{file.key.rsplit('/', 1)[-1]}"
    catalog.store.put(key, Path(catalog.path(file)).read_bytes())
    return key
