"""The row of the shards table of one shard: the roll-up of its samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from tensorbank.index_schema import shards_schema
from tensorbank.schema import Modality, TableSchema
from tensorbank.statistics import BandStats, merge_all
from tensorbank_indexer.measures import CategoryMeasure, Measure, PixelMeasure
from tensorbank_indexer.rows.arrow_columns import finite_only
from tensorbank_indexer.rows.stored_sample import StoredSample

__all__ = ["shard_row"]


def shard_row(samples: Sequence[StoredSample], schema: TableSchema, part: str, shard: int) -> pa.Table:
    """Return the one row of the shards table of a shard; none if it has no sample."""
    target = shards_schema(schema)
    if not samples:
        return target.empty_table()
    boxes = [b for s in samples if isinstance(b := s.facts.get("bbox"), Mapping)]
    times = [t for s in samples if (t := s.facts.get("S2_time") or s.facts.get("S1_time")) is not None]
    row: dict[str, object] = {
        "part": part,
        "shard": shard,
        "n_samples": len(samples),
        "bbox": _union(boxes),
        **_extremes(samples, "lon"),
        **_extremes(samples, "lat"),
        "first_time": min(times, default=None),  # type: ignore[type-var] # facts are of any type; times compare
        "last_time": max(times, default=None),  # type: ignore[type-var] # the same
        "seasons": sorted({str(s.facts["season"]) for s in samples if s.facts.get("season")}),
        **_extremes(samples, "cloud_cover"),
    }
    for modality in schema:
        present = [m for s in samples if (m := s.modalities.get(modality.name)) is not None]
        if present:
            row[modality.name] = {
                "key": present[0].ref["key"],
                "n_samples": len(present),
                "length": sum(int(str(m.ref["length"])) for m in present),
                **_rolled_up([m.measure for m in present], modality),
            }
    return finite_only(pa.Table.from_pylist([row], schema=target))


def _rolled_up(measures: Sequence[Measure], modality: Modality) -> dict[str, object]:
    """Return the statistics fields of one shard row."""
    if modality.categorical:
        counts = [m for m in measures if isinstance(m, CategoryMeasure)]
        classes = np.sum([m.classes for m in counts], axis=0)
        total = sum(m.count for m in counts)
        each = np.stack([m.classes / max(m.count, 1) for m in counts])
        names = [name for _, name in modality.classes]
        return {
            "count": total,
            "valid": int(classes.sum()),
            "share": dict(zip(names, (classes / total).tolist(), strict=True)),
            "min_share": dict(zip(names, each.min(axis=0).tolist(), strict=True)),
            "max_share": dict(zip(names, each.max(axis=0).tolist(), strict=True)),
        }
    pixels = [m for m in measures if isinstance(m, PixelMeasure)]
    bands = [[_band_stats(m, b) for m in pixels] for b in range(len(modality.bands))]
    rows = [_shard_band(merge_all(stats), [s.mean for s in stats if s.valid]) for stats in bands]
    return rows[0] if len(rows) == 1 else dict(zip(modality.band_names, rows, strict=True))


def _band_stats(measure: PixelMeasure, band: int) -> BandStats:
    """Return the statistics of one band of one sample, as they merge."""
    if not measure.valid[band]:
        return BandStats(count=measure.count)
    return BandStats(
        count=measure.count,
        valid=int(measure.valid[band]),
        min=float(measure.low[band]),
        max=float(measure.high[band]),
        mean=float(measure.mean[band]),
        m2=float(measure.m2[band]),
        histogram=measure.histogram[band].astype(np.int64),
    )


def _shard_band(stats: BandStats, means: Sequence[float]) -> dict[str, object]:
    """Return the fields of one band: merged statistics, and the extremes of its samples' means."""
    bins = np.flatnonzero(stats.histogram)
    some = stats.valid > 0
    return {
        "count": stats.count,
        "valid": stats.valid,
        "min": stats.min if some else None,
        "max": stats.max if some else None,
        "mean": stats.mean if some else None,
        "min_mean": min(means, default=None),
        "max_mean": max(means, default=None),
        "m2": stats.m2 if some else None,
        "bins": bins.tolist(),
        "bin_counts": stats.histogram[bins].tolist(),
    }


def _extremes(samples: Sequence[StoredSample], column: str) -> dict[str, float | None]:
    """Return the smallest and largest finite value of a column of facts.

    Bounds of a column must be extremes of that very column, as the samples table has it: pruning compares with them.
    """
    given = (s.facts.get(column) for s in samples)
    values = [float(v) for v in given if isinstance(v, int | float) and math.isfinite(v)]
    return {f"min_{column}": min(values, default=None), f"max_{column}": max(values, default=None)}


def _union(boxes: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """Return the box of boxes; all longitudes where one of them crosses the antimeridian."""
    if not boxes:
        return None
    crossing = any(b["west"] > b["east"] for b in boxes)
    return {
        "west": -180.0 if crossing else min(b["west"] for b in boxes),
        "south": min(b["south"] for b in boxes),
        "east": 180.0 if crossing else max(b["east"] for b in boxes),
        "north": max(b["north"] for b in boxes),
    }
