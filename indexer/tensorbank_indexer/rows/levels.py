"""The rows that the samples of a shard, or of a part, have in the tables of the index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from tensorbank.schema import TableSchema
from tensorbank_indexer.rows.samples import sample_rows
from tensorbank_indexer.rows.shards import shard_row
from tensorbank_indexer.rows.stored_sample import StoredSample
from tensorbank_indexer.rows.tiles import tile_rows

__all__ = ["IndexRows", "index_rows"]


@dataclass(frozen=True, slots=True)
class IndexRows:
    """Rows of the three tables of the index, in the schemas of :mod:`tensorbank.index_schema`."""

    samples: pa.Table
    tiles: pa.Table
    shards: pa.Table

    @classmethod
    def of_shards(cls, rows: Iterable[IndexRows]) -> IndexRows:
        """Join the rows of shards, at least one, in order."""
        rows = list(rows)
        return cls(
            pa.concat_tables([r.samples for r in rows]),
            pa.concat_tables([r.tiles for r in rows]),
            pa.concat_tables([r.shards for r in rows]),
        )


def index_rows(
    samples: Sequence[StoredSample], schema: TableSchema, *, part: str, shard: int, n_tiles: int
) -> IndexRows:
    """Return the index rows of one shard; no rows if it has no sample."""
    return IndexRows(
        sample_rows(samples, schema),
        tile_rows(samples, schema, n_tiles),
        shard_row(samples, schema, part, shard),
    )
