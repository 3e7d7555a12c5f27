"""Facts of the roll-ups of a table's shards that every plan needs, asked once for each snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.addressing import ShardKeys
from tensorbank.arrow_numpy import as_numpy
from tensorbank.layout import Level
from tensorbank.planning.pinned_table import PinnedTable
from tensorbank.planning.views import TableViews
from tensorbank.schema import Modality
from tensorbank.sql import quoted

__all__ = ["n_rows", "shard_keys", "shard_rows", "shard_totals"]


@dataclass(frozen=True)
class _Shards:
    """All shards of one snapshot: how many there are, their keys, and the samples and stored bytes of each modality."""

    n: int
    keys: ShardKeys
    totals: Mapping[str, tuple[int, int]]


def shard_keys(views: TableViews, tables: Sequence[PinnedTable]) -> ShardKeys:
    """Return all shards of some tables, which must be shown."""
    known = [_shards(views, table).keys for table in tables]
    return known[0] if len(known) == 1 else ShardKeys.of((k.hashes, k.keys) for k in known)


def shard_totals(
    views: TableViews, table: PinnedTable, modalities: Sequence[str]
) -> tuple[int, list[tuple[int, int]]]:
    """Count the shards of a table, and the samples and stored bytes of some of its modalities.

    Roll-ups count samples that are deleted, which are therefore subtracted.
    """
    shards = _shards(views, table)
    totals = [shards.totals[name] for name in modalities]
    dead = views.left_out(table, "samples") if modalities else None
    if dead is None:
        return shards.n, totals
    sums = [f"count({quoted(m)}), coalesce(sum({quoted(m)}.ref.length), 0)" for m in modalities]
    sql = f"SELECT {', '.join(sums)} FROM {dead}"
    found = views.catalog.fact(
        *table.snapshot, ("deleted totals", *modalities), lambda: views.con.execute(sql).fetchall()[0]
    )
    pairs = zip(totals, map(int, found[::2]), map(int, found[1::2]), strict=True)
    return shards.n, [(n - less, n_bytes - fewer) for (n, n_bytes), less, fewer in pairs]


def n_rows(views: TableViews, table: PinnedTable, level: Level) -> int:
    """Count the rows of a level that are not deleted."""
    every = table.levels[level].n_rows
    if table.deleted is None or not table.deleted.files:
        return every
    if level == "samples":
        return every - table.deleted.n_rows

    def find() -> int:
        sql = f"SELECT count(*) FROM {views.left_out(table, level)}"
        return int(views.con.execute(sql).fetchall()[0][0])

    return every - views.catalog.fact(*table.snapshot, ("deleted rows", level), find)


def shard_rows(views: TableViews, table: PinnedTable, modality: Modality) -> pa.Table:
    """Return the roll-ups of one modality, a row for each shard that has it."""
    column = quoted(modality.name)
    rows = views.con.sql(f"SELECT unnest({column}) FROM {views.shards(table)} WHERE {column} IS NOT NULL")
    return rows.to_arrow_table()


def _shards(views: TableViews, table: PinnedTable) -> _Shards:
    return views.catalog.fact(*table.snapshot, "shards", partial(_read_shards, views, table))


def _read_shards(views: TableViews, table: PinnedTable) -> _Shards:
    """Read what plans need of all shards, by one question: each costs more than what it reads."""
    columns = [
        f"{m}.key AS k{i}, hash({m}.key) AS h{i}, {m}.n_samples AS n{i}, {m}.length AS b{i}"
        for i, m in enumerate(quoted(m.name) for m in table.schema)
    ]
    rows = views.con.sql(f"SELECT {', '.join(columns)} FROM {views.shards(table)}").to_arrow_table()
    pairs, totals = [], {}
    for i, modality in enumerate(table.schema):
        there = rows.select([f"{letter}{i}" for letter in "khnb"])
        there = there.filter(pc.is_valid(there[f"k{i}"]))
        keys = pa.concat_arrays([pa.nulls(0, pa.string()), *there[f"k{i}"].chunks])
        pairs.append((as_numpy(there[f"h{i}"]), keys))
        n_samples, n_bytes = (int(pc.sum(there[f"{letter}{i}"]).as_py() or 0) for letter in "nb")
        totals[modality.name] = n_samples, n_bytes
    return _Shards(rows.num_rows, ShardKeys.of(pairs), totals)
