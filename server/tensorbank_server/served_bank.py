"""One bank as a service reads it: its tables at their versions, its samples by id, and the addresses of its shards."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tensorbank.bank import Bank, LocalEngine
from tensorbank.catalog import DELETED, Catalog
from tensorbank.errors import ErrorKind, NotFoundError, TensorBankError
from tensorbank.fetch import Fetcher, FetchOptions
from tensorbank.index_files import IndexMirror
from tensorbank.layout import check_table_name
from tensorbank.retention import LIFETIME_S, LeaseHolder, Reading, Tag, are_off, list_tags
from tensorbank.schema import TableSchema
from tensorbank.storage import Store, normalize_url, with_surroundings
from tensorbank_server.access import FolderKeys, assume, read_policy
from tensorbank_server.documents import RowFiles, SampleTable
from tensorbank_server.recent import Recent
from tensorbank_server.settings import BankSettings, Settings
from tensorbank_server.workers.bulkheads import Bulkhead
from tensorbank_server.workers.process import BankAddress
from tensorbank_server.workers.watches import Watch

__all__ = ["PROBE_AGAIN_S", "PROBE_S", "Pinned", "ServedBank", "VersionText", "as_version"]

VersionText = int | str
"""A version as a caller gives it: its number, also as a text, a tag, or a time such as ``2026-03-01``."""

MAX_VERSION = 2**53
"""The greatest number that JSON's readers take for what it is."""
MAX_TABLES = 64
"""The most tables whose sample ids are kept open."""
MAX_PINS = 1_000
"""The most tables at a version that are remembered."""
MAX_SIZES = 100_000
"""The most sizes of shards that are remembered."""
MAX_DOCUMENTS = 64
"""The most documents of arrays that are remembered."""
MAX_EXTENTS = 1_000
"""The most tables whose extent is remembered."""
PROBE_S = 10.0
"""Seconds between two looks at a bank that is well."""
PROBE_AGAIN_S = 1.0
"""Seconds between two looks at a bank that cannot be read, which is used again as soon as it can be."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pinned:
    """A table at a version, as one request sees it. ``explicit`` is True if the caller chose the version."""

    bank: ServedBank
    table: str
    version: int
    table_id: str
    schema: TableSchema
    explicit: bool

    @property
    def versions(self) -> dict[str, int]:
        return {self.table: self.version}


def as_version(given: VersionText | None) -> VersionText | None:
    """Return a version as a caller gave it, a number that came as a text as a number.

    Raises
    ------
    NotFoundError
        The number is greater than that of any version.
    """
    version = int(given) if isinstance(given, str) and given.isdecimal() else given
    if isinstance(version, int) and version > MAX_VERSION:
        raise NotFoundError(f"there is no version {version}", kind=ErrorKind.UNKNOWN_SNAPSHOT)
    return version


class ServedBank:
    """A bank, and the means to read it. May be used from many threads."""

    def __init__(
        self, name: str, settings: BankSettings, cache: Path, files: RowFiles, given: Settings
    ) -> None:
        self.name = name
        self.settings = settings
        url = normalize_url(settings.url)
        self.address = BankAddress(url, with_surroundings(url, settings.storage()))
        self.store = Store(self.address.url, self.address.storage)
        self.bank = Bank(LocalEngine(Catalog(self.store, IndexMirror(self.store, cache))))
        limits = given.limits
        self.fetcher = Fetcher(self.store, FetchOptions(patience_s=limits.bank_s))
        self.watch = Watch(
            f"bank {name}",
            self._look,
            every_s=PROBE_S,
            again_s=PROBE_AGAIN_S,
            limit_s=given.bank_probe_s,
        )
        self._bulkhead = Bulkhead(
            name,
            n_threads=given.n_threads,
            max_waiting=limits.bank_waiting,
            max_per_caller=limits.max_concurrent_per_key,
            limit_s=limits.bank_s,
            watch=self.watch,
        )
        self.run = self._bulkhead.run
        self.work = self._bulkhead.work
        self.check = self._bulkhead.check
        self.waiting = self._bulkhead.waiting
        self._signer = Store(
            self.address.url, replace(self.address.storage, endpoint=settings.public_endpoint)
        )
        if settings.public_endpoint is None:
            self._signer = self.store
        self._files = files
        self._latest_s = given.latest_s
        self._latest: dict[str, tuple[float, int]] = {}
        self._tables: dict[tuple[str, int], SampleTable] = {}
        self._documents: Recent[str, dict[str, Any]] = Recent(MAX_DOCUMENTS)
        self._sizes: Recent[str, int] = Recent(MAX_SIZES)
        self.extents: Recent[tuple[str, int], dict[str, Any]] = Recent(MAX_EXTENTS)
        self._pins: Recent[tuple[str, int], Pinned] = Recent(MAX_PINS)
        self._names: tuple[float, list[str]] | None = None
        self._lock = threading.Lock()
        writable = not self.store.url.startswith(("http:", "https:")) and not self.address.storage.anonymous
        self._leases = None
        if settings.leases and writable and not are_off():
            self._leases = LeaseHolder(self.store, idle_s=given.url_lifetime_s + LIFETIME_S)

    def protect(self, table: str, table_id: str, version: int) -> None:
        """Hold a lease on a snapshot that a caller reads, until URLs that it may have been given are over.

        Takes no time: a thread writes to the store, and says once if it may not.
        """
        if self._leases is not None:
            self._leases.hold([Reading(table, table_id, version)])

    def tables(self) -> list[str]:
        """Return the names of the tables."""
        now_s = time.monotonic()
        if self._names is None or now_s - self._names[0] > self._latest_s:
            self._names = (now_s, self.bank.tables())
        return self._names[1]

    def known(self, table: str, version: int | None) -> Pinned | None:
        """Return what :meth:`pin` would find, if that takes no look at the store; None otherwise."""
        wanted = version
        if wanted is None:
            asked_s, newest = self._latest.get(table, (-math.inf, 0))
            if time.monotonic() - asked_s > self._latest_s:
                return None
            wanted = newest
        found = self._pins.get((table, wanted))
        return None if found is None else replace(found, explicit=version is not None)

    def pin(self, table: str, version: int | None) -> Pinned:
        """Return a table at a version, the newest if None.

        Raises
        ------
        NotFoundError
            There is no such table or version.
        """
        try:
            check_table_name(table)
        except TensorBankError:
            raise NotFoundError("no such table", kind=ErrorKind.UNKNOWN_TABLE) from None
        explicit = version is not None
        if version is None:
            version = self._newest(table)
        files = self.bank.catalog.files(table, "samples", version)
        schema = self.bank.catalog.schema(table, version)
        found = Pinned(self, table, version, files.table_id, schema, explicit)
        return self._pins.put((table, version), found)

    def pin_named(self, table: str, name: str) -> Pinned:
        """Return a table at the version that a tag or a time means now: a tag may be made anew, so it is looked up each time.

        Raises
        ------
        NotFoundError
            There is no such table or tag, or the table is younger than the time.
        InvalidInputError
            The text is neither.
        """
        self.pin(table, None)  # an unknown table is told before an unknown tag
        version = self.bank.engine.version_of(table, name)
        return replace(self.pin(table, version), explicit=False)

    def tags(self, table: str, table_id: str) -> list[Tag]:
        """Return the tags of a table by their names, but damaged ones, and those of a table that was there before."""
        return [tag for tag in list_tags(self.store, table)[0] if tag.table_id == table_id]

    def _newest(self, table: str) -> int:
        now_s = time.monotonic()
        known = self._latest.get(table)
        if known is None or now_s - known[0] > self._latest_s:
            known = (now_s, self.bank.catalog.files(table, "samples").version)
            self._latest[table] = known
        return known[1]

    def samples(self, pinned: Pinned) -> SampleTable:
        """Return the samples of a table at a version, by id."""
        key = (pinned.table, pinned.version)
        with self._lock:
            found = self._tables.pop(key, None)
            if found is None:
                version = self.bank.catalog.version(pinned.table, pinned.version)
                paths = self.bank.catalog.mirror.readable(version.samples.files)
                gone = self.bank.catalog.deleted(version)
                found = SampleTable.open(
                    pinned.table, pinned.version, pinned.schema, paths, self._files, deleted=gone
                )
            self._tables[key] = found
            while len(self._tables) > MAX_TABLES:
                self._tables.pop(next(iter(self._tables)))
        return found

    def has_deleted(self, pinned: Pinned) -> bool:
        """Tell whether a table at a version has samples that are deleted, but are in its roll-ups still."""
        version = self.bank.catalog.version(pinned.table, pinned.version)
        return version.has(DELETED) and bool(self.bank.catalog.state(version, DELETED).files.files)

    def array_document(self, array: str) -> dict[str, Any]:
        """Return ``zarr.json`` of a stored array, by its key."""
        found = self._documents.get(array)
        return found or self._documents.put(array, json.loads(self.store.get(f"{array}/zarr.json")))

    def accesses(self) -> list[str]:
        """Return the ways in which plans may be read, the best first."""
        signs = self.address.url.startswith(("s3:", "gs:", "az:")) and not self.settings.anonymous
        if not signs:
            return ["proxy"]
        return ["url", "dir", "proxy"] if self.settings.sts_role is not None else ["url", "proxy"]

    def folder_keys(self, folders: Sequence[str], session: str, lifetime_s: float) -> FolderKeys:
        """Return keys that read what lies below some folders.

        They are those of :func:`tensorbank_server.access.assume`.
        """
        if self.settings.sts_role is None:
            raise AssertionError("access `dir` was not checked")
        endpoint = self.settings.sts_endpoint or self.settings.endpoint
        policy = read_policy(self.address.url, folders)
        return assume(self.address.storage, self.settings.sts_role, endpoint, policy, session, lifetime_s)

    def place(self) -> dict[str, str | None]:
        """Return the address for clients that have keys: the bank's URL, and endpoint and region of the store.

        Endpoint and region are None where neither the settings nor the surroundings of the process name them.
        """
        storage = self.address.storage
        return {
            "url": self.address.url,
            "endpoint": self.settings.public_endpoint or storage.endpoint,
            "region": storage.region,
        }

    def sign(self, keys: Sequence[str], lifetime_s: float) -> list[str]:
        """Return URLs of objects, signed for ``lifetime_s``."""
        return self._signer.sign(keys, lifetime_s)

    def size(self, key: str) -> int:
        """Return the size in bytes of a shard, asked for once: shards never change."""
        found = self._sizes.get(key)
        return self._sizes.put(key, self.store.size(key)) if found is None else found

    def title(self, table: str) -> str:
        """Return the title of a table, for people."""
        return f"{self.settings.title or self.name}: {table}"

    def _look(self) -> str | None:
        """Ask the store whether the bank can be read; return what keeps it from that, None if nothing does."""
        try:
            self.bank.tables()
        except TensorBankError as error:
            _LOG.warning("bank %s cannot be read: %s", self.name, error)
            return error.kind
        return None

    def close(self) -> None:
        """Let go of threads and connections; may wait for reads under way."""
        if self._leases is not None:
            self._leases.stop()
        self._bulkhead.close()
        self.fetcher.close()
