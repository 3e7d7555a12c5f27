"""The protection of snapshots: which versions of a table must stay, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tensorbank.retention.leases import list_leases
from tensorbank.retention.tags import list_tags
from tensorbank.storage import Store

__all__ = ["Protection", "protected_versions"]


@dataclass(frozen=True)
class Protection:
    """The versions of a table that tags and leases protect.

    Parameters
    ----------
    by_version
        The reason why a version must stay, for people, by version.
    damaged
        What is said of each tag and lease that cannot be read. What it protected is not known, so while there is one, every
        version must stay.
    """

    by_version: Mapping[int, str]
    damaged: tuple[str, ...] = ()

    def reason(self, version: int) -> str | None:
        """Return the reason why a version must stay; None if nothing speaks for it."""
        return self.by_version.get(version) or (self.damaged[0] if self.damaged else None)


def protected_versions(
    store: Store, table: str, now: datetime, *, table_id: str | None = None, earlier: Sequence[str] = ()
) -> Protection:
    """Find out which versions of a table tags and leases protect.

    Parameters
    ----------
    now
        The time by the store's clock, with a time zone.
    table_id
        Id of the table: tags and leases of an earlier table of this name protect nothing. None to let all of them count.
    earlier
        Names that the table had before: who read it then holds a lease below that name still.

    Raises
    ------
    StorageError
        The store does not answer, so nothing is known.
    """
    tags, damaged_tags = list_tags(store, table)
    read = [list_leases(store, name) for name in (table, *earlier)]
    reasons: defaultdict[int, list[str]] = defaultdict(list)
    for tag in tags:
        if table_id in (None, tag.table_id):
            reasons[tag.version].append(f"tag {tag.name}")
    for lease in (lease for leases, _ in read for lease in leases):
        if not lease.is_expired(now) and table_id in (None, lease.table_id):
            for version in lease.versions:
                until = lease.until.isoformat(sep=" ", timespec="seconds")
                reasons[version].append(f"lease of {lease.owner} until {until}")
    by_version = {version: "; ".join(some) for version, some in sorted(reasons.items())}
    return Protection(
        by_version, tuple(map(str, [*damaged_tags, *(error for _, errors in read for error in errors)]))
    )
