"""Answers of pixel predicates from the statistics of a sample's tiles."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from tensorbank.catalog import Catalog
from tensorbank.planning.pinned_table import PinnedTable
from tensorbank.pruning import Compare
from tensorbank.schema import Modality
from tensorbank.sql import Database, literal, quoted, read_parquet
from tensorbank.statements import Bounds, PixelPredicate, bounds, decision

__all__ = ["TileAnswers"]


class TileAnswers:
    """Answers from the tiles of a bank, whose statistics say more than those of the sample. May be called by many threads.

    Parameters
    ----------
    db
        The instance whose other connection is asked while a statement runs on the first.
    """

    def __init__(self, db: Database, catalog: Catalog) -> None:
        self._db = db
        self._catalog = catalog
        self._lock = threading.Lock()

    def find(
        self,
        predicate: PixelPredicate,
        table: PinnedTable,
        modality: Modality,
        key: str,
        offsets: Sequence[int],
    ) -> dict[int, float]:
        """Return the answers of a predicate for samples of one shard, by their offset, where their tiles decide it.

        The bounds of a sample are the sums of those of its tiles, which must be all of them: as many pixels as it has.
        """
        handle = quoted(modality.name)
        bands = [modality.band_names[modality.band_index(b)] for b in predicate.bands]
        paths = [f"{handle}.{quoted(b)}" if len(modality.bands) > 1 else handle for b in bands]
        each = bounds(predicate, handle, paths, modality, "tiles")
        summed = Bounds("sum(low)", "sum(high)", "sum(n)")
        with self._lock:
            in_shard = Compare((modality.name.lower(), "ref", "key"), "=", key)
            files = self._catalog.state(table.version, "tiles").files.matching(in_shard)
            if not files.files:
                return {}
            scan = read_parquet(self._catalog.mirror.scan(files.files, in_shard, self._db.serve))
            found = self._db.side.sql(
                f"""
                SELECT "offset", ({decision(predicate, summed, "NULL")})::DOUBLE AS answer
                FROM (SELECT {handle}.ref."offset" AS "offset", {each.low} AS low, {each.high} AS high, {each.count} AS n
                      FROM {scan}
                      WHERE {handle}.ref.key = {literal(key)}
                        AND {handle}.ref."offset" BETWEEN {min(offsets)} AND {max(offsets)})
                GROUP BY ALL
                HAVING sum(n) = {math.prod(modality.sample_shape) // len(modality.bands)} AND count(low) = count(*)
                   AND answer IS NOT NULL
                """
            ).fetchall()
        return dict(found)
