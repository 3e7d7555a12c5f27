"""The versions of a table that stay: the newest, those that tags and leases protect, and those that were the newest lately."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tensorbank.catalog import COLUMNS_FOLDER, FORMAT, PIN, SORTED_FOLDER, Catalog
from tensorbank.delta import Lifetimes
from tensorbank.index_files import LOG
from tensorbank.layout import LEVELS, index_key
from tensorbank.retention import expired_versions, protected_versions

__all__ = ["KeptLevel", "KeptVersions", "kept_versions"]

NEWEST = "it is the newest"
_COMMIT = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True)
class KeptLevel:
    """One level of a table: what its log says, the versions of it that belong to kept snapshots, sorted, and their files.

    The ``lost`` ones of the files may be gone: those of versions that a collection had begun to remove before somebody asked for
    them.
    """

    lifetimes: Lifetimes
    versions: tuple[int, ...]
    files: frozenset[str]
    lost: frozenset[str] = frozenset()

    @property
    def oldest(self) -> int:
        """The oldest version whose log is needed; the first one if none is kept, for the log goes on from there."""
        return self.versions[0] if self.versions else self.lifetimes.first


@dataclass(frozen=True)
class KeptVersions:
    """The snapshots of one table that stay, with the reason, and those that go.

    Parameters
    ----------
    protected
        Versions that tags and leases protect, sorted.
    levels
        What belongs to kept snapshots, by level.
    damaged
        What is said of tags and leases that cannot be read; all versions stay then.
    names
        The table's name, and those below which leases and marks of it may lie.
    """

    table: str
    newest: int
    protected: tuple[int, ...]
    reasons: Mapping[int, str]
    expired: tuple[int, ...]
    levels: Mapping[str, KeptLevel]
    damaged: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    table_id: str = ""


def kept_versions(catalog: Catalog, table: str, now: datetime, older_than_s: float) -> KeptVersions:
    """Find out which versions of a table stay.

    A version goes when another one has been the newest for so many seconds, by the clock of the store and by that of who
    committed it, and neither a tag nor a lease speaks for it.

    Raises
    ------
    IntegrityError
        A file of a log is damaged.
    StorageError
        The store does not answer.
    """
    head = catalog.version(table)
    samples = catalog.lifetimes(table, "samples")
    names = catalog.names_of(head)
    protection = protected_versions(catalog.store, table, now, table_id=head.table_id, earlier=names[1:])
    cutoff_ms = (now.astimezone(UTC).timestamp() - older_than_s) * 1000
    written_ms = _written_ms(catalog, table)
    of_format_1 = FORMAT not in samples.transactions_at(samples.last)
    reasons: dict[int, str] = {}
    for version in range(samples.first, samples.last + 1):
        if version == samples.last:
            reasons[version] = NEWEST
        elif (why := protection.reason(version)) is not None:
            reasons[version] = why
        elif of_format_1:
            reasons[version] = "the table is of format 1"
        elif max(samples.times_ms.get(version + 1, 0), written_ms.get(version + 1, 0)) > cutoff_ms:
            reasons[version] = "it was the newest lately"
    expired = tuple(v for v in range(samples.first, samples.last + 1) if v not in reasons)
    marked = expired_versions(catalog.store, names, head.samples.table_id).versions
    pinned: dict[str, set[int]] = {}
    sure: dict[str, set[int]] = {}
    for version in reasons:
        said = samples.transactions_at(version)
        of_format_1 |= FORMAT not in said
        for name, number in said.items():
            if name.startswith(PIN) and number >= 0:
                pinned.setdefault(name.removeprefix(PIN), set()).add(number)
                if version not in marked:
                    sure.setdefault(name.removeprefix(PIN), set()).add(number)
    levels = {"samples": _level(samples, set(reasons), set(reasons) - marked)}
    for level in sorted({*LEVELS, *pinned, *_folders(catalog, table)} - {"samples"}):
        if catalog.newest(table, level) is None:
            continue
        lifetimes = catalog.lifetimes(table, level)
        kept = pinned.get(level, set())
        if of_format_1 and level in LEVELS:  # read at its newest
            kept = {*kept, lifetimes.last}
        lost = kept - sure.get(level, set()) if marked else set()
        levels[level] = _level(lifetimes, kept, kept - lost)
    protected = tuple(sorted(protection.by_version))
    return KeptVersions(
        table,
        samples.last,
        protected,
        reasons,
        expired,
        levels,
        protection.damaged,
        names,
        head.table_id,
    )


def _level(lifetimes: Lifetimes, kept: set[int], sure: set[int]) -> KeptLevel:
    versions = tuple(sorted(kept))
    files = lifetimes.needed(versions)
    return KeptLevel(
        lifetimes, versions, frozenset(files), frozenset(files - lifetimes.needed(tuple(sorted(sure))))
    )


def _written_ms(catalog: Catalog, table: str) -> dict[int, float]:
    """Return when the commits of samples were written, by version, of those that are there."""
    found = catalog.store.objects(f"{index_key(table, 'samples')}/{LOG}")
    commits = ((_COMMIT.fullmatch(info.key.rpartition("/")[2]), info.written_s) for info in found)
    return {int(match[1]): 1000 * written_s for match, written_s in commits if match}


def _folders(catalog: Catalog, table: str) -> list[str]:
    """Return the levels that have a folder, whether a kept version has them or not."""
    names = catalog.store.folders(index_key(table, ""))
    of_many = [name for name in names if name in (COLUMNS_FOLDER, SORTED_FOLDER)]
    below = [f"{top}/{n}" for top in of_many for n in catalog.store.folders(index_key(table, top))]
    return [*(n for n in names if n not in of_many), *below]
