"""A bound statement executed by DuckDB over index files.

The index files of a snapshot are read in place (or from the local mirror) by ``read_parquet``, so DuckDB prunes row groups
and reads only the struct leaves that a statement names. A selected handle is narrowed before execution: statistics that nobody
asked for are not read. Results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from tensorbank.addressing import HandleColumn, address, shown
from tensorbank.arrow_numpy import strings
from tensorbank.catalog import Catalog
from tensorbank.errors import InvalidInputError, TensorBankError, nearest
from tensorbank.fetch import Fetcher
from tensorbank.planning.binding import Bound, spelled_out
from tensorbank.planning.pinned_table import PinnedTable
from tensorbank.planning.pixel_judge import PixelJudge, TileAnswers
from tensorbank.planning.rollups import shard_keys
from tensorbank.planning.views import TableViews
from tensorbank.schema import Modality
from tensorbank.sql import (
    Database,
    Parser,
    Show,
    SqlFunctions,
    query_of,
    quoted,
    relation_of,
    tensor_type,
    translate,
    walk,
)
from tensorbank.statements import (
    Origin,
    Verdicts,
    Visible,
    find_slip,
    mentions,
    origins_of_result,
    outputs,
    unknown_column,
)

__all__ = ["Answer", "Execution", "executing"]

_NO_STATISTICS = {"ref", "source", "product_ids", "radiometric_offset"}
_SHOWN_ADDRESS = {"key", "offset", "length"}


@dataclass(frozen=True)
class Answer:
    """The rows of a statement.

    Parameters
    ----------
    table
        Rows; of handle columns only what ``columns`` are made of.
    columns
        Handle columns among them.
    verdicts
        How the pixel predicates were decided.
    """

    table: pa.Table
    columns: tuple[HandleColumn, ...]
    verdicts: Verdicts


@dataclass(frozen=True)
class Execution:
    """A statement whose tables, files and functions one instance of DuckDB knows.

    Parameters
    ----------
    tables
        Tables of the bank without the files that their roll-ups rule out.
    views
        Views of the tables, and the files behind them.
    relation
        DuckDB's relation of the statement: names and types of its columns; nothing is executed yet.
    """

    bound: Bound
    catalog: Catalog
    con: duckdb.DuckDBPyConnection
    tables: tuple[PinnedTable, ...]
    views: TableViews
    relation: Any
    text: str
    judge: PixelJudge

    def rows(self) -> pa.Table:
        """Return the rows as people look at them; a handle column holds its address."""

        def column(alias: str, kind: Any) -> str:
            fields = _fields(kind)
            return shown(alias, is_tile=_is_tile(fields)) if "ref" in fields else alias

        table = self._selected(column)
        return self._described(table) if self.bound.statement.describes else table

    def answer(self) -> Answer:
        """Return the rows with handle columns narrowed to what addressing needs.

        Raises
        ------
        InvalidInputError
            A column holds tensors as nothing can address them, or of another snapshot.
        """
        # of a sample that lacks some dates only the sizes of blocks tell which bytes are there
        blocks = any(m.n_times > 1 for table in self.tables for m in table.schema)
        kinds = dict(zip(self.relation.columns, self.relation.types, strict=True))
        for name, kind in kinds.items():
            _check_addressed(name, kind)

        def column(alias: str, kind: Any) -> str:
            fields = _fields(kind)
            if "ref" not in fields:
                return alias
            return address(alias, fields, is_tile=_is_tile(fields), blocks=blocks or "bands" in fields)

        table = self._selected(column)
        handles = [name for name, kind in kinds.items() if "ref" in _fields(kind)]
        if not handles:
            return Answer(table, (), self.judge.verdicts)
        shards = shard_keys(self.views, self.tables)
        origins = self._origins()
        columns = [HandleColumn.of(n, table[n], origins[n], shards) for n in handles]
        return Answer(table, tuple(columns), self.judge.verdicts)

    def statistics(self, name: str) -> tuple[Modality, pa.Table]:
        """Return the statistics fields of one handle column, a row for each row that has the modality.

        Raises
        ------
        InvalidInputError
            The statement selects no such handle, or only some of its bands.
        """
        kinds = dict(zip(self.relation.columns, self.relation.types, strict=True))
        handles = [n for n, kind in kinds.items() if "ref" in _fields(kind)]
        column = next((n for n in handles if n.lower() == name.lower()), None)
        if column is None:
            raise InvalidInputError(f"the query selects no tensor {name!r}.{nearest(name, handles)}")
        fields = [f for f in _fields(kinds[column]) if f not in _NO_STATISTICS]
        if "bands" in fields:
            raise InvalidInputError(f"statistics need the whole handle; select {name} without bands()")
        wanted = ", ".join(f"c.{quoted(f)} AS {quoted(f)}" for f in fields)
        aliases = ", ".join("c" if n == column else f"other{i}" for i, n in enumerate(self.relation.columns))
        sql = f"SELECT {wanted} FROM (\n{self.text}\n) AS q({aliases}) WHERE c IS NOT NULL"
        return self._modality(column), self.con.sql(sql).to_arrow_table()

    def _selected(self, column: Callable[[str, Any], str]) -> pa.Table:
        """Execute the statement; ``column`` gives SQL of each of its columns by alias and type."""
        names = list(self.relation.columns)
        aliases = [f"c{i}" for i in range(len(names))]
        parts = [f"{column(a, kind)} AS {a}" for a, kind in zip(aliases, self.relation.types, strict=True)]
        query = f"SELECT {', '.join(parts)} FROM (\n{self.text}\n) AS q({', '.join(aliases)})"
        table = self.con.sql(query).to_arrow_table()
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InvalidInputError(f"the result has two columns named {twice!r}; give one an alias with AS")
        return table.rename_columns(names)

    def _origins(self) -> dict[str, tuple[Origin, ...]]:
        """Return where the tensors of each column come from, as far as the statement tells."""
        names = list(self.relation.columns)
        query, visible = query_of(self.bound.statement.tree), Visible(self.bound.schemas)
        return dict(zip(names, origins_of_result(query, visible, names), strict=True))

    def _modality(self, column: str) -> Modality:
        """Return the modality of a handle column.

        Raises
        ------
        InvalidInputError
            The statement does not tell, or mixes several.
        """
        found = self._origins()[column]
        if not found or not all(map(found[0].is_like, found)):
            names = (
                ", ".join(sorted({o.modality.name for o in found})) or "an expression that cannot be followed"
            )
            raise InvalidInputError(
                f"statistics are of one modality, and column {column!r} comes from {names}; "
                "select the modality itself"
            )
        return found[0].modality

    def _described(self, table: pa.Table) -> pa.Table:
        """Return the names and types of columns, with the types of handles as those of their tensors."""
        if "column_type" not in table.column_names:
            return table
        visible = Visible(self.bound.schemas)
        shows = [
            s for node in walk(self.bound.plain.tree) if isinstance(s := relation_of(node), Show) and s.query
        ]
        origins = outputs(shows[0].query, visible) if len(shows) == 1 else {}
        pairs = zip(table["column_name"].to_pylist(), table["column_type"].to_pylist(), strict=True)
        types = []
        for name, kind in pairs:
            found = origins.get(name.lower(), ())
            whole = bool(found) and found[0].bands is None and all(map(found[0].is_like, found))
            types.append(tensor_type(found[0].modality if whole else None, kind))
        place = table.column_names.index("column_type")
        return table.set_column(place, "column_type", strings(types))


@contextmanager
def executing(bound: Bound, db: Database, catalog: Catalog) -> Iterator[Execution]:
    """Show a statement's tables and functions to DuckDB; what goes wrong meanwhile is an error that says what to do.

    Raises
    ------
    TensorBankError
        The statement cannot be answered, or an index file cannot be read.
    """
    named = {table.schema.lower() for _, table in mentions(bound.statement.tree)}
    views = TableViews(db, catalog, named)
    functions = SqlFunctions(db.con)
    fetcher = Fetcher(catalog.store)
    judge = PixelJudge(catalog.store.url, fetcher, bound.tables, TileAnswers(db, catalog))
    try:
        for name, rows in bound.joined.items():
            db.register(name, rows)
        tables = tuple(map(views.show, bound.tables))
        if bound.plain.has_polygons:
            functions.add_polygons()
        if bound.plain.n_pixel_predicates:
            functions.add_pixels(judge.judge)
        if bound.statement.has_open_pivot:
            db.use_up()  # DuckDB leaves a type behind that it made of the data
        text, relation = _bound_text(bound, db)
        yield Execution(bound, catalog, db.con, tables, views, relation, text, judge)
    except duckdb.Error as error:
        raise db.failure or functions.failure or _explained(error, bound, views, catalog) from error
    finally:
        functions.close()
        fetcher.close()


def _bound_text(bound: Bound, db: Database) -> tuple[str, Any]:
    """Return the SQL to execute and its relation: with long lists as they were written where their rows do not fit."""
    plain = bound.plain
    db.add_macros(plain.text)
    try:
        relation = db.con.sql(plain.text)
    except duckdb.BinderException:
        if bound.listed is None:
            raise
        plain = spelled_out(bound, Parser(db.con))
        relation = db.con.sql(plain.text)
    if plain.one_thread or bound.plain.one_thread:
        db.one_thread()
    return plain.text, relation


def _explained(error: duckdb.Error, bound: Bound, views: TableViews, catalog: Catalog) -> TensorBankError:
    """Return the error to raise for one of DuckDB's, about a name that is nearly right if it is that."""
    if isinstance(error, duckdb.BinderException | duckdb.ConversionException) and bound.tables:
        slip = find_slip(bound.statement.tree, bound.schemas) or unknown_column(str(error), views.columns)
        if slip is not None:
            return slip
    return translate(error, catalog.told_tables, views.paths)


