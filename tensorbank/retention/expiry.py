"""The expiry of versions: marks in a bank that say which versions a collection removes, written before anything of them goes.

A mark is one object, ``<table>/expired/<id>.json``, which is never changed: a later one that says as much takes its place. Who
would keep an old version, by a tag, a copy or a restoration, notes that first, as a tag or a lease, and then asks for marks; a
collection writes its mark first, and then asks for tags and leases. So at least one of the two sees the other.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tensorbank.catalog import Catalog, TableVersion
from tensorbank.errors import ErrorKind, IntegrityError, NotFoundError, StorageError, TensorBankError
from tensorbank.retention.leases import Lease, lease_key
from tensorbank.retention.owners import this_process
from tensorbank.retention.sealed_json import opened, sealed
from tensorbank.storage import Store

__all__ = [
    "EXPIRED",
    "Expired",
    "expired_versions",
    "kept_meanwhile",
    "mark_expired",
    "require_kept",
    "telling_expired",
]

EXPIRED = "expired"
FORMAT = 1
HELD_S = 900.0
"""Seconds that a version is kept while it is copied or restored."""
_GONE = (ErrorKind.NO_OBJECT, ErrorKind.NOT_FOUND, ErrorKind.MISSING_FILE, ErrorKind.DAMAGED_LOG)
"""The kinds of errors by which a version shows that something of it was removed."""


@dataclass(frozen=True)
class Expired:
    """The versions of a table that marks say, and the keys of these marks."""

    versions: frozenset[int]
    keys: tuple[str, ...]


def expired_versions(store: Store, names: Sequence[str], table_id: str) -> Expired:
    """Return the versions that collections have removed, or are about to.

    Parameters
    ----------
    names
        The names that the table has and had.

    Raises
    ------
    IntegrityError
        A mark is damaged.
    StorageError
        The store does not answer.
    """
    versions: set[int] = set()
    keys = []
    for key in (info.key for name in names for info in store.objects(f"{name}/{EXPIRED}")):
        try:
            fields = opened(store.get(key), f"{store.url}/{key}")
        except NotFoundError:  # another one took its place
            continue
        try:
            if (fields["format"], fields["kind"]) != (FORMAT, "expired"):
                raise ValueError("another format")
            if fields["table_id"] == table_id:
                keys.append(key)
                for first, end in fields["versions"]:
                    versions.update(range(int(first), int(end)))
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"{store.url}/{key} holds no mark that this version reads: {error}; restore it"
            ) from error
    return Expired(frozenset(versions), tuple(keys))


def mark_expired(store: Store, names: Sequence[str], table_id: str, versions: Collection[int]) -> None:
    """Say that versions of a table are removed from now on; nothing is written if that is said already.

    Raises
    ------
    IntegrityError
        A mark is damaged.
    StorageError
        The store cannot be written.
    """
    before = expired_versions(store, names, table_id)
    if before.versions >= {*versions}:
        return
    said = [*_intervals(sorted(before.versions | {*versions}))]
    mark_id = hashlib.sha256(f"{table_id} {said}".encode()).hexdigest()[
        :32
    ]  # the same for all who say the same
    fields = {"format": FORMAT, "kind": "expired", "id": mark_id, "versions": said, "table_id": table_id}
    key = f"{names[0]}/{EXPIRED}/{mark_id}.json"
    store.put(key, sealed(fields))
    for other in before.keys:
        if other != key:
            store.delete(other)


def _intervals(versions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield half-open intervals of sorted numbers."""
    first = None
    for place, version in enumerate(versions):
        first = version if first is None else first
        if place + 1 == len(versions) or versions[place + 1] > version + 1:
            yield first, version + 1
            first = None


def require_kept(catalog: Catalog, version: TableVersion) -> None:
    """Raise NotFoundError if a version was removed by a collection, or is about to be."""
    names = catalog.names_of(catalog.version(version.table))
    if version.version in expired_versions(catalog.store, names, version.table_id).versions:
        raise _expired(version.table, version.version)


@contextmanager
def kept_meanwhile(catalog: Catalog, version: TableVersion, what: str) -> Iterator[None]:
    """Keep a version while it is copied or restored.

    Raises
    ------
    NotFoundError
        It has expired.
    StorageError
        The store cannot be written.
    """
    now = datetime.now(UTC)
    lease = Lease(
        f"{what}-{uuid.uuid4().hex}",
        version.table_id,
        (version.version,),
        now,
        now + timedelta(seconds=HELD_S),
        this_process(),
    )
    key = lease_key(version.table, lease.id)
    catalog.store.put(key, lease.to_bytes())
    try:
        require_kept(catalog, version)
        yield
    finally:
        catalog.store.delete(key)


@contextmanager
def telling_expired(catalog: Catalog, versions: Mapping[str, int | None]) -> Iterator[None]:
    """Raise NotFoundError where something is missing of versions of tables that have expired; None is the newest version."""
    try:
        yield
    except (NotFoundError, IntegrityError, StorageError) as error:
        if error.kind not in _GONE:
            raise
        for table, version in versions.items():
            found: frozenset[int] = frozenset()
            with suppress(TensorBankError):  # as where nothing can be listed
                head = catalog.version(table)
                names = catalog.names_of(head)
                found = expired_versions(catalog.store, names, head.table_id).versions
            if version is not None and version in found:
                raise _expired(table, version) from error
        raise


def _expired(table: str, version: int | None) -> NotFoundError:
    return NotFoundError(
        f"version {version} of {table} has expired, and `tensorbank gc` has removed it, or begun to; see `tensorbank history` "
        "for others, and keep versions by `tensorbank tag`",
        kind=ErrorKind.UNKNOWN_SNAPSHOT,
    )
