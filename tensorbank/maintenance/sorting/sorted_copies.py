"""Copies of samples sorted by a column, each written as a whole and made visible by one commit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_numpy
from tensorbank.catalog import SORTED_FOLDER, Catalog, Change, LevelChange, TableVersion
from tensorbank.errors import ConflictError, ErrorKind, InvalidInputError, NotFoundError, nearest
from tensorbank.index_files import ROW_GROUP_ROWS, IndexFile, NewFile, statistics_of_column, upload
from tensorbank.layout import index_key
from tensorbank.maintenance.dead_rows import DeadRows
from tensorbank.maintenance.level_columns import level_schema
from tensorbank.maintenance.merged_level import LevelFilesToMerge, merged_samples, read_groups, reused_memory
from tensorbank.maintenance.moved_samples import MovedSamples
from tensorbank.maintenance.sample_order import SampleOrder
from tensorbank.sorted_copies import SortedCopy, copy_name, leaf_of, settings_of, sortable

__all__ = [
    "Renewal",
    "SortedCopyReport",
    "add_sorted_copy",
    "drop_sorted_copy",
    "renew_sorted_copies",
    "sorted_columns",
    "stale_columns",
]

FILE_ROWS = ROW_GROUP_ROWS // 8
"""The rows of a file, which is one row group: as few as can be without a footer that takes longer to read than the rows. The log
tells of each file what it holds, so that a plan opens no other."""
MAX_TRIES = 3
"""The number of times that a copy is written anew since files of samples were replaced meanwhile."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class SortedCopyReport:
    """The outcome of making a sorted copy.

    Parameters
    ----------
    column
        The column, with dots as SQL has it.
    version
        The version that shows the copy.
    changed
        False if the copy was there already, of all samples.
    n_rows, n_files, n_bytes
        Rows, files and bytes of the copy.
    """

    table: str
    column: str
    version: int
    changed: bool
    n_rows: int
    n_files: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """The outcome of renewing the sorted copies of a table.

    Parameters
    ----------
    version
        The version that shows it; None if there was nothing to do.
    written
        Columns whose copies lacked samples, and were written anew.
    dropped
        Columns whose copies were dropped, since the table does not have them any more.
    """

    version: int | None = None
    written: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


class _Replaced(Exception):  # noqa: N818 - no error: the copy is written anew
    """A file of samples that was copied is gone from the newest snapshot."""


def sorted_columns(version: TableVersion, catalog: Catalog) -> tuple[str, ...]:
    """Return the columns by which a version has sorted copies, with dots as SQL has them."""
    return tuple(_column_of(catalog, version, name) for name in version.sorted_copies)


def add_sorted_copy(
    catalog: Catalog, table: str, column: str, *, anew: bool = False, progress: Progress | None = None
) -> SortedCopyReport:
    """Write a copy of samples sorted by a column, from which statements that ask for few of its values are answered.

    It has all columns, and takes about the bytes of ``samples``. Answers stay what they are, and so do the rows of plans; their
    fingerprint is another, as of any new version. A copy that lacks samples is written anew; until then, samples that it lacks
    are read where they are.

    Parameters
    ----------
    column
        Column of samples as SQL names it, such as ``cloud_cover`` or ``S2L2A.B04.mean``.
    anew
        True to write a copy anew that has all samples, as one that is damaged.
    progress
        Callable for what is done, the rows so far and all of them, each read once and written once.

    Raises
    ------
    NotFoundError
        There is no such table.
    InvalidInputError
        Samples have no such column, or its values have no order; another column's copy has its name.
    ConflictError
        Other writers replaced files of samples again and again (``kind`` is ``lost-race``).
    StorageError
        The store cannot be written, or the disk has no room for the rows on their way.
    """
    if catalog.head(table).pins is None:
        catalog.publish(table, _nothing)  # a table of format 1 is upgraded first
    for _ in range(MAX_TRIES):
        head = catalog.head(table)
        state = catalog.state(head, "samples")
        path = leaf_of(column, level_schema("samples", head.schema, state.columns))
        there = _copies(catalog, head).get(copy_name(path))
        if there is not None and there.column != path:
            raise InvalidInputError(
                f"the copy sorted by {'.'.join(there.column)} has the name that the one of {'.'.join(path)} would get; "
                "drop that one first",
                kind=ErrorKind.EXISTS,
            )
        if there is not None and there.rest_of(head.samples) == () and not anew:
            return _report(head.table, path, head.version, there.files.files, changed=False)
        try:
            return _write(catalog, head, path, progress or _untold)
        except _Replaced:
            continue
    raise ConflictError(
        f"other writers replaced index files of {table} {MAX_TRIES} times while its samples were sorted; try again when they "
        "are done",
        kind=ErrorKind.LOST_RACE,
    )


