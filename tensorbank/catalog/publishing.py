"""Publishing of changes: the levels of a table become another version at once, whoever else writes.

What a change adds lies in the store before. Then each level that changes gets a commit which leads from its newest version to
that of the snapshot with the change, and last ``samples`` gets one, at exactly the version after the snapshot that the change
was made of: it says which versions of the other levels belong to it. Until it is there, nobody sees anything; if another writer
has that version, the change is made anew of the snapshot that is there now. A writer that dies leaves versions that no snapshot
names, and the next one leads back from them.
"""

from __future__ import annotations

import getpass
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import pyarrow as pa

from tensorbank.catalog.changes import (
    COLUMNS_FOLDER,
    DELETED,
    KEYS,
    SORTED_FOLDER,
    Change,
    Published,
    TableVersion,
)
from tensorbank.catalog.key_files import KEYS_SCHEMA
from tensorbank.delta import (
    LevelChange,
    LostCommitError,
    VersionState,
    append_commit,
    change_between,
    commit_actions,
    creation_actions,
    metadata_action,
)
from tensorbank.errors import ConflictError, ErrorKind, InvalidInputError
from tensorbank.index_files import FINITE, LevelFiles
from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema
from tensorbank.layout import index_key
from tensorbank.schema import TableSchema
from tensorbank.storage import Store, backoff_s

__all__ = [
    "COLUMNS",
    "FORMAT",
    "INDEX_VERSION",
    "PIN",
    "SORTED",
    "Levels",
    "commit_info",
    "create_tables",
    "publish",
]

FORMAT = "tensorbank.format"
"""The application id of the transaction whose version is that of the table's format."""
INDEX_VERSION = 2
PIN = "tensorbank.pin."
"""The beginning of application ids of transactions whose version is that of another Delta table of the same snapshot."""
COLUMNS = "tensorbank.columns"
"""The setting of ``samples`` that lists the names of columns which were added later, separated by commas."""
SORTED = "tensorbank.sorted"
"""The setting of ``samples`` that lists the names of its sorted copies, separated by commas."""
MAX_RACES = 50
"""The most races that a commit loses before it gives up: each is against another writer, who went ahead."""
RACE_PAUSE_S = 0.01
DELETED_SCHEMA = pa.schema([*KEYS_SCHEMA, pa.field("part", pa.string())])
SCHEMA_OF: dict[str, Callable[[TableSchema], pa.Schema]] = {
    "samples": samples_schema,
    "tiles": tiles_schema,
    "shards": shards_schema,
}


class Levels(Protocol):
    """The Delta tables of a bank, as a writer asks for them."""

    store: Store

    def head(self, table: str) -> TableVersion:
        """Return the newest version of a table."""
        ...

    def newest(self, table: str, level: str) -> VersionState | None:
        """Return the newest version of a level, None if there is no such Delta table."""
        ...

    def state(self, version: TableVersion, level: str) -> VersionState:
        """Return a level as it is in a version of its table."""
        ...


def publish(
    levels: Levels,
    table: str,
    make: Callable[[TableVersion], Change | None],
    upgrade: Callable[[TableVersion], Change | None],
) -> Published:
    """Make a change of a table visible; one of format 1 is upgraded before, by a change of its own.

    Parameters
    ----------
    make
        Callable that makes the change of the newest version, or None if there is nothing to change. It is called again whenever
        another writer was quicker; what it raises ends the try.
    upgrade
        Callable that makes the change which upgrades a version of format 1.

    Raises
    ------
    ConflictError
        Other writers won every one of many tries.
    StorageError
        The store cannot be written. Whether the change is visible, is not known; it is so as a whole or not at all.
    """
    operation = "a change"
    for attempt in range(MAX_RACES):
        head = levels.head(table)
        is_old = head.pins is None
        change = upgrade(head) if is_old else make(head)
        if change is None:
            return Published(head.version, added=False)
        operation = change.operation
        try:
            _publish(levels, head, change)
        except LostCommitError:
            time.sleep(backoff_s(attempt, RACE_PAUSE_S, max_s=1.0))
            continue
        if not is_old:
            return Published(head.version + 1, added=True)
    raise ConflictError(f"{operation} of {table} lost {MAX_RACES} commits to other writers; try again later")