def _fields(kind: Any) -> dict[str, Any]:
    """Return the fields of a struct by their names; none of another type of DuckDB."""
    return {str(name): inner for name, inner in kind.children} if kind.id == "struct" else {}


def _is_tile(fields: Mapping[str, Any]) -> bool:
    return "y0" in _fields(fields["ref"])


def _check_addressed(name: str, kind: Any) -> None:
    """Refuse a column of tensors that are not handles any more, or of addresses without their table."""
    fields = _fields(kind)
    if "ref" in fields:
        return
    if fields.keys() >= _SHOWN_ADDRESS and "row" not in fields:
        raise InvalidInputError(
            f"column {name!r} holds addresses that another query returned, perhaps of another snapshot; "
            "join its rows by sample_id and select the tensor from the table"
        )
    if _holds_handles(kind):
        raise InvalidInputError(
            f"column {name!r} holds tensors inside of a list or struct; select a tensor as a column of its own"
        )


def _holds_handles(kind: Any) -> bool:
    """Tell whether a type of DuckDB has a handle in it: a struct whose field ``ref`` is an address."""
    if kind.id not in ("struct", "list", "array", "map", "union"):
        return False
    if (ref := _fields(kind).get("ref")) is not None and _fields(ref).keys() >= _SHOWN_ADDRESS:
        return True
    return any(_holds_handles(inner) for name, inner in kind.children if name != "size")  # of an array
