"""The rows of sorted copies, compared with the rows of samples that they were made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tensorbank.catalog import Catalog, TableVersion
from tensorbank.sorted_copies import SortedCopy
from tensorbank.sql import Database, database, quoted, read_parquet
from tensorbank.verification.findings import Finding, FindingKind

__all__ = ["sorted_copy_flaws"]


def sorted_copy_flaws(
    catalog: Catalog, version: TableVersion, level: str, paths: Sequence[str], folder: str
) -> Iterator[Finding]:
    """Yield a finding if a copy that a version may be read from has other rows than the files it was made of.

    All rows are compared by the sum of their hashes, since a copy has the same rows in another order. One that is of files which
    the version does not have any more is not read, and not compared.

    Parameters
    ----------
    level
        Level of the copy, such as ``sorted/cloud_cover``.
    paths
        Local paths of its files, all of which are sound, as are those of samples.
    """
    copy = SortedCopy.of(catalog.state(version, level))
    if copy is None:
        yield Finding(
            FindingKind.WRONG_COPY, folder, "its log does not say which files of samples it is a copy of"
        )
        return
    rest = copy.rest_of(version.samples)
    if rest is None:
        return
    beside = {file.key for file in rest}
    sources = [catalog.path(file) for file in version.samples.files if file.key not in beside]
    with database() as db:
        found, wanted = _digest(db, paths, paths), _digest(db, sources, paths)
    if found != wanted:
        reason = (
            f"it has {found[0]} rows, and samples {wanted[0]}" if found[0] != wanted[0] else "rows differ"
        )
        yield Finding(FindingKind.WRONG_COPY, folder, f"the copy sorted by {'.'.join(copy.column)}: {reason}")


def _digest(db: Database, paths: Sequence[str], like: Sequence[str]) -> tuple[int, int]:
    """Return the number of rows of some files, and the sum of the hashes of their values in the columns of others."""
    if not paths:
        return 0, 0
    columns = _columns(db, like or paths)
    there = set(_columns(db, paths))
    values = ", ".join(quoted(name) if name in there else "NULL" for name in columns)
    sql = f"SELECT count(*), sum(hash({values})) FROM {read_parquet(paths)}"
    ((n_rows, total),) = db.con.execute(sql).fetchall()
    return int(n_rows), int(total or 0)


def _columns(db: Database, paths: Sequence[str]) -> list[str]:
    return sorted(db.con.sql(f"SELECT * FROM {read_parquet(paths)}").columns)
