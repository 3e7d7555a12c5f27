"""Renaming of tables: the index goes to another name, tensors stay where they are.

Index and tags are copied first. The new name can be read from one object on, the commit of the newest version, beside
which lies a checkpoint; earlier commits follow. Then one commit to the old log, at exactly the next version, says the new name:
from then on the old name is refused, and who wrote to it meanwhile was either first, and is copied too, or loses. Last, a marker
takes the place of the old log. Leases, and marks of expired versions, stay below the name for which they were written: who holds
a lease goes on to write it there.

A table can get a name back that it had before: its marker leads to the table, and is removed when the log is complete again.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from tensorbank.catalog.changes import TableVersion
from tensorbank.catalog.copies import TENSORS, origins_of
from tensorbank.catalog.publishing import MAX_RACES, commit_info
from tensorbank.catalog.table_names import RENAMED
from tensorbank.delta import LostCommitError, append_commit, metadata_action, write_checkpoint
from tensorbank.errors import ConflictError, ErrorKind, InvalidInputError, NotFoundError
from tensorbank.index_files import LAST_CHECKPOINT, LOG, commit_name
from tensorbank.layout import index_key
from tensorbank.storage import Store

if TYPE_CHECKING:
    from tensorbank.catalog.catalog import Catalog

__all__ = ["NAME", "new_name_of", "raise_renamed", "rename_table", "was_name_of"]

NAME = "tensorbank.name"
"""The setting of ``samples`` that says the name of a table which was renamed."""
N_THREADS = 8
MOVED = ("index", "tags")
"""The folders that go to the new name. Others stay below the name for which they were written."""


def new_name_of(store: Store, table: str) -> str | None:
    """Return the name that a table was given, None if it was given none."""
    try:
        return str(json.loads(store.get(f"{index_key(table, 'samples')}/{LOG}/{RENAMED}"))["to"])
    except (NotFoundError, ValueError, KeyError, TypeError):
        return None


def was_name_of(store: Store, name: str, table: str) -> bool:
    """Tell whether a table had a name before: the markers lead from one name to the next, up to the table's own."""
    met: set[str] = set()
    at: str | None = name
    while at is not None and at not in met:
        met.add(at)
        at = table if at == table else new_name_of(store, at)
        if at == table:
            return name != table
    return False


def raise_renamed(table: str, said: str | None) -> None:
    """Raise NotFoundError if a table has another name by now."""
    if said is not None and said != table:
        raise NotFoundError(
            f"table {table} was renamed to {said}; ask for that one", kind=ErrorKind.UNKNOWN_TABLE
        )


def rename_table(catalog: Catalog, old: str, new: str) -> int:
    """Give a table another name, and return its version. The same call completes a renaming that was stopped.

    Raises
    ------
    NotFoundError
        There is no such table.
    InvalidInputError
        There is another table of the new name, or the table is of format 1.
    ConflictError
        Another writer gave the table another name, or won every one of many tries.
    """
    store, marker = catalog.store, new_name_of(catalog.store, old)
    if marker is not None:
        if marker != new:
            raise NotFoundError(f"{old} was renamed to {marker}", kind=ErrorKind.UNKNOWN_TABLE)
        _remove(store, old)
        return catalog.version(new).version
    for attempt in range(MAX_RACES):
        said, head = catalog.renamed_head(old)
        if said is not None:
            if said != new:
                raise ConflictError(f"{old} was renamed to {said} meanwhile", kind=ErrorKind.LOST_RACE)
            break
        if head.pins is None:
            raise InvalidInputError(
                f"{old} is of format 1; its next commit upgrades it, and then it can be renamed"
            )
        if attempt == 0 and new_name_of(store, new) is not None:
            _remove(store, new)  # what a stopped renaming has left of its own earlier log
        _copy(catalog, head, new)
        with suppress(LostCommitError):
            _say(catalog, head, new)
    else:
        raise ConflictError(f"renaming {old} lost {MAX_RACES} commits to other writers; try again later")
    name = commit_name(head.version)
    log = f"{index_key('{}', 'samples')}/{LOG}/{name}"
    if not store.claim(log.format(new), store.get(log.format(old))):
        raise _taken(new)
    for info in store.objects(f"{old}/tags"):  # of who was quicker than the new name
        with suppress(NotFoundError):
            store.claim(f"{new}/{info.key.removeprefix(f'{old}/')}", store.get(info.key))
    store.delete(f"{index_key(new, 'samples')}/{LOG}/{RENAMED}")
    store.put(f"{index_key(old, 'samples')}/{LOG}/{RENAMED}", json.dumps({"to": new}).encode())
    _remove(store, old)
    return catalog.version(new).version


def _copy(catalog: Catalog, head: TableVersion, new: str) -> None:
    """Copy index and tags below the new name; what is there already is compared."""
    store, old = catalog.store, head.table
    log = f"{index_key(old, 'samples')}/{LOG}/"
    keys = [
        info.key
        for folder in MOVED
        for info in store.objects(f"{old}/{folder}")
        if not info.key.endswith((LAST_CHECKPOINT, RENAMED))
    ]
    commits = {key for key in keys if key.startswith(log)}  # and checkpoints

    def copy(key: str) -> None:
        try:
            same = store.claim(f"{new}/{key.removeprefix(f'{old}/')}", store.get(key))
        except NotFoundError:  # the other table has more versions, or it was removed meanwhile
            same = key in keys
        if not same:
            raise _taken(new)

    there = f"{index_key(new, 'samples')}/{LOG}/"
    for info in store.objects(there.rstrip("/")):
        if info.key.endswith(".json") and not info.key.endswith(RENAMED):
            copy(f"{log}{info.key.removeprefix(there)}")  # of an earlier try, or of another table
    with ThreadPoolExecutor(N_THREADS) as pool:
        list(pool.map(copy, [key for key in keys if key not in commits]))
    for key in sorted(
        key for key in commits if not key.endswith(".json")
    ):  # a checksum before its checkpoint
        store.put(f"{new}/{key.removeprefix(f'{old}/')}", store.get(key))
    newest = f"{log}{commit_name(head.version)}"
    if not store.exists(f"{index_key(new, 'samples')}/{LOG}/{commit_name(head.version)}"):
        log_copy = catalog.mirror.log(index_key(old, "samples"), head.version)
        write_checkpoint(store, index_key(new, "samples"), log_copy)
        copy(newest)
    for version in range(head.version - 1, -1, -1):
        if (key := f"{log}{commit_name(version)}") in commits:
            copy(key)


def _say(catalog: Catalog, head: TableVersion, new: str) -> None:
    """Commit the new name to the old log, at exactly the next version."""
    state = catalog.state(head, "samples")
    tables = dict.fromkeys((*origins_of(state), head.table))
    settings = {**state.configuration, NAME: new, TENSORS: ",".join(name for name in tables if name != new)}
    actions = [metadata_action(head.samples.table_id, state.columns, settings)]
    info = commit_info("rename", {"renamed_from": head.table, "renamed_to": new}, 0, None)
    append_commit(catalog.store, index_key(head.table, "samples"), head.version + 1, actions, info)


def _remove(store: Store, old: str) -> None:
    """Remove index and tags of a table whose marker is there."""
    for folder in MOVED:
        for key in sorted(info.key for info in store.objects(f"{old}/{folder}")):
            if not key.endswith(f"/{RENAMED}"):
                store.delete(key)


def _taken(new: str) -> InvalidInputError:
    return InvalidInputError(
        f"there is a table {new!r} already, or it was written to while it got its name; take another name",
        kind=ErrorKind.EXISTS,
    )