def create_tables(store: Store, table: str, schema: TableSchema, missing: Callable[[str], bool]) -> None:
    """Create the Delta tables of a table, ``samples`` last; those that are there are kept.

    Raises
    ------
    StorageError
        The store cannot be written.
    """
    for level in ("shards", "tiles", KEYS, "samples"):
        if not missing(level):
            continue
        actions = creation_actions(str(uuid.uuid4()), _columns_of(level, schema), {})
        if level == "samples":
            pins = {f"{PIN}{name}": 0 for name in ("tiles", "shards", KEYS)}
            actions += commit_actions("", LevelChange(), {FORMAT: INDEX_VERSION, FINITE: 1, **pins})
        with suppress(LostCommitError):  # another writer has made it
            append_commit(store, index_key(table, level), 0, actions, commit_info("create", {}, 0, None))


def _publish(levels: Levels, head: TableVersion, change: Change) -> None:
    """Commit the levels that change, then samples; LostCommitError if another writer has the version."""
    schema = change.schema or head.schema
    if clash := sorted({*schema.names} & {*(head.columns if change.columns is None else change.columns)}):
        raise InvalidInputError(
            f"{head.table} has an added column {clash[0]!r}, so that no modality can have that name; drop the column first",
            kind=ErrorKind.BAD_NAME,
        )
    info = commit_info(change.operation, change.details, change.n_rows, change.part)
    pins: dict[str, int] = dict(head.pins or {})
    touched = {level for level, files in change.levels.items() if files}
    touched |= {*change.column_types, *change.settings}
    if head.pins is None:  # of format 1: its levels are pinned from now on
        touched |= {"tiles", "shards", KEYS}
    if change.schema is not None:
        touched |= {"tiles", "shards"}
    for level in sorted(touched - {"samples", *change.pins}):
        columns = change.column_types.get(level) or _columns_of(level, schema)
        files = change.levels.get(level, LevelChange())
        pins[level] = _lead(
            levels,
            head,
            level,
            files,
            columns,
            change.settings.get(level, {}),
            schema if change.schema else None,
            info,
        )
    for level, version in change.pins.items():
        pins[level] = -1 if version is None else version
    said = {FORMAT: INDEX_VERSION, FINITE: 1, **{f"{PIN}{level}": n for level, n in pins.items()}}
    state = levels.state(head, "samples")
    folder = index_key(head.table, "samples")
    samples = _onto(state, change.levels.get("samples", LevelChange()))
    actions = commit_actions(folder, samples, said)
    settings = dict(state.configuration)
    if change.columns is not None:
        settings[COLUMNS] = ",".join(change.columns)
    if change.sorted_copies is not None:
        settings[SORTED] = ",".join(change.sorted_copies)
    columns = _merged(state.columns, samples_schema(schema), head.schema, schema)
    if columns is not None or settings != state.configuration:
        actions.insert(0, metadata_action(head.table_id, columns or state.columns, settings))
    append_commit(levels.store, folder, head.version + 1, actions, info)


