"""A bank on a web server that only serves files: no listing, names that can be predicted are tried.

Such a bank is a folder that was copied to where files are served by ``https://``, with ranges. Files of a Delta log are numbered,
so that they are found by asking for one after the other from the last checkpoint on. Names of tables are not: they are in
``tables.json`` beside the tables, a JSON list of names or what ``tensorbank tables BANK --json`` prints; a table that is asked
for by its name is found without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tensorbank.errors import ErrorKind, FormatError, NotFoundError
from tensorbank.index_files.delta_log import LAST_CHECKPOINT, LOG, checkpoint_name, commit_name, seal_name
from tensorbank.storage import ObjectInfo, Store

__all__ = ["TABLES", "has_log", "is_static", "log_files", "table_names"]

TABLES = "tables.json"
N_AT_ONCE = 16
"""The number of names that are tried before an answer is known;
a log without a checkpoint has a hundred commits at most."""


def is_static(store: Store) -> bool:
    """Tell whether files of a store can be found only by their names."""
    return store.url.startswith(("http://", "https://"))


def table_names(store: Store) -> list[str]:
    """Return the names of the tables, sorted.

    Raises
    ------
    NotFoundError
        The bank has no list of them.
    FormatError
        The list is none.
    """
    try:
        found = json.loads(store.get(TABLES))
        return sorted(str(entry["table"] if isinstance(entry, dict) else entry) for entry in found)
    except NotFoundError:
        store.require_store()
        raise NotFoundError(
            f"{store.url} is served as files, which are not listed, and has no {TABLES}: name the table, or write that file by "
            f"`tensorbank tables BANK --json > {TABLES}` where the bank was made",
            kind=ErrorKind.NO_LIST_OF_TABLES,
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{store.url}/{TABLES} is not a list of tables: {error}; is this the address of a bank?",
            kind=ErrorKind.LIST_OF_TABLES,
        ) from error


def has_log(store: Store, key: str) -> bool:
    """Tell whether there is a Delta table at a key."""
    return any(store.exists(f"{key}/{LOG}/{name}") for name in (commit_name(0), LAST_CHECKPOINT))


def log_files(store: Store, key: str, version: int | None, *, whole: bool) -> dict[str, ObjectInfo]:
    """Return the files of a log by name: the last checkpoint and what came after it;
    from the first commit on where that is not enough.
    """
    store.require_store()
    last = _last_checkpoint(store, key)
    if last is None or (version is not None and version < last):
        return _commits_from(store, key, 0)
    found = _known(store, key, [checkpoint_name(last), seal_name(last)]) | _commits_from(store, key, last)
    if whole:
        found |= _known(store, key, map(commit_name, range(last)))
    return found


def _last_checkpoint(store: Store, key: str) -> int | None:
    """Return the version of the last checkpoint that is one file."""
    where = f"{key}/{LOG}/{LAST_CHECKPOINT}"
    try:
        found = json.loads(store.get(where))
        return None if found.get("parts") else int(found["version"])
    except NotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{store.url}/{where} is not a valid hint of a checkpoint: {error}", kind=ErrorKind.LOG_FORMAT
        ) from error


def _commits_from(store: Store, key: str, first: int) -> dict[str, ObjectInfo]:
    found: dict[str, ObjectInfo] = {}
    while True:
        names = [commit_name(first + i) for i in range(N_AT_ONCE)]
        there = _known(store, key, names)
        found |= there
        if len(there) < len(names):
            return found
        first += len(names)


def _known(store: Store, key: str, names: Iterable[str]) -> dict[str, ObjectInfo]:
    """Return those of the named files that the log has."""

    def look(name: str) -> ObjectInfo | None:
        try:
            return store.info(f"{key}/{LOG}/{name}")
        except NotFoundError:
            return None

    asked = list(names)
    with ThreadPoolExecutor(N_AT_ONCE) as pool:
        return {
            name: info for name, info in zip(asked, pool.map(look, asked), strict=True) if info is not None
        }
