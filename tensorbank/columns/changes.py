"""Changes of columns that were added: each column is a Delta table of keys and values, which one commit pins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.catalog import COLUMNS_FOLDER, Catalog, Change, LevelChange, TableVersion
from tensorbank.columns.given_values import check_new_names, stored_values, values_of
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError, nearest
from tensorbank.index_files import IndexFile, NewFile
from tensorbank.planning import Planner

__all__ = ["ColumnsReport", "drop_columns", "put_columns"]

FILE_ROWS = 8 << 20
"""The most rows of one file of values."""
N_NAMED = 5
"""The number of ids that an error names."""


@dataclass(frozen=True, slots=True)
class ColumnsReport:
    """The outcome of a change of columns: the version that shows it, and how many values each has now.

    ``n_nan`` values were NaN, and are null; ``n_unknown`` were of no sample, and are left out.
    """

    version: int
    n_values: dict[str, int]
    n_nan: int = 0
    n_unknown: int = 0


def put_columns(
    catalog: Catalog,
    table: str,
    rows: pa.Table,
    *,
    on: str = "sample_id",
    mode: str = "add",
    unknown: str = "refuse",
) -> ColumnsReport:
    """Give samples values of columns, by one commit.

    Parameters
    ----------
    rows
        Rows with the column ``on``, with ``split`` where ids are in several splits, and with columns of values.
    on
        ``sample_id`` or ``key``.
    mode
        ``add`` new columns, ``replace`` all values of columns, or ``update`` the values of the given samples alone.
    unknown
        ``refuse`` rows of samples that the table does not have, or ``ignore`` them.

    Raises
    ------
    InvalidInputError
        A name is taken, a type cannot be stored, an id is unknown, there twice, or in several splits. Nothing is written.
    """
    names = values_of(rows, on)
    given = [stored_values(rows[name], name) for name in names]
    for name, (column, _) in zip(names, given, strict=True):
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    counted: dict[str, int] = {}
    left_out = 0

    def make(head: TableVersion) -> Change:
        nonlocal left_out
        _check(head, names, mode)
        keyed, left_out = _with_keys(catalog, head, rows, names, on, ignore=unknown == "ignore")
        levels: dict[str, LevelChange] = {}
        types: dict[str, pa.Schema] = {}
        for name in names:
            level = f"{COLUMNS_FOLDER}/{name}"
            there = catalog.state(head, level) if head.has(level) else None
            mine = pa.table({"key": keyed["key"], "value": keyed[name]})
            if mode == "update" and there is not None:
                mine = _updated(catalog, head, there.files.files, mine, name)
            mine = mine.filter(pc.is_valid(mine["value"]))
            counted[name] = mine.num_rows
            levels[level] = LevelChange(
                tuple(_write(catalog, table, level, mine)), there.files.files if there is not None else ()
            )
            types[level] = mine.schema
        details = {"columns": names, "mode": mode, "n_values": dict(counted)}
        return Change(
            f"{mode}-columns",
            levels,
            details,
            columns=(*head.columns, *_new(head, names)),
            column_types=types,
        )

    done = catalog.publish(table, make)
    return ColumnsReport(done.version, counted, sum(n for _, n in given), left_out)


def drop_columns(catalog: Catalog, table: str, names: Sequence[str]) -> int:
    """Drop added columns by one commit; return the version that lacks them. Snapshots before it keep them.

    Raises
    ------
    NotFoundError
        The table has no added column of such a name.
    """

    def make(head: TableVersion) -> Change:
        for name in names:
            if name not in head.columns:
                raise NotFoundError(f"{table} has no added column {name!r}.{nearest(name, head.columns)}")
        kept = tuple(c for c in head.columns if c not in names)
        return Change(
            "drop-columns",
            details={"columns": list(names)},
            columns=kept,
            pins={f"{COLUMNS_FOLDER}/{name}": None for name in names},
        )

    return catalog.publish(table, make).version


def _new(head: TableVersion, names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in head.columns]


def _check(head: TableVersion, names: Sequence[str], mode: str) -> None:
    """Raise InvalidInputError or NotFoundError if a version cannot take the columns."""
    if mode == "update":
        for name in _new(head, names):
            raise NotFoundError(
                f"{head.table} has no added column {name!r} to update.{nearest(name, head.columns)}"
            )
        return
    there = head.columns if mode == "add" else ()
    others = [c for c in head.columns if c not in names]
    check_new_names(names, head.schema, {*there, *others})


def _with_keys(
    catalog: Catalog, head: TableVersion, rows: pa.Table, names: Sequence[str], on: str, *, ignore: bool
) -> tuple[pa.Table, int]:
    """Return the rows sorted by the key of their sample, and how many were left out since they have none."""
    matched = ["sample_id", "split"] if on == "sample_id" and "split" in rows.column_names else [on]
    given = "given_rows" if head.table.lower() != "given_rows" else "given_values"
    planner = Planner(catalog, {head.table: head.version}, {given: rows.select([*matched, *names])})
    condition = " AND ".join(f'g."{name}" = s."{name}"' for name in matched)
    chosen = ", ".join(f'g."{name}"' for name in (*matched, *names) if name != "key")
    found = planner.arrow(
        f'SELECT s.key AS key, {chosen} FROM {given} AS g LEFT JOIN "{head.table}" AS s ON {condition} ORDER BY key NULLS LAST'
    )
    n_unknown = found["key"].null_count
    if n_unknown and not ignore:
        lost = found.filter(pc.is_null(found["key"])).slice(0, N_NAMED)
        listed = (
            ", ".join(map(repr, lost[matched[0]].to_pylist())) if on == "sample_id" else f"{n_unknown} keys"
        )
        more = f" and {n_unknown - N_NAMED} more" if n_unknown > N_NAMED else ""
        raise InvalidInputError(
            f"{head.table} has no sample {listed}{more}; unknown='ignore' (--ignore-unknown) leaves them out",
            kind=ErrorKind.UNKNOWN_SAMPLE,
        )
    found = found.filter(pc.is_valid(found["key"])) if n_unknown else found
    keys = found["key"].combine_chunks()
    again = pc.equal(keys.slice(1), keys.slice(0, max(len(keys) - 1, 0)))
    if pc.any(again).as_py():
        place = pc.index(again, True).as_py()
        what = found[matched[0]][place].as_py() if on == "sample_id" else keys[place].as_py()
        raise InvalidInputError(f"sample {what!r} is given twice")
    if len(keys) + n_unknown > rows.num_rows:
        raise InvalidInputError(
            "some sample_ids are in several splits; give the column split, too",
            kind=ErrorKind.AMBIGUOUS_SAMPLE,
        )
    return found, n_unknown


def _updated(
    catalog: Catalog, head: TableVersion, files: Sequence[IndexFile], mine: pa.Table, name: str
) -> pa.Table:
    """Return the values of a column, those of some samples replaced and those of deleted ones left out, sorted by key."""
    there = (
        pa.concat_tables([pq.read_table(catalog.path(file)) for file in files]) if files else mine.slice(0, 0)
    )
    if there.schema.field("value").type != mine.schema.field("value").type:
        raise InvalidInputError(
            f"column {name!r} holds {there.schema.field('value').type}, and the given values are "
            f"{mine.schema.field('value').type}; cast them, or replace the column"
        )
    kept = there.filter(pc.invert(pc.is_in(there["key"], value_set=mine["key"].combine_chunks())))
    alive = catalog.membership(head).has_samples(as_numpy(kept["key"]))
    kept = kept.filter(as_arrow(alive))
    return pa.concat_tables([kept, mine]).sort_by("key")


def _write(catalog: Catalog, table: str, level: str, rows: pa.Table) -> list[NewFile]:
    return [
        catalog.write(table, level, rows.slice(start, FILE_ROWS))
        for start in range(0, rows.num_rows, FILE_ROWS)
    ]