def _lead(
    levels: Levels,
    head: TableVersion,
    level: str,
    change: LevelChange,
    columns: pa.Schema,
    settings: Mapping[str, str],
    schema: TableSchema | None,
    info: Mapping[str, Any],
) -> int:
    """Commit what leads from the newest version of a level to a snapshot's with a change; return the version that has it."""
    folder = index_key(head.table, level)
    visible: tuple[str, int] | None = None
    if head.pins is not None and head.has(level):
        pinned = levels.state(head, level)
        visible = pinned.table_id, pinned.version
    for attempt in range(MAX_RACES):
        newest = levels.newest(head.table, level)
        try:
            if newest is None:
                actions = creation_actions(str(uuid.uuid4()), columns, settings)
                actions += commit_actions(folder, change, {})
                append_commit(levels.store, folder, 0, actions, info)
                return 0
            if visible is not None and (newest.table_id, newest.version) == visible:
                rest = _onto(newest, change)
            else:
                wanted = _visible(levels, head, level) or replace(newest.files, files=())
                rest = change_between(newest.files, wanted, change)
            actions = commit_actions(folder, rest, {})
            if level.startswith(
                f"{COLUMNS_FOLDER}/"
            ):  # its values may be of another type than those of a dropped one
                merged = columns if columns.types != newest.columns.types else None
            else:
                merged = _merged(newest.columns, columns, head.schema, schema or head.schema)
            said = {**newest.configuration, **settings}
            if merged is not None or said != newest.configuration:
                actions.insert(0, metadata_action(newest.table_id, merged or newest.columns, said))
            if not actions:
                return newest.version
            append_commit(levels.store, folder, newest.version + 1, actions, info)
        except LostCommitError:
            time.sleep(backoff_s(attempt, RACE_PAUSE_S, max_s=1.0))
            continue
        return newest.version + 1
    raise ConflictError(f"{head.table}.{level} lost {MAX_RACES} commits to other writers; try again later")


def _onto(state: VersionState, change: LevelChange) -> LevelChange:
    """Return a change as a commit right after a version makes it.

    A file that is written anew with the rows that it had is the same file: it must not be removed as well.
    Where nothing is removed, the files that are there need not be known.
    """
    return change_between(state.files, state.files, change) if change.removed else change


def _visible(levels: Levels, head: TableVersion, level: str) -> LevelFiles | None:
    """Return the files of a level in a snapshot, None if it has no such level; of format 1 those of parts that it shows."""
    if not head.has(level):
        return None
    files = levels.state(head, level).files
    parts = head.samples.parts
    return files.of_parts(parts) if head.pins is None and parts is not None else files


def _columns_of(level: str, schema: TableSchema) -> pa.Schema:
    if level == KEYS:
        return KEYS_SCHEMA
    if level == DELETED:
        return DELETED_SCHEMA
    if level.startswith(f"{COLUMNS_FOLDER}/"):
        raise ValueError(f"{level} has columns of its own")
    return SCHEMA_OF["samples" if level.startswith(f"{SORTED_FOLDER}/") else level](schema)


def _merged(there: pa.Schema, wanted: pa.Schema, before: TableSchema, after: TableSchema) -> pa.Schema | None:
    """Return the columns of a Delta table after a change, None if they stay."""
    dropped = {*before.names} - {*after.names}
    kept = [field for field in there if field.name not in dropped]
    new = [field for field in wanted if there.get_field_index(field.name) < 0]
    changed = [
        m.name
        for m in after
        if m.name in before.names and before[m.name] != m and there.get_field_index(m.name) >= 0
    ]
    is_moved = (
        before.names != after.names
    )  # as by a version that comes back, with other places of its modalities
    if not new and len(kept) == len(there) and not changed and not is_moved:
        return None
    fields = [wanted.field(f.name) if f.name in changed else f for f in kept]
    every = {field.name: field for field in (*fields, *new)}
    placed = [name for name in after.names if name in every]
    if [name for name in every if name in after.names] != placed:  # one comes back to where it was
        every = {name: every[name] for name in (*(n for n in every if n not in after.names), *placed)}
    fields = list(every.values())
    return None if fields == list(there) else pa.schema(fields)


def commit_info(operation: str, details: Mapping[str, Any], n_rows: int, part: str | None) -> dict[str, Any]:
    """Return the ``commitInfo`` of a commit."""
    return {
        "timestamp": int(time.time() * 1000),
        "operation": "WRITE" if n_rows else operation.upper(),
        "operationParameters": {},
        "engineInfo": "tensorbank",
        "tensorbank.id": str(uuid.uuid4()),
        "tensorbank.operation": operation,
        "tensorbank.who": _who(),
        "tensorbank.n_rows": n_rows,
        **({"tensorbank.part": part} if part else {}),
        **{f"tensorbank.{name}": value for name, value in details.items()},
    }


def _who() -> str:
    """Return the user and the machine, for the history."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
