"""The ways to say a version of a table: its number, a tag, or a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tensorbank.arguments import whole_number
from tensorbank.catalog import Catalog, SnapshotInfo
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError
from tensorbank.retention.tags import find_tag

__all__ = ["VersionName", "moment_of", "number_of", "version_as_of", "version_of", "version_tagged"]

VersionName = int | str | datetime
"""A version by its number, a tag, or a time: a datetime, or an ISO 8601 text such as ``2026-03-01``."""


def version_of(catalog: Catalog, table: str, name: VersionName) -> int:
    """Return the number of a version. Of one that is given by its number, the store is asked nothing.

    Raises
    ------
    InvalidInputError
        It names no version in any way.
    NotFoundError
        There is no such tag, or the table is younger than the time.
    """
    if isinstance(name, str) and not name[:1].isdigit():
        return version_tagged(catalog, table, name)
    return number_of(table, name, lambda: catalog.history(table))


def number_of(table: str, name: VersionName, history: Callable[[], Sequence[SnapshotInfo]]) -> int:
    """Return the number of a version that is no tag.

    Parameters
    ----------
    history
        Gives the versions of the table, asked of a time alone.

    Raises
    ------
    InvalidInputError, NotFoundError
        As of :func:`version_of`.
    """
    if isinstance(name, datetime):
        return _newest_at(table, name, history())
    if not isinstance(name, str):
        return whole_number(f"version of {table}", name, at_least=0)
    if name.isdecimal():
        raise InvalidInputError(
            f"the version of {table} is a number, a tag or a time, got the text {name[:100]!r}"
        )
    return _newest_at(table, moment_of(name), history())


def version_tagged(catalog: Catalog, table: str, name: str) -> int:
    """Return the version that a tag names.

    Raises
    ------
    InvalidInputError
        The text cannot be the name of a tag.
    NotFoundError
        There is no such tag or table, or the tag is of an earlier table of this name.
    """
    try:
        tag = find_tag(catalog.store, table, name)
    except NotFoundError:
        catalog.files(table, "samples", None)  # of no table there is no tag: say so
        raise
    table_id = catalog.files(table, "samples", None).table_id
    if tag.table_id != table_id:
        raise NotFoundError(
            f"the tag {name!r} is of a table {table} that was there before; delete the tag, and make it anew",
            kind=ErrorKind.UNKNOWN_TAG,
        )
    return tag.version


def version_as_of(catalog: Catalog, table: str, moment: datetime) -> int:
    """Return the newest version that was committed at a time or before; a time without a zone is in UTC.

    Raises
    ------
    NotFoundError
        The table has no version that old.
    """
    return _newest_at(table, moment, catalog.history(table))


def _newest_at(table: str, moment: datetime, history: Sequence[SnapshotInfo]) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    ms = aware.timestamp() * 1000
    found = [info.version for info in history if info.timestamp_ms <= ms]
    if not found:
        oldest = min(history, key=lambda info: info.version)
        raise NotFoundError(
            f"table {table} had no version at {aware.isoformat(sep=' ')}; its version {oldest.version} is of "
            f"{oldest.when.isoformat(sep=' ')}",
            kind=ErrorKind.UNKNOWN_SNAPSHOT,
        )
    return max(found)


def moment_of(text: str) -> datetime:
    """Return a time as ISO 8601 writes it, such as ``2026-03-01`` or ``2026-03-01 12:30:00+02:00``; in UTC without a zone.

    Raises
    ------
    InvalidInputError
        It is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{text[:100]!r} is no time; write it as 2026-03-01 or 2026-03-01 12:30:00, in UTC"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