def stale_columns(catalog: Catalog, version: TableVersion) -> tuple[str, ...]:
    """Return the columns of a version whose copies :func:`renew_sorted_copies` would write anew or drop."""
    copies = _copies(catalog, version).values()
    return tuple(".".join(copy.column) for copy in copies if copy.rest_of(version.samples) != ())


def renew_sorted_copies(catalog: Catalog, table: str, progress: Progress | None = None) -> Renewal:
    """Write those copies of a table anew that lack samples, and drop those whose column is gone, as with its modality.

    Errors as :func:`add_sorted_copy`.
    """
    head = catalog.head(table)
    there = sortable(level_schema("samples", head.schema, catalog.state(head, "samples").columns))
    version, written, dropped = None, [], []
    for path in [copy.column for copy in _copies(catalog, head).values()]:
        column = ".".join(path)
        if path not in there:
            version = drop_sorted_copy(catalog, table, column)
            dropped.append(column)
        elif (report := add_sorted_copy(catalog, table, column, progress=progress)).changed:
            version = report.version
            written.append(column)
    return Renewal(version, tuple(written), tuple(dropped))


def drop_sorted_copy(catalog: Catalog, table: str, column: str) -> int:
    """Drop the copy of a column by one commit; return the version that lacks it. Versions before it keep it.

    Raises
    ------
    NotFoundError
        The table has no such copy.
    """

    def make(head: TableVersion) -> Change:
        columns = dict(zip(head.sorted_copies, sorted_columns(head, catalog), strict=True))
        dropped = [name for name, of in columns.items() if of.lower() == column.lower()]
        if not dropped:
            raise NotFoundError(
                f"{table} has no copy sorted by {column!r}.{nearest(column, list(columns.values()))}"
            )
        return Change(
            "drop-sorted-copy",
            details={"column": columns[dropped[0]]},
            sorted_copies=tuple(name for name in head.sorted_copies if name not in dropped),
            pins={f"{SORTED_FOLDER}/{name}": None for name in dropped},
        )

    return catalog.publish(table, make).version


def _nothing(_head: TableVersion) -> None:
    """Change nothing."""


