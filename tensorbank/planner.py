"""The planner: SQL in, plans out. Pure but for the session that it asks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.catalog import Catalog
from tensorbank.handles import address_columns, check_names, resolve
from tensorbank.mirror import IndexMirror
from tensorbank.plan import Handle, LevelReport, Plan, PlanSource
from tensorbank.refine import PixelJudge
from tensorbank.session import Session
from tensorbank.statistics import Statistics, of_samples, of_shards

__all__ = ["PLANNER_VERSION", "Planner"]

PLANNER_VERSION = 1
"""Part of every fingerprint; raised when the same query on the same snapshot may give another plan."""


class Planner:
    """Answers SQL over the tables of one bank. A :class:`tensorbank.query.QueryEngine`.

    Parameters
    ----------
    catalog, mirror
        Where tables and their index files are.
    versions
        Tables pinned to a version; others are taken at their newest.
    registered
        The user's own tables, by name.
    """

    def __init__(
        self,
        catalog: Catalog,
        mirror: IndexMirror,
        versions: Mapping[str, int] | None = None,
        registered: Mapping[str, pa.Table] | None = None,
    ) -> None:
        self.catalog = catalog
        self.mirror = mirror
        self.versions = dict(versions or {})
        self.registered = dict(registered or {})

    def arrow(self, sql: str) -> pa.Table:
        """Rows of a query; a handle column holds its address.

        Raises
        ------
        InvalidInputError
            The SQL is wrong.
        """
        with self._session() as session:
            return session.rows(sql, levels={"samples"}, narrow="ref")

    def plan(self, sql: str) -> Plan:
        """The frozen answer of a query. Without ORDER BY, samples come in the order of their bytes.

        Raises
        ------
        InvalidInputError
            The SQL is wrong, or a handle column cannot be told to be one modality.
        """
        with self._session() as session:
            rows = session.rows(sql, levels={"samples", "shards"}, narrow="address")
            columns = session.handle_columns(rows)
            schemas = {t.name: t.schema for t in session.tables}
            resolved = [resolve(c, schemas) for c in columns]
            handles = tuple(handle for _, handle in resolved)
            check_names(handles, rows.column_names)
            names = {c.name for c in columns}
            data: dict[str, Any] = {n: rows[n] for n in rows.column_names if n not in names}
            for column, handle in zip(columns, handles, strict=True):
                data |= address_columns(column, handle)
            table = pa.table(data)
            if handles and not session.ordered(sql):
                table = _by_address(table, handles)
            source = PlanSource(
                bank=self.catalog.store.url,
                sql=sql.strip(),
                snapshots={t.name: t.snapshot for t in session.tables},
                planner_version=PLANNER_VERSION,
                **_pruning(session, resolved, table),
            )
            fingerprint = _fingerprint(session.canonical(sql), source, session.joined)
        return Plan(fingerprint, source, handles, table, self.catalog.store.options)

    def statistics(self, sql: str, name: str) -> Statistics:
        """Summary of one handle of a query, from the index alone.

        Raises
        ------
        InvalidInputError
            The SQL is wrong, or it does not select the handle as a whole.
        """
        with self._session() as session:
            return of_samples(*session.statistics_rows(sql, name))

    def describe(self, table: str) -> dict[str, Statistics]:
        """Summary of every modality of a table, from the roll-ups of its shards."""
        with self._session() as session:
            return {m.name: of_shards(m, rows) for m, rows in session.shard_rows(table)}

    def _session(self) -> Session:
        store = self.catalog.store
        judge = PixelJudge(store.url, store.options)
        return Session(self.catalog, self.mirror, self.versions, self.registered, judge)


def _pruning(session: Session, resolved: Sequence[tuple[str, Handle]], table: pa.Table) -> dict[str, Any]:
    """Levels and the cost of a scan, for :class:`PlanSource`."""
    touched = list(dict.fromkeys(t for t, _ in resolved)) or [t.name for t in session.tables]
    samples = sum(t.levels["samples"].n_rows for t in session.tables if t.name in touched)
    totals = [session.shard_totals(name, handle.modality.name) for name, handle in resolved]
    kept = sum(len(pc.unique(table[f"{h.name}.key"].combine_chunks().drop_null())) for _, h in resolved)
    levels = [LevelReport("shards", sum(n for n, _, _ in totals), kept)] if resolved else []
    levels.append(LevelReport("samples", samples, min(table.num_rows, samples)))
    return {
        "levels": tuple(levels),
        "scan_blocks": sum(
            n * h.modality.n_blocks for (_, n, _), (_, h) in zip(totals, resolved, strict=True)
        ),
        "scan_bytes": sum(n for _, _, n in totals),
        "pixels_decided": session.judge.verdicts.decided,
        "pixels_read": session.judge.verdicts.read,
        "pixels_read_bytes": session.judge.verdicts.read_bytes,
    }


def _by_address(table: pa.Table, handles: Sequence[Handle]) -> pa.Table:
    """Rows in the order of the first handle's bytes, rows without it last.

    Ties are broken by the other handles and by the plain columns: DuckDB's order of them depends on its threads.
    """
    if not table.num_rows:
        return table
    sort: dict[str, Any] = {}
    for handle in handles:
        sort[f"{handle.name}.key"] = table[f"{handle.name}.key"].cast(pa.string())
        sort[f"{handle.name}.start"] = pc.list_element(table[f"{handle.name}.starts"], 0)
    mine = {f"{h.name}.{field}" for h in handles for field in ("key", "starts", "lengths")}
    sort |= {
        n: table[n] for n in table.column_names if n not in mine and _sortable(table.schema.field(n).type)
    }
    by = pa.table(list(sort.values()), names=[str(i) for i in range(len(sort))])
    table = table.take(pc.sort_indices(by, [(name, "ascending") for name in by.column_names]))
    for handle in handles:  # a dictionary lists its keys in the order in which the rows came
        place = table.schema.get_field_index(f"{handle.name}.key")
        keys = table.column(place).cast(pa.string()).combine_chunks()
        table = table.set_column(place, f"{handle.name}.key", keys.dictionary_encode())
    return table


def _sortable(kind: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(kind) or pa.types.is_string(kind))


def _fingerprint(canonical: str, source: PlanSource, joined: Mapping[str, pa.Table]) -> str:
    snapshots = sorted(source.snapshots.values())
    text = json.dumps([source.planner_version, snapshots, canonical])
    digest = hashlib.sha256(text.encode())
    for name, table in sorted(joined.items()):
        digest.update(name.encode())
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()[:32]
