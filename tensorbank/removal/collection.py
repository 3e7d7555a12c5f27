"""The collection of garbage: stored objects that no kept snapshot of any table of a bank needs.

First it is found out what stays, then the bank is listed, folder by folder. What goes, goes in an order in which a collection
may be ended anywhere: marks of unfinished ingests before what they mark, tensors and index files before the logs that name
them, commits after the checkpoint that stands for them. Before anything goes, a mark says which versions have expired, so that
nobody brings them back from then on. Before a folder is emptied, tables are looked at again: another writer may have committed
meanwhile.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tensorbank.catalog import RENAMED, Catalog
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError, nearest
from tensorbank.index_files import LOG
from tensorbank.layout import index_key, part_key
from tensorbank.removal.garbage import PROGRESS, REPORT, Garbage, Kind, Needs, needs_of, tables_of
from tensorbank.retention import EXPIRED, mark_expired, protected_versions, remove_expired
from tensorbank.storage import ObjectInfo, Store, time_of_store

__all__ = ["GRACE", "Collected", "Collection", "collect"]

GRACE = timedelta(days=7)
"""The time that versions and objects stay which nothing needs any more: an unfinished ingest, or a reader, may."""
CLOCKS_AGREE = timedelta(seconds=2)
"""The difference of two clocks that is none: stores tell times to the second."""
N_THREADS = 16
N_LISTS = 2
"""The number of folders that are listed at once."""
N_TOLD = 20
KNOWN = frozenset({"index", "tensors", "tags", "leases", EXPIRED})

Progress = Callable[[str, int, int], None]


@dataclass
class Collected:
    """The objects of one kind: how many, and their bytes."""

    n_objects: int = 0
    n_bytes: int = 0

    def count(self, n_bytes: int) -> None:
        """Count one object more."""
        self.n_objects += 1
        self.n_bytes += n_bytes


@dataclass(frozen=True)
class Collection:
    """The outcome of a collection: what it has removed, or with ``dry_run`` would remove.

    Parameters
    ----------
    kinds
        Objects and bytes by kind: tests of the store, unfinished ingests, tensors, index files, log files.
    expired
        Versions that go, by table.
    kept
        Why older versions stay, by table and version.
    n_foreign, foreign
        The number of objects that are not TensorBank's, which stay, and the keys of the first of them.
    damaged
        What is said of tags and leases that cannot be read: all versions of their table stay.
    """

    url: str
    dry_run: bool
    kinds: Mapping[str, Collected]
    expired: Mapping[str, tuple[int, ...]]
    kept: Mapping[str, Mapping[int, str]]
    n_listed: int = 0
    n_foreign: int = 0
    foreign: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def n_objects(self) -> int:
        """The number of objects of all kinds."""
        return sum(c.n_objects for c in self.kinds.values())

    @property
    def n_bytes(self) -> int:
        """The bytes of all kinds."""
        return sum(c.n_bytes for c in self.kinds.values())


@dataclass
class _Work:
    """One collection under way: what stays, and what was met so far."""

    catalog: Catalog
    needs: Needs
    older_than_s: float
    now: datetime
    dry_run: bool
    progress: Progress
    kinds: dict[str, Collected] = field(default_factory=lambda: {str(kind): Collected() for kind in Kind})
    n_listed: int = 0
    n_foreign: int = 0
    foreign: list[str] = field(default_factory=list)

    def take(self, judge: Callable[[], Iterable[Garbage | str]]) -> None:
        """Remove what a look at some listed objects says, which is taken again if the tables have changed meanwhile."""
        found = list(judge())
        gone = [g for g in found if isinstance(g, Garbage)]
        if gone and not self.dry_run and self.is_renewed():
            found = list(judge())
            gone = [g for g in found if isinstance(g, Garbage)]
        for other in found:
            if isinstance(other, str):
                self.alien(other)
        for kind in Kind:  # logs after what they name
            of_kind = [g for g in gone if g.kind == kind]
            if of_kind and not self.dry_run:
                # logs lose their oldest commits first, so that what is left of one is all that came later
                with ThreadPoolExecutor(1 if kind == Kind.LOG else N_THREADS) as pool:
                    list(pool.map(self.catalog.store.delete, [g.key for g in of_kind]))
            for g in of_kind:
                self.kinds[kind].count(g.n_bytes)

    def alien(self, key: str) -> None:
        """Count an object that is not ours."""
        self.n_foreign += 1
        if len(self.foreign) < N_TOLD:
            self.foreign.append(key)

    def listed(self, objects: list[ObjectInfo]) -> list[ObjectInfo]:
        """Count listed objects, and return them."""
        self.n_listed += len(objects)
        self.progress("objects", self.n_listed, self.n_listed)
        return objects

    def mark(self) -> None:
        """Say which versions go, before anything of them does, and look at the tables again until nobody was quicker."""
        is_new = True
        while is_new:
            for kept in self.needs.tables.values():
                mark_expired(self.catalog.store, kept.names, kept.table_id, kept.expired)
            is_new = self._has_changed()

    def is_renewed(self) -> bool:
        """Look at the tables again; True if what stays is another than before."""
        if not self._has_changed():
            return False
        self.mark()
        return True

    def _has_changed(self) -> bool:
        store, now = self.catalog.store, {}
        for name in tables_of(self.catalog):
            head = self.catalog.version(name)
            protection = protected_versions(
                store,
                name,
                self.now,
                table_id=head.table_id,
                earlier=self.catalog.names_of(head)[1:],
            )
            now[name] = head.version, tuple(sorted(protection.by_version)), protection.damaged
        before = {n: (k.newest, k.protected, k.damaged) for n, k in self.needs.tables.items()}
        if now == before:
            return False
        self.needs = needs_of(self.catalog, self.now, self.older_than_s)
        return True


def collect(
    catalog: Catalog,
    table: str | None = None,
    *,
    older_than: timedelta = GRACE,
    dry_run: bool = True,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> Collection:
    """Remove the stored objects that no kept snapshot needs; by default only say which.

    The newest version of each table stays, those that tags and leases protect, and those that were the newest within
    ``older_than``; so does every object that was written since then. Keep it longer than any ingest takes that may be under way,
    interrupted ones that are to be resumed included. Ages are by the store's clock: if this machine's is ahead of it, nothing is
    older for that.

    Parameters
    ----------
    table
        Table whose folder is cleaned; all of the bank if None. References of other tables count in any case.
    now
        The time that ages are counted from; that of this machine or of the store if not given, whichever is earlier.

    Raises
    ------
    NotFoundError
        There is no such table.
    InvalidInputError
        ``older_than`` is negative, or the bank cannot be written to.
    IntegrityError
        A log or index file of any table is damaged or missing: nothing is removed.
    """
    if older_than < timedelta(0):
        raise InvalidInputError(f"older_than must not be negative, got {older_than}")
    catalog.mirror.require_writable()
    names = tables_of(catalog)
    if table is not None and table not in names:
        raise NotFoundError(
            f"{catalog.store.url} has no table {table!r}.{nearest(table, names)}",
            kind=ErrorKind.UNKNOWN_TABLE,
        )
    now = now or _now(catalog.store, dry_run=dry_run)
    needs = needs_of(catalog, now, older_than.total_seconds())
    work = _Work(catalog, needs, older_than.total_seconds(), now, dry_run, progress or _untold)
    if not dry_run:
        work.mark()
    kept = work.needs.tables
    folders, beside = catalog.store.children()
    if table is None:
        found = work.listed(beside)
        work.take(lambda: work.needs.of_bank(found))
    if not dry_run:
        for name in {name for k in kept.values() if table in (None, k.table) for name in k.names}:
            remove_expired(catalog.store, name, now)
    for folder in [table] if table is not None else folders:
        _collect_folder(work, folder)
    return Collection(
        catalog.store.url,
        dry_run,
        work.kinds,
        {n: k.expired for n, k in kept.items() if table in (None, n)},
        {
            n: {v: r for v, r in k.reasons.items() if v != k.newest}
            for n, k in kept.items()
            if table in (None, n)
        },
        work.n_listed,
        work.n_foreign,
        tuple(work.foreign),
        tuple(dict.fromkeys(text for k in kept.values() for text in k.damaged)),
    )


def _now(store: Store, *, dry_run: bool) -> datetime:
    """Return the time by this machine's clock, or by the store's if that is behind it; of a store that is not written to, the
    former.
    """
    here = datetime.now(UTC)
    return here if dry_run else min(here, time_of_store(store) + CLOCKS_AGREE)


def _untold(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


def _collect_folder(work: _Work, folder: str) -> None:
    """Collect the garbage of one table, or of a folder that was one."""
    store = work.catalog.store
    below, beside = store.children(folder)
    others = [o.key for o in beside]
    for name in below:
        if name not in KNOWN or (name == "index" and folder not in work.needs.tables):
            found = [o.key for o in store.objects(f"{folder}/{name}")]
            log = f"{index_key(folder, 'samples')}/{LOG}/"  # of a table that has another name it stays
            others += [k for k in found if f"{log}{RENAMED}" not in found or not k.startswith(log)]
    for key in others:
        work.alien(key)
    if "tensors" in below:
        _collect_tensors(work, folder)
    if folder in work.needs.tables:
        _collect_index(work, folder)


def _collect_tensors(work: _Work, folder: str) -> None:
    store = work.catalog.store
    top = part_key(folder, "").rstrip("/")
    names, beside = store.children(top)
    busy = set()
    marks = [name for name in names if name.endswith(PROGRESS)]  # they are looked at before what they mark
    for name, objects in _lists(store, top, marks):
        work.listed(objects)
        if any(o.written_s > work.needs.cutoff_s for o in objects):
            busy.add(name.removesuffix(PROGRESS))
            continue
        gone = [Garbage(Kind.UNFINISHED, o.key, o.n_bytes) for o in objects]
        work.take(lambda gone=gone: gone)  # type: ignore[misc] # bound at once
        _remove_empty(work, f"{top}/{name}")
    for name, objects in _lists(store, top, [name for name in names if name not in marks]):
        work.listed(objects)
        work.take(lambda n=name, o=objects: work.needs.of_part(f"{top}/{n}", o, n in busy))  # type: ignore[misc] # the same
        _remove_empty(work, f"{top}/{name}")
    reports = work.listed(beside)
    work.take(lambda: _of_reports(work.needs, reports, busy))


def _lists(store: Store, top: str, names: Iterable[str]) -> Iterator[tuple[str, list[ObjectInfo]]]:
    """Yield some folders and the objects below each; the next ones are listed while one is looked at."""
    with ThreadPoolExecutor(N_LISTS) as pool:
        under_way: deque[tuple[str, Future[list[ObjectInfo]]]] = deque()
        for name in names:
            under_way.append((name, pool.submit(store.objects, f"{top}/{name}")))
            if len(under_way) > N_LISTS:
                first, objects = under_way.popleft()
                yield first, objects.result()
        for name, objects in under_way:
            yield name, objects.result()


def _of_reports(needs: Needs, objects: Iterable[ObjectInfo], busy: set[str]) -> Iterator[Garbage | str]:
    """Yield the reports of ingests whose part is gone, and the keys of objects that are none."""
    for found in objects:
        if not found.key.endswith(REPORT):
            yield found.key
            continue
        part = found.key.removesuffix(REPORT)
        if (
            found.written_s <= needs.cutoff_s
            and not needs.has_rows_of(part)
            and part.rpartition("/")[2] not in busy
        ):
            yield Garbage(Kind.TENSORS, found.key, found.n_bytes)


def _collect_index(work: _Work, table: str) -> None:
    objects = work.listed(work.catalog.store.objects(index_key(table, "").rstrip("/")))

    def judge() -> Iterator[Garbage | str]:
        kept = work.needs.tables[table]
        for found in work.needs.of_index(table, objects):
            if isinstance(found, Garbage) and found.kind == Kind.LOG and not work.dry_run:
                for level, of_level in kept.levels.items():
                    if of_level.oldest > of_level.lifetimes.first:
                        work.catalog.checkpoint_at(table, level, of_level.oldest)
            yield found

    work.take(judge)


def _remove_empty(work: _Work, folder: str) -> None:
    """Remove folders of the disk that are empty now; an object store has none."""
    top = work.catalog.store.local_path
    if top is None or work.dry_run:
        return
    for at, _, _ in os.walk(top / folder, topdown=False):
        with suppress(OSError):  # not empty
            Path(at).rmdir()
