"""Try out what answers for a store: whether it is one, whether it arbitrates between writers, and what time it has."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from tensorbank.errors import ConflictError, ErrorKind, NotFoundError, StorageError
from tensorbank.storage.retries import OBJECT_POLICIES, retrying

if TYPE_CHECKING:
    from tensorbank.storage.store import Store

__all__ = ["PROBE", "arbitrates_writers", "require_store", "time_of_store"]

PROBE = ".tensorbank-probe-"
"""The beginning of the names of objects that are written to try a store."""
logger = logging.getLogger(__name__)


def arbitrates_writers(store: Store) -> bool:
    """Tell whether a second conditional create of one key is refused,
    tried on an object that is then removed.

    Each try writes a token of its own. A try whose answer was lost is repeated and meets its own object, which its token tells
    from another's.

    Raises
    ------
    StorageError
        The store cannot be written, or does not give back what was written.
    """
    with _probe(store) as key:
        return not _wins(store, key, b"first") or not _wins(store, key, b"second")


def time_of_store(store: Store) -> datetime:
    """Return the time by the clock of a store, in UTC, to the second or better: that of an object which is written and removed.

    Raises
    ------
    StorageError
        The store cannot be written.
    """
    with _probe(store) as key:
        store.put(key, b"what time is it")
        return datetime.fromtimestamp(store.info(key).written_s, UTC)


@contextmanager
def _probe(store: Store) -> Iterator[str]:
    """Give the key of an object for the block, and remove the object."""
    key = f"{PROBE}{uuid.uuid4()}"
    try:
        yield key
    finally:
        try:
            store.delete(key)
        except StorageError as error:
            logger.warning("%s/%s, which tried the store, could not be removed: %s", store.url, key, error)


def require_store(store: Store) -> None:
    """Raise StorageError if every address is answered, as by the page of a login or of another site."""
    try:
        store.info(f"{PROBE}{uuid.uuid4()}")
    except NotFoundError:
        return
    except StorageError as error:
        if error.kind not in (ErrorKind.DENIED, ErrorKind.REFUSED):
            raise
        return  # a store may keep silent about what is not there
    raise _no_store(store, "it answers for every address, as a login page or another site does")


def _wins(store: Store, key: str, name: bytes) -> bool:
    """Tell whether a conditional create of a key made the object that is there."""
    token = name + b" " + uuid.uuid4().hex.encode()
    with suppress(ConflictError):
        retrying(OBJECT_POLICIES, partial(store.create, key, token))
    there = store.get(key)
    if there != token and not re.fullmatch(rb"(first|second) [0-9a-f]{32}", there):
        raise _no_store(store, "it does not give back what was written")
    return there == token


def _no_store(store: Store, why: str) -> StorageError:
    endpoint = store.options.endpoint
    at = f" at {endpoint}" if endpoint else ""
    return StorageError(
        f"what answers for {store.url}{at} is not an object store ({why}); check the address and the endpoint",
        kind=ErrorKind.NOT_A_STORE,
    )
