"""Questions to the roll-ups of a table's shards, by SQL over the views of one statement."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from tensorbank.addressing import ShardKeys
from tensorbank.arrow_numpy import as_numpy
from tensorbank.catalog import Catalog
from tensorbank.planning.pinned_table import PinnedTable
from tensorbank.schema import Modality
from tensorbank.sql import quoted

__all__ = ["shard_keys", "shard_rows", "shard_totals"]


def shard_keys(con: Any, catalog: Catalog, tables: Sequence[PinnedTable]) -> ShardKeys:
    """Return all shards of some tables, which must be shown."""
    known = [catalog.fact(*t.snapshot, "shard keys", partial(_shard_keys, con, t)) for t in tables]
    return known[0] if len(known) == 1 else ShardKeys.of((k.hashes, k.keys) for k in known)


def shard_totals(
    con: Any, catalog: Catalog, table: PinnedTable, modalities: Sequence[str]
) -> tuple[int, list[tuple[int, int]]]:
    """Count the shards of a table, and the samples and stored bytes of some of its modalities."""
    what = ("shard totals", *modalities)
    return catalog.fact(*table.snapshot, what, lambda: _shard_totals(con, table.name, modalities))


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
