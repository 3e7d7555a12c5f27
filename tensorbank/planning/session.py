"""SQL over index files, by DuckDB.

The index files of a snapshot are read in place (or from the local mirror) by ``read_parquet``, so DuckDB prunes row groups
and reads only the struct leaves that a query names. A selected handle is narrowed before execution: statistics that nobody
asked for are not read. Each session has a connection of its own; results do not depend on the number of threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from tensorbank.arrow_numpy import as_numpy, strings
from tensorbank.catalog import Catalog
from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.layout import Level, part_of_key
from tensorbank.planning.handle_columns import HandleColumn
from tensorbank.planning.handle_fields import address, shown
from tensorbank.planning.pinned_table import PinnedTable, pin, pin_mentioned
from tensorbank.planning.shard_keys import ShardKeys
from tensorbank.planning.views import TableViews, quoted, read_parquet
from tensorbank.pruning import ANYTHING, AllOf, wanted
from tensorbank.schema import Modality, TableSchema
from tensorbank.sql import (
    POLYGON_FUNCTION,
    TABLES,
    SqlFunctions,
    Syntax,
    Translated,
    as_relations,
    database,
    tensor_type,
    without_semicolon,
)
from tensorbank.statements import (
    Bounds,
    PixelPredicate,
    Verdicts,
    bounds,
    check_handles,
    check_inside,
    check_known,
    check_repeatable,
    decision,
    find_slip,
    functions_of,
    mentions,
    n_predicates,
    rewrite,
    settle,
    shorten,
    unknown_column,
)

__all__ = ["Judge", "Session"]

_NO_STATISTICS = {"ref", "source", "product_ids", "radiometric_offset"}


class Judge(Protocol):
    """An evaluator of pixel predicates; :class:`tensorbank.planning.pixel_judge.PixelJudge` is one."""

    schemas: dict[str, TableSchema]

    @property
    def verdicts(self) -> Verdicts: ...

    def judge(
        self, refs: Sequence[Mapping[str, Any] | None], text: str, ask_tiles: Any
    ) -> list[float | None]: ...


class Session:
    """One DuckDB connection with the views that one statement needs."""

    def __init__(
        self,
        catalog: Catalog,
        versions: Mapping[str, int],
        registered: Mapping[str, pa.Table],
        judge: Judge,
    ) -> None:
        self.catalog = catalog
        self.versions = versions
        self.registered = registered
        self.judge = judge
        self.n_pixel_predicates = 0
        self.joined: dict[str, pa.Table] = {}
        self._tiles_lock = threading.Lock()
        self.handles: dict[str, tuple[tuple[str, str], ...]] = {}

    def __enter__(self) -> Session:
        self._stack = ExitStack()
        self._db = self._stack.enter_context(database())
        self.con = self._db.con
        self.syntax = Syntax(self.con)
        self.views = TableViews(self._db, self.catalog)
        self._functions = SqlFunctions(self.con)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._functions.close()
        try:
            self._stack.__exit__(kind, error, trace)
        finally:
            self._functions.raise_failure()

    def rows(self, sql: str, *, levels: set[Level], narrow: str) -> pa.Table:
        """Execute a statement with its handle columns narrowed to ``ref`` or to their ``address``.

        ``levels`` are attached beside those that the statement names.
        """
        with Translated(self.catalog.told_tables, self.views.paths, lambda report: self._slip(sql, report)):
            pivots = self.syntax.with_columns(sql) is not None
            text = self._attach(
                self.syntax.select(sql), levels, repeatable=narrow == "address", whole_tables=pivots
            )
            if pivots:
                text = self._pivoted(sql, planned=narrow == "address")
            relation = self.con.sql(text)
            names = list(relation.columns)
            kinds = list(relation.types)
            aliases = [f"c{i}" for i in range(len(names))]
            parts = []
            for name, kind, alias in zip(names, kinds, aliases, strict=True):
                fields = _struct_fields(kind)
                if "ref" in fields:
                    self.handles[name] = self.views.candidates(str(kind))
                    is_tile = "y0" in _struct_fields(dict(kind.children)["ref"])
                    blocks = "bands" in fields or self._have_dates(self.handles[name])
                    narrowed = (
                        shown(alias, is_tile=is_tile)
                        if narrow == "ref"
                        else address(alias, fields, is_tile=is_tile, blocks=blocks)
                    )
                    parts.append(f"{narrowed} AS {alias}")
                elif narrow == "address" and {"key", "offset", "length"} <= fields and "row" not in fields:
                    raise InvalidInputError(
                        f"column {name!r} holds addresses that another query returned, of whatever snapshot; "
                        "join its rows by sample_id and select the tensor from the table"
                    )
                elif narrow == "address" and 'STRUCT("ref"' in str(kind):
                    raise InvalidInputError(
                        f"column {name!r} holds tensors inside of a list or struct; select a tensor as a column of its own"
                    )
                else:
                    parts.append(alias)
            query = f"SELECT {', '.join(parts)} FROM (\n{text}\n) AS q({', '.join(aliases)})"
            table = self.con.sql(query).to_arrow_table()
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InvalidInputError(f"the result has two columns named {twice!r}; give one an alias with AS")
        table = table.rename_columns(names)
        return self._described(table) if self._describes(sql) else table

    def statistics_rows(self, sql: str, name: str) -> tuple[Modality, pa.Table]:
        """Return the statistics fields of one handle column of a statement,
        a row for each of its rows that has the modality.

        Raises
        ------
        InvalidInputError
            The statement selects no such handle, or only some of its bands.
        """
        with Translated(self.catalog.told_tables, self.views.paths, lambda report: self._slip(sql, report)):
            text = self._attach(self.syntax.select(sql), set())
            relation = self.con.sql(text)
            kinds = dict(zip(relation.columns, relation.types, strict=True))
            handles = {n: _struct_fields(k) for n, k in kinds.items() if "ref" in _struct_fields(k)}
            column = next((n for n in handles if n.lower() == name.lower()), None)
            if column is None:
                raise InvalidInputError(f"the query selects no tensor {name!r}.{nearest(name, handles)}")
            candidates = self.views.candidates(str(kinds[column]))
            fields = [f for f, _ in kinds[column].children if f not in _NO_STATISTICS]
            if "bands" in fields or not candidates:
                raise InvalidInputError(f"statistics need the whole handle; select {name} without bands()")
            named = [c for c in candidates if c[1].lower() == column.lower()] or list(candidates)
            table = next(t for t in self.views.tables if t.name == named[0][0])
            wanted = ", ".join(f"c.{quoted(f)} AS {quoted(f)}" for f in fields)
            aliases = ", ".join("c" if n == column else f"other{i}" for i, n in enumerate(relation.columns))
            rows = self.con.sql(f"SELECT {wanted} FROM (\n{text}\n) AS q({aliases}) WHERE c IS NOT NULL")
            return table.schema[named[0][1]], rows.to_arrow_table()

    def shard_rows(self, table: str) -> Iterator[tuple[Modality, pa.Table]]:
        """Yield the roll-ups of every modality of a table, a row for each shard that has it."""
        with Translated(self.catalog.told_tables, self.views.paths):
            pinned = pin(self.catalog, table, ["samples", "shards"], self.versions.get(table))
            self.views.show(pinned.by_files({}))
            for modality in pinned.schema:
                column = quoted(modality.name)
                rows = self.con.sql(
                    f"SELECT unnest({column}) FROM {quoted(table)}.shards WHERE {column} IS NOT NULL"
                )
                yield modality, rows.to_arrow_table()

    def handle_columns(self, rows: pa.Table) -> list[HandleColumn]:
        """Handle columns of a result of :meth:`rows`, narrowed to addresses.

        Raises
        ------
        InvalidInputError
            A handle comes from another snapshot.
        """
        if not self.handles:
            return []
        known = [
            self.catalog.fact(*t.snapshot, "shard keys", partial(self._shard_keys, t))
            for t in self.views.tables
        ]
        shards = known[0] if len(known) == 1 else ShardKeys.of((k.hashes, k.keys) for k in known)
        return [HandleColumn.of(name, rows[name], found, shards) for name, found in self.handles.items()]

    def _shard_keys(self, table: PinnedTable) -> ShardKeys:
        """Return all shards of a table whose shards are attached."""
        listed = ", ".join(f"{quoted(m.name)}.key" for m in table.schema)
        rows = self.con.sql(
            f"SELECT hash(key) AS hash, key FROM (SELECT unnest([{listed}]) AS key FROM {quoted(table.name)}.shards) "
            "WHERE key IS NOT NULL"
        ).to_arrow_table()
        keys = pa.concat_arrays([pa.nulls(0, pa.string()), *rows["key"].chunks])
        return ShardKeys.of([(as_numpy(rows["hash"]), keys)])

    def ordered(self, sql: str) -> bool:
        """Tell whether the statement itself fixes the order of its rows."""
        node = self.syntax.tree(sql)["statements"][0]["node"]
        return any(m.get("type") == "ORDER_MODIFIER" for m in node.get("modifiers", []))

    def shard_totals(self, table: str, modalities: Sequence[str]) -> tuple[int, list[tuple[int, int]]]:
        """Count the shards of a table whose shards are attached;
        samples and stored bytes of some of its modalities."""
        pinned = next(t for t in self.views.tables if t.name == table)
        what = ("shard totals", *modalities)
        return self.catalog.fact(*pinned.snapshot, what, lambda: self._shard_totals(table, modalities))

    def _shard_totals(self, table: str, modalities: Sequence[str]) -> tuple[int, list[tuple[int, int]]]:
        sums = [f"coalesce(sum({quoted(m)}.{n}), 0)" for m in modalities for n in ("n_samples", "length")]
        counted = f"SELECT {', '.join(['count(*)', *sums])} FROM {quoted(table)}.shards"
        n, *found = map(int, self.con.execute(counted).fetchall()[0])
        return n, list(zip(found[::2], found[1::2], strict=True))

    def tile_answers(
        self, predicate: PixelPredicate, table: str, modality: Modality, key: str, offsets: Sequence[int]
    ) -> dict[int, float]:
        """Return the answers of a pixel predicate for samples of one shard, by their offset,
        where their tiles decide it.

        Called while a statement runs, from DuckDB's threads; so it has a connection of its own.
        """
        handle = quoted(modality.name)
        bands = [modality.band_names[modality.band_index(b)] for b in predicate.bands]
        paths = [f"{handle}.{quoted(b)}" if len(modality.bands) > 1 else handle for b in bands]
        each = bounds(predicate, handle, paths, modality, "tiles")
        summed = Bounds("sum(low)", "sum(high)", "sum(n)")
        with self._tiles_lock:
            files = self.catalog.files(table, "tiles").of_parts(frozenset({part_of_key(key)}))
            if not files.files:
                return {}
            scan = read_parquet([str(p) for p in self.catalog.mirror.readable(files.files)])
            found = self._db.side.sql(
                f"""
                SELECT "offset", ({decision(predicate, summed, "NULL")})::DOUBLE AS answer
                FROM (SELECT {handle}.ref."offset" AS "offset", {each.low} AS low, {each.high} AS high, {each.count} AS n
                      FROM {scan}
                      WHERE {handle}.ref.key = '{key}'
                        AND {handle}.ref."offset" BETWEEN {min(offsets)} AND {max(offsets)})
                GROUP BY ALL
                HAVING sum(n) = {math.prod(modality.sample_shape) // len(modality.bands)} AND count(low) = count(*)
                   AND answer IS NOT NULL
                """
            ).fetchall()
        return dict(found)

    def _slip(self, sql: str, report: str) -> InvalidInputError | None:
        """Find what is wrong with the names in a statement that DuckDB cannot answer."""
        schemas = {t.name: t.schema for t in self.views.tables}
        columns = {name for types in self.views.types.values() for name in types}
        if not schemas:
            return None
        return find_slip(self.syntax.tree(self.syntax.select(sql)), schemas) or unknown_column(
            report, columns
        )

    def _pivoted(self, sql: str, *, planned: bool) -> str:
        """The text of a statement whose PIVOT takes its columns from the data."""
        if planned or functions_of(self.syntax.tree(self.syntax.select(sql))):
            raise InvalidInputError(
                "a PIVOT whose columns the data name gives other columns of another snapshot; name them, such as "
                "PIVOT t ON split IN ('train', 'val') USING count(*)",
                kind=ErrorKind.SQL,
            )
        self._db.use_up()
        return without_semicolon(sql)

    def _described(self, table: pa.Table) -> pa.Table:
        """Return the names and types of columns, with the types of handles as those of their tensors."""
        if "column_type" not in table.column_names:
            return table
        modalities = {m.name: m for t in self.views.tables for m in t.schema}
        types = [
            tensor_type(modalities.get(name), kind)
            for name, kind in zip(
                table["column_name"].to_pylist(), table["column_type"].to_pylist(), strict=True
            )
        ]
        place = table.column_names.index("column_type")
        return table.set_column(place, "column_type", strings(types))

    def _attach(
        self, sql: str, levels: set[Level], *, repeatable: bool = False, whole_tables: bool = False
    ) -> str:
        """Create the views of every bank table that the statement names, over the files that may hold its answer.

        Returns the statement in DuckDB's own terms.
        """
        whole = self.syntax.tree(sql)
        if not repeatable and self._describes(sql):
            whole = self._shown(whole)
        tree = shorten(whole, self.syntax.node)
        check_inside(tree)
        named = {(str(n.get("schema_name") or ""), str(n["table_name"])) for n in mentions(tree)}
        for name, table_of_user in self.registered.items():
            if any(
                schema.lower() in ("", "main") and table.lower() == name.lower() for schema, table in named
            ):
                self.joined[name] = table_of_user
                self._db.register(name, table_of_user)
        found = pin_mentioned(self.catalog, tree, levels, self.versions, self.joined)
        schemas = {t.name: t.schema for t in found}
        check_known(tree, schemas, self.joined, lambda: [*self.catalog.told_tables(), *self.registered])
        if repeatable:
            check_repeatable(tree, self._db.has_function)
        check_handles(tree, schemas)
        plain, text = self._in_plain_sql(tree, sql, schemas, exact=repeatable)
        conditions = wanted(plain, schemas)
        if tree is not whole:
            listed = wanted(whole, schemas)
            conditions = {at: AllOf((c, listed[at])) for at, c in conditions.items()}
        if whole_tables:
            conditions = dict.fromkeys(conditions, ANYTHING)
        for pinned in found:
            mine = {level: c for (table, level), c in conditions.items() if table == pinned.name}
            self.views.show(pinned.by_files(mine))
        if tree is not whole and not self._binds(text):
            _, text = self._in_plain_sql(whole, sql, schemas, exact=repeatable)
        return text

    def _describes(self, sql: str) -> bool:
        """Tell whether a statement may ask for tables or columns rather than for rows."""
        return '"SHOW_REF"' in self.syntax.canonical(sql)

    def _shown(self, tree: Any) -> Any:
        """The tree of a statement that shows tables, with a relation that lists them."""
        names = strings(self.catalog.tables())
        self.joined[TABLES] = pa.Table.from_arrays([names], names=["name"])
        self._db.register(TABLES, self.joined[TABLES])
        return as_relations(tree, lambda sql: self.syntax.tree(sql)["statements"][0]["node"]["from_table"])

    def _binds(self, sql: str) -> bool:
        try:
            self.con.sql(sql)
        except duckdb.BinderException:
            return False
        return True

    def _settled(
        self, tree: Any, sql: str, schemas: Mapping[str, TableSchema], *, exact: bool
    ) -> tuple[Any, str]:
        """The statement with its ties broken, to be executed by one thread where its answer still depends on the order of rows.

        ``exact`` counts the last digits of sums as part of the answer.
        """
        settled = settle(tree, schemas, {n: t.column_names for n, t in self.joined.items()}, self.syntax.name)
        serial = settled.by_arrival or (exact and settled.by_digits)
        if settled.tree != tree:
            text = self.syntax.text(settled.tree)
            if self.syntax.says(text, settled.tree):
                tree, sql = settled.tree, text
            else:  # words were lost on the way back
                serial = True
        if serial:
            self._db.one_thread()
        return tree, sql

    def _in_plain_sql(
        self, tree: Any, sql: str, schemas: Mapping[str, TableSchema], *, exact: bool
    ) -> tuple[Any, str]:
        """The statement of a tree with its ties broken, and without predicates that DuckDB does not have."""
        if tree != self.syntax.tree(sql):
            sql = self.syntax.text(tree)
        tree, sql = self._settled(tree, sql, schemas, exact=exact)
        self.n_pixel_predicates = n_predicates(tree)
        called = functions_of(tree)
        if POLYGON_FUNCTION in called:
            self._functions.add_polygons()
        if self.n_pixel_predicates:
            self.judge.schemas.update(schemas)
            self._functions.add_pixels(lambda refs, text: self.judge.judge(refs, text, self.tile_answers))
        if not called:
            return tree, sql
        changed = rewrite(tree, schemas, self.syntax.node)
        return changed, self.syntax.text(changed)

    def _have_dates(self, candidates: Sequence[tuple[str, str]]) -> bool:
        """Tell whether one of some modalities has several dates:
        a window's blocks are only some of a sample's, which may lack some."""
        schemas = {t.name: t.schema for t in self.views.tables}
        return any(schemas[table][name].n_times > 1 for table, name in candidates)


def _struct_fields(kind: Any) -> set[str]:
    return {str(name) for name, _ in kind.children} if kind.id == "struct" else set()
