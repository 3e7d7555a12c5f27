"""Questions to the roll-ups of a table's shards, by SQL over the views of one statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from tensorbank.addressing import ShardKeys
from tensorbank.arrow_numpy import as_numpy
from tensorbank.catalog import Catalog
from tensorbank.layout import Level
from tensorbank.planning.pinned_table import PinnedTable
from tensorbank.schema import Modality
from tensorbank.sql import quoted

__all__ = ["n_rows", "shard_keys", "shard_rows", "shard_totals"]


def shard_keys(con: Any, catalog: Catalog, tables: Sequence[PinnedTable]) -> ShardKeys:
    """Return all shards of some tables, which must be shown."""
    known = [catalog.fact(*t.snapshot, "shard keys", partial(_shard_keys, con, t)) for t in tables]
    return known[0] if len(known) == 1 else ShardKeys.of((k.hashes, k.keys) for k in known)


def shard_totals(
    con: Any,
    catalog: Catalog,
    table: PinnedTable,
    modalities: Sequence[str],
    left_out: Callable[[PinnedTable, Level], str | None],
) -> tuple[int, list[tuple[int, int]]]:
    """Count the shards of a table, and the samples and stored bytes of some of its modalities.

    Roll-ups count samples that are deleted, which are therefore subtracted; ``left_out`` gives SQL to select them from.
    """

    def find() -> tuple[int, list[tuple[int, int]]]:
        n_shards, totals = _shard_totals(con, table.name, modalities)
        dead = left_out(table, "samples")
        if dead is None or not modalities:
            return n_shards, totals
        sums = [f"count({quoted(m)}), coalesce(sum({quoted(m)}.ref.length), 0)" for m in modalities]
        found = [int(n) for n in con.execute(f"SELECT {', '.join(sums)} FROM {dead}").fetchall()[0]]
        pairs = zip(totals, found[::2], found[1::2], strict=True)
        return n_shards, [(n - less, n_bytes - fewer) for (n, n_bytes), less, fewer in pairs]

    return catalog.fact(*table.snapshot, ("shard totals", *modalities), find)


def n_rows(
    con: Any,
    catalog: Catalog,
    table: PinnedTable,
    level: Level,
    left_out: Callable[[PinnedTable, Level], str | None],
) -> int:
    """Count the rows of a level that are not deleted."""
    every = table.levels[level].n_rows
    if table.deleted is None or not table.deleted.files:
        return every
    if level == "samples":
        return every - table.deleted.n_rows

    def find() -> int:
        return int(con.execute(f"SELECT count(*) FROM {left_out(table, level)}").fetchall()[0][0])

    return every - catalog.fact(*table.snapshot, ("deleted rows", level), find)


def shard_rows(con: Any, table: str, modality: Modality) -> pa.Table:
    """Return the roll-ups of one modality, a row for each shard that has it."""
    column = quoted(modality.name)
    rows = con.sql(f"SELECT unnest({column}) FROM {quoted(table)}.shards WHERE {column} IS NOT NULL")
    return rows.to_arrow_table()


def _shard_keys(con: Any, table: PinnedTable) -> ShardKeys:
    listed = ", ".join(f"{quoted(m.name)}.key" for m in table.schema)
    rows = con.sql(
        f"SELECT hash(key) AS hash, key FROM (SELECT unnest([{listed}]) AS key FROM {quoted(table.name)}.shards) "
        "WHERE key IS NOT NULL"
    ).to_arrow_table()
    keys = pa.concat_arrays([pa.nulls(0, pa.string()), *rows["key"].chunks])
    return ShardKeys.of([(as_numpy(rows["hash"]), keys)])


def _shard_totals(con: Any, table: str, modalities: Sequence[str]) -> tuple[int, list[tuple[int, int]]]:
    sums = [f"coalesce(sum({quoted(m)}.{n}), 0)" for m in modalities for n in ("n_samples", "length")]
    counted = f"SELECT {', '.join(['count(*)', *sums])} FROM {quoted(table)}.shards"
    n, *found = map(int, con.execute(counted).fetchall()[0])
    return n, list(zip(found[::2], found[1::2], strict=True))
