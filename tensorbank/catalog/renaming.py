"""Renaming of tables: index and tags go to another name, tensors stay where they are.

The new name is marked first, as one that leads to the old one, so that nobody takes it for a table while index and tags are
copied below it. Then one commit to the old log, at exactly the next version, says the new name: who wrote to the table meanwhile
was either first, and is copied too, or loses. That commit is copied last, and as the mark of the new name goes, the table moves.
Then a mark takes the place of the old index. The commits of the old log stay, without the first one that all others need: who has
read the table before finds their numbers taken, whenever it commits. Leases, and marks of expired versions, stay below the name
for which they were written: who holds a lease goes on to write it there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from tensorbank.catalog.changes import TableVersion
from tensorbank.catalog.copies import TENSORS, origins_of
from tensorbank.catalog.publishing import MAX_RACES, commit_info
from tensorbank.catalog.table_names import RENAMED
from tensorbank.delta import LostCommitError, append_commit, metadata_action
from tensorbank.errors import ConflictError, ErrorKind, IntegrityError, InvalidInputError, NotFoundError
from tensorbank.index_files import LAST_CHECKPOINT, LOG, commit_name, commits_in
from tensorbank.layout import index_key
from tensorbank.storage import Store

if TYPE_CHECKING:
    from tensorbank.catalog.catalog import Catalog

__all__ = ["NAME", "leads_to", "new_name_of", "raise_renamed", "rename_table"]

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


def leads_to(store: Store, name: str) -> str | None:
    """Return the name that markers lead to, one after the other; the name itself if it has none, None for a circle."""
    met: set[str] = set()
    while (to := new_name_of(store, name)) is not None:
        if to in met:
            return None
        met.add(to)
        name = to
    return name


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
    store = catalog.store
    for _ in range(MAX_RACES):
        if (marker := new_name_of(store, old)) is not None:
            return _completed(catalog, old, new, marker)
        try:
            said, head = catalog.renamed_head(old)
        except (NotFoundError, IntegrityError):
            if new_name_of(store, old) is None:
                raise
            continue  # another one has completed it
        if said is not None:
            if said != new:
                raise ConflictError(f"{old} was renamed to {said} meanwhile", kind=ErrorKind.LOST_RACE)
            break
        if head.pins is None:
            raise InvalidInputError(
                f"{old} is of format 1; its next commit upgrades it, and then it can be renamed"
            )
        if new_name_of(store, new) != old:
            _require_free(store, head, new)
            _mark(store, new, old)
            continue  # another one may have completed it
        while not _copy(
            store, old, new, [info.key for name in MOVED for info in store.objects(f"{old}/{name}")]
        ):
            pass  # a collection took something away meanwhile, and put a checkpoint in its place
        with suppress(LostCommitError):
            _say(catalog, head, new)
    else:
        raise ConflictError(f"renaming {old} lost {MAX_RACES} commits to other writers; try again later")
    # What is left to copy are the commit that says the name, and tags of who was quicker.
    _copy(store, old, new, [info.key for info in store.objects(f"{old}/tags")])
    _copy(store, old, new, [f"{_log_of(old)}{commit_name(head.version)}"])
    store.delete(f"{_log_of(new)}{RENAMED}")
    _mark(store, old, new)
    return _completed(catalog, old, new, new)


def _completed(catalog: Catalog, old: str, new: str, marker: str) -> int:
    """Remove what is left below a name that leads to another one, and return the version of the table."""
    store = catalog.store
    if marker != new:
        raise NotFoundError(f"{old} was renamed to {marker}", kind=ErrorKind.UNKNOWN_TABLE)
    if new_name_of(store, new) == old:  # of who began to do the same, and was late
        store.delete(f"{_log_of(new)}{RENAMED}")
    first = commit_name(0)
    for key in [info.key for name in MOVED for info in store.objects(f"{old}/{name}")]:
        name = key.removeprefix(_log_of(old))
        if name != RENAMED and (name == first or not commits_in([name])):
            store.delete(key)
    return catalog.version(new).version


def _log_of(table: str) -> str:
    return f"{index_key(table, 'samples')}/{LOG}/"


def _mark(store: Store, name: str, to: str) -> None:
    """Write the marker by which a name leads to another one."""
    store.put(f"{_log_of(name)}{RENAMED}", json.dumps({"to": to}).encode())


def _require_free(store: Store, head: TableVersion, new: str) -> None:
    """Raise InvalidInputError if the log of the new name has a commit that is none of the table's."""
    for info in store.objects(_log_of(new).rstrip("/")):
        name = info.key.removeprefix(_log_of(new))
        for version in commits_in([name]):
            try:
                is_same = store.get(info.key) == store.get(f"{_log_of(head.table)}{name}")
            except NotFoundError:  # the other table has more versions, or a collection has removed it here
                is_same = version <= head.version and leads_to(store, new) == head.table
            if not is_same:
                raise _taken(new)


def _copy(store: Store, old: str, new: str, keys: Iterable[str]) -> bool:
    """Copy objects below the new name; False if one was removed meanwhile."""

    def copy(key: str) -> bool:
        to = f"{new}/{key.removeprefix(f'{old}/')}"
        try:
            data = store.get(key)
        except NotFoundError:
            return False
        if not commits_in([key.rpartition("/")[2]]):
            store.put(to, data)
        elif not store.claim(to, data):
            raise _taken(new)
        return True

    wanted = [key for key in keys if not key.endswith((f"/{LAST_CHECKPOINT}", f"/{RENAMED}"))]
    with ThreadPoolExecutor(N_THREADS) as pool:
        return all([*pool.map(copy, wanted)])


def _say(catalog: Catalog, head: TableVersion, new: str) -> None:
    """Commit the new name to the old log, at exactly the next version."""
    state = catalog.state(head, "samples")
    tables = dict.fromkeys((*origins_of(state), head.table))
    settings = {**state.configuration, NAME: new, TENSORS: ",".join(name for name in tables if name != new)}
    actions = [metadata_action(head.table_id, state.columns, settings)]
    info = commit_info("rename", {"renamed_from": head.table, "renamed_to": new}, 0, None)
    append_commit(catalog.store, index_key(head.table, "samples"), head.version + 1, actions, info)


def _taken(new: str) -> InvalidInputError:
    return InvalidInputError(
        f"there is a table {new!r} already, or it was written to while it got its name; take another name",
        kind=ErrorKind.EXISTS,
    )