def _untold(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


def _copies(catalog: Catalog, head: TableVersion) -> dict[str, SortedCopy]:
    """Return the copies of a version by the names of their levels."""
    found = {
        name: SortedCopy.of(catalog.state(head, f"{SORTED_FOLDER}/{name}")) for name in head.sorted_copies
    }
    return {name: copy for name, copy in found.items() if copy is not None}


def _column_of(catalog: Catalog, head: TableVersion, name: str) -> str:
    """Return the column of a copy, its level's name where the copy itself does not say."""
    copy = SortedCopy.of(catalog.state(head, f"{SORTED_FOLDER}/{name}"))
    return name if copy is None else ".".join(copy.column)


def _write(catalog: Catalog, at: TableVersion, path: tuple[str, ...], progress: Progress) -> SortedCopyReport:
    """Write the copy of a version's samples, and commit it onto the newest version."""
    name = copy_name(path)
    level, column = f"{SORTED_FOLDER}/{name}", ".".join(path)
    sources = at.samples.files
    written, empty = _sorted_files(catalog, at, sources, path, level, progress)
    settings = settings_of(path, sources, empty)

    def make(head: TableVersion) -> Change:
        if not {f.key for f in sources} <= {f.key for f in head.samples.files}:
            raise _Replaced
        old = catalog.state(head, level).files.files if head.has(level) else ()
        return Change(
            "sort",
            {level: LevelChange(written, old)},
            {"column": column, "n_samples": sum(f.n_rows for f in written)},
            sorted_copies=tuple(dict.fromkeys((*head.sorted_copies, name))),
            settings={level: settings},
        )

    version = catalog.publish(at.table, make).version
    return _report(at.table, path, version, written, changed=True)


def _sorted_files(
    catalog: Catalog,
    at: TableVersion,
    sources: Sequence[IndexFile],
    path: tuple[str, ...],
    level: str,
    progress: Progress,
) -> tuple[tuple[NewFile, ...], tuple[NewFile, ...]]:
    """Write the rows of some files of samples sorted by a column; nothing of it is visible.

    Returns the new files, and those of them in which no row has a value of the column.
    """
    schema = level_schema("samples", at.schema, catalog.state(at, "samples").columns)
    column = ".".join(path)
    total, done = 2 * sum(f.n_rows for f in sources), 0

    def told(n_rows: int) -> None:
        nonlocal done
        done += n_rows
        progress(column, min(done, total), total)

    def put(file: Path) -> tuple[NewFile, bool]:
        new = upload(catalog.store, index_key(at.table, level), file)
        new = replace(new, statistics=statistics_of_column(new.statistics, path))
        return new, _is_empty(file, column)

    with tempfile.TemporaryDirectory(prefix="tensorbank-") as scratch, reused_memory():
        order = _order(catalog, sources, path)
        # rows that do not count stay: which these are is said by each snapshot, and not by the copy
        merged = LevelFilesToMerge(tuple(sources), catalog.path, schema, DeadRows(), MovedSamples())
        written = list(merged_samples(merged, order, Path(scratch), put, told, file_rows=FILE_ROWS))
    return tuple(new for new, _ in written), tuple(new for new, is_empty in written if is_empty)


def _is_empty(file: Path, column: str) -> bool:
    """Tell whether no row of a file that was just written has a value of a column."""
    footer = pq.read_metadata(file)
    (number,) = (i for i in range(footer.num_columns) if footer.schema.column(i).path == column)
    said = [footer.row_group(group).column(number).statistics for group in range(footer.num_row_groups)]
    return all(of_group is not None and not of_group.num_values for of_group in said)


def _order(catalog: Catalog, sources: Sequence[IndexFile], path: tuple[str, ...]) -> SampleOrder:
    """Return the order of samples by a column, those without a value last, and by their keys where values are equal."""
    keys, values = [], []
    for file in sources:
        for rows in read_groups([catalog.path(file)], ["key", ".".join(path)]):
            keys.append(as_numpy(rows["key"], 0))
            values.append(_values(rows, path))
    if not keys:
        return SampleOrder(np.zeros(0, np.int64), np.zeros(0, np.int64))
    key = np.concatenate(keys)
    known = [some for some in values if not pa.types.is_null(some.type)]
    kind = known[0].type if known else pa.null()
    table = pa.table({"value": pa.chunked_array([some.cast(kind) for some in values]), "key": key})
    order = as_numpy(pc.sort_indices(table, [("value", "ascending"), ("key", "ascending")]))
    places = np.empty(len(key), np.int64)
    places[order] = np.arange(len(key))
    by_key = np.argsort(key, kind="stable")
    return SampleOrder(key[by_key], places[by_key])


def _values(rows: pa.Table, path: tuple[str, ...]) -> pa.Array:
    """Return a column of rows by its path, in one piece; nulls where the rows are from before the column."""
    if path[0] not in rows.column_names:
        return pa.nulls(rows.num_rows)
    column = rows[path[0]]
    values = pc.struct_field(column, list(path[1:])) if len(path) > 1 else column
    return pa.concat_arrays(values.chunks)


def _report(
    table: str, path: tuple[str, ...], version: int, files: Sequence[IndexFile | NewFile], *, changed: bool
) -> SortedCopyReport:
    n_rows, n_bytes = sum(f.n_rows for f in files), sum(f.n_bytes for f in files)
    return SortedCopyReport(table, ".".join(path), version, changed, n_rows, len(files), n_bytes)
