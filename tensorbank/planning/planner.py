"""The planner: SQL in, plans out."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tensorbank.addressing import address_columns, by_address, check_names, resolve, table_digest
from tensorbank.catalog import Catalog
from tensorbank.layout import Level
from tensorbank.planning.binding import Bound, Namespace, bind
from tensorbank.planning.editions import Editions
from tensorbank.planning.execution import Execution, executing
from tensorbank.planning.logs_ahead import LogsAhead, spelled
from tensorbank.planning.pinned_table import pin
from tensorbank.planning.rollups import n_rows, shard_rows, shard_totals
from tensorbank.planning.statement import parse
from tensorbank.planning.views import TableViews
from tensorbank.plans import Handle, LevelReport, Plan, PlanSource, StoreAddress, by_name
from tensorbank.pruning import count_row_groups
from tensorbank.reading import as_dataset
from tensorbank.retention import telling_expired
from tensorbank.sql import Parser, database, quoted, translated
from tensorbank.statements import Verdicts
from tensorbank.statistics import Statistics, of_samples, of_shards

if TYPE_CHECKING:
    import xarray

__all__ = ["PLANNER_VERSION", "Planner"]

PLANNER_VERSION = 3
"""The version of the planner, part of every fingerprint;
raised when the same query on the same snapshot may give another plan."""


class Planner:
    """The engine that answers SQL over the tables of one bank. A :class:`tensorbank.queries.query.QueryEngine`.

    Parameters
    ----------
    catalog
        Catalog of the tables and their index files.
    versions
        Tables pinned to a version; others are taken at their newest.
    registered
        The user's own tables, by name.
    """

    def __init__(
        self,
        catalog: Catalog,
        versions: Mapping[str, int] | None = None,
        registered: Mapping[str, pa.Table] | None = None,
    ) -> None:
        self.catalog = catalog
        self.versions = dict(versions or {})
        self.registered = dict(registered or {})

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Planner) and self._knows == other._knows and self.registered == other.registered
        )

    def __hash__(self) -> int:
        return hash(self._knows)

    @property
    def _knows(self) -> tuple[Hashable, ...]:
        """The identity of the tables, as far as that is quickly compared."""
        return (self.catalog.store.url, frozenset(self.versions.items()), frozenset(self.registered))

    def arrow(self, sql: str) -> pa.Table:
        """Return the rows of a query; a handle column holds its address.

        Raises
        ------
        InvalidInputError
            The SQL is wrong.
        """
        with self._executing(sql) as execution:
            return execution.rows()

    def plan(self, sql: str, *, by_date: bool = False) -> Plan:
        """Plan a query: the frozen answer. Without ORDER BY, samples come in the order of their bytes.

        Parameters
        ----------
        by_date
            Address each date of a sample alone, so that a loader can choose among them.

        Raises
        ------
        InvalidInputError
            The SQL is wrong, or a handle column cannot be told to be one modality.
        """
        with self._executing(sql, levels=["shards"], is_plan=True) as execution:
            answer = execution.answer()
            schemas = execution.bound.schemas
            stored = {t.name: t.table for t in execution.tables}
            resolved = [resolve(c, schemas, stored=stored, by_date=by_date) for c in answer.columns]
            handles = tuple(handle for _, handle in resolved)
            check_names(handles, answer.table.column_names)
            names = {column.name for column in answer.columns}
            data: dict[str, Any] = {n: answer.table[n] for n in answer.table.column_names if n not in names}
            for column, handle in zip(answer.columns, handles, strict=True):
                data |= address_columns(column, handle)
            table = pa.table(data)
            if not execution.bound.statement.is_ordered:
                table = by_address(table, handles)
            source = PlanSource(
                sql=sql.strip(),
                snapshots=by_name((t.table, *t.snapshot) for t in execution.tables),
                planner_version=PLANNER_VERSION,
                **_pruning(execution, answer.verdicts, resolved, table),
            )
        fingerprint = _fingerprint(execution.bound, source, handles, table)
        store = self.catalog.store
        return Plan(fingerprint, source, handles, table, StoreAddress(store.url, store.options))

    @property
    def scope(self) -> str:
        """See :attr:`tensorbank.queries.query.QueryEngine.scope`."""
        registered = {name: table_digest(table).hex() for name, table in self.registered.items()}
        return json.dumps([self.catalog.store.url, self.versions, registered], sort_keys=True)

    def adopted(self, plan: Plan) -> Plan:
        """Return a plan that another process made of this bank, to be read from the address and with the keys of this one."""
        return replace(plan, origin=StoreAddress(self.catalog.store.url, self.catalog.store.options))

    def statistics(self, sql: str, name: str) -> Statistics:
        """Summarize one handle of a query, from the index alone.

        Raises
        ------
        InvalidInputError
            The SQL is wrong, or it does not select the handle as a whole.
        """
        with self._executing(sql) as execution:
            return of_samples(*execution.statistics(name))

    def describe(self, table: str) -> dict[str, Statistics]:
        """Summarize every modality of a table, from the roll-ups of its shards; from all its samples if some are deleted."""
        with translated(self.catalog.told_tables), LogsAhead(self.catalog) as ahead:
            edition = Editions(self.versions).of(table)
            levels: tuple[Level, ...] = ("samples", "shards")
            if edition.version is None:
                ahead.begin(table, levels)
            pinned = pin(self.catalog, table, levels, edition, ahead)
        if pinned.deleted is not None and pinned.deleted.files:
            at = Planner(self.catalog, {table: pinned.version.version})
            return {
                m.name: at.statistics(f"SELECT {quoted(m.name)} FROM {quoted(table)}", m.name)
                for m in pinned.schema
            }
        with telling_expired(self.catalog, self.versions), database() as db:
            views = TableViews(db, self.catalog)
            with translated(self.catalog.told_tables, views.paths):
                shown = views.show(pinned.by_files({}))
                return {m.name: of_shards(m, shard_rows(views, shown, m)) for m in pinned.schema}

    def dataset(self, plan: Plan, max_bytes: int) -> xarray.Dataset:
        """Read a plan into an xarray dataset; see :func:`tensorbank.reading.xarray_dataset.as_dataset`."""
        return as_dataset(plan, max_bytes)

    @contextmanager
    def _executing(
        self, sql: str, *, levels: Collection[Level] = (), is_plan: bool = False
    ) -> Iterator[Execution]:
        """Parse, bind and begin to execute a statement, on an instance of DuckDB that is its own meanwhile."""
        namespace = Namespace(self.catalog, self.versions, self.registered)
        with self._ahead(sql, levels) as ahead, database() as db:
            parser = Parser(db.con)
            with translated(self.catalog.told_tables):
                statement = parse(sql, parser)
                bound = bind(
                    statement, namespace, parser, db.has_function, ahead, levels=levels, is_plan=is_plan
                )
            pinned = {t.table: t.version.version for t in bound.tables}
            with telling_expired(self.catalog, pinned), executing(bound, db, self.catalog) as execution:
                yield execution

    def _ahead(self, sql: str, levels: Collection[Level]) -> LogsAhead:
        """Begin to read the logs that a statement will need by the look of it."""
        ahead = LogsAhead(self.catalog)
        for name, of_table in spelled(sql).items():
            if name not in self.versions and name not in self.registered:
                ahead.begin(name, {"samples", *levels, *of_table})
        if ahead.has_begun:
            # What will serve files takes as long to import as a request: it need not come after the first ones.
            importlib.import_module("tensorbank.pieces.served_files")
        return ahead


def _pruning(
    execution: Execution, verdicts: Verdicts, resolved: Sequence[tuple[str, Handle]], table: pa.Table
) -> dict[str, Any]:
    """Return the levels and the cost of a scan, for :class:`PlanSource`."""
    n_shards: dict[str, int] = {}
    scan_blocks = scan_bytes = 0
    for pinned in execution.tables:
        mine = [handle for name, handle in resolved if name == pinned.name]
        modalities = [handle.modality.name for handle in mine]
        n_shards[pinned.name], totals = shard_totals(execution.views, pinned, modalities)
        for (n_samples, n_bytes), handle in zip(totals, mine, strict=True):
            scan_blocks += n_samples * handle.modality.n_blocks
            scan_bytes += n_bytes
    return {
        "levels": tuple(_levels(execution, n_shards, resolved, table)),
        "sorted_copies": {t.table: column for t in execution.tables if (column := t.sorted_by) is not None},
        "scan_blocks": scan_blocks,
        "scan_bytes": scan_bytes,
        "pixel_predicates": execution.bound.plain.n_pixel_predicates,
        "pixels_by_tiles": verdicts.by_tiles,
        "pixels_read": verdicts.read,
        "pixels_read_bytes": verdicts.read_bytes,
        "pixels_undecided": verdicts.undecided,
    }


def _levels(
    execution: Execution, n_shards: Mapping[str, int], resolved: Sequence[tuple[str, Handle]], table: pa.Table
) -> Iterator[LevelReport]:
    """Yield what each level of the index considered and kept, the coarsest first.

    A row group counts as pruned where its footer rules it out, as DuckDB does. What the last level keeps is the result; a
    level that is only joined to keeps what was not ruled out. Footers are asked here, though only ``explain()`` tells of them: a
    plan is saved and served, and explained where neither files nor DuckDB are at hand.
    """
    read = [(t, level) for t in execution.tables for level in t.mentioned]
    yield LevelReport(
        "files", sum(len(t.levels[v].files) for t, v in read), sum(len(t.kept[v].files) for t, v in read)
    )
    shards = [(n_shards[t.name], t) for t in execution.tables]
    yield LevelReport(
        "shards",
        sum(n for n, _ in shards),
        sum(n if t.shards_kept is None else t.shards_kept for n, t in shards),
    )
    files, footer = execution.views.files, execution.catalog.mirror.footer
    groups = [count_row_groups(execution.con, files[t.name, v], t.conditions[v], footer) for t, v in read]
    yield LevelReport("row groups", sum(n for n, _ in groups), sum(n for _, n in groups))
    tiles = any(h.window is not None for _, h in resolved)
    touched = {name for name, _ in resolved} or {t.name for t in execution.tables}
    for level in ("samples", "tiles"):
        mine = [t for t, v in read if v == level]
        rows = [(t, n_rows(execution.views, t, level)) for t in mine]
        considered = sum(n for _, n in rows)
        if (level == "tiles") == tiles:
            considered = sum(n for t, n in rows if t.name in touched)
            yield LevelReport(level, considered, min(table.num_rows, considered))
        elif mine:
            yield LevelReport(level, considered, sum(min(t.kept[level].n_rows, n) for t, n in rows))


def _fingerprint(bound: Bound, source: PlanSource, handles: Sequence[Handle], table: pa.Table) -> str:
    """Return a hash of the statement, of what it was asked of, and of its answer.

    The answer is part of it so that another selection is another plan, whatever its cause.
    """
    snapshots = [
        [*table.snapshot, sorted(table.pins.items())] for table in sorted(bound.tables, key=lambda t: t.name)
    ]
    canonical = bound.statement.canonical
    asked = [source.planner_version, snapshots, canonical, [h.name for h in handles if h.by_date]]
    digest = hashlib.sha256(json.dumps(asked).encode())
    for name, mine in sorted(bound.joined.items()):
        digest.update(name.encode() + table_digest(mine))
    digest.update(table_digest(table))
    return digest.hexdigest()[:32]
