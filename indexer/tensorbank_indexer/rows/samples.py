"""Rows of the samples table of one shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from tensorbank.index_schema import REF_TYPE, SOURCE_TYPE, samples_schema
from tensorbank.schema import Modality, TableSchema
from tensorbank.statistics import QUANTILES
from tensorbank_indexer.measures import CategoryMeasure, Measure, PixelMeasure
from tensorbank_indexer.rows.arrow_columns import (
    class_shares,
    fact_column,
    finite_only,
    nearest_float32,
    nullable,
    per_band,
    stacked,
    struct_of,
)
from tensorbank_indexer.rows.stored_sample import StoredSample

__all__ = ["sample_rows"]


def sample_rows(samples: Sequence[StoredSample], schema: TableSchema) -> pa.Table:
    """Return the rows of the samples table, one a sample, in order; a modality that a sample lacks is null."""
    target = samples_schema(schema)
    arrays = [fact_column(samples, field) for field in target if field.name not in schema]
    for modality in schema:
        stored = [s.modalities.get(modality.name) for s in samples]
        present = [m for m in stored if m is not None]
        offset = target.field(modality.name).type.field("radiometric_offset").type
        head = {
            "ref": pa.array([m.ref for m in present], REF_TYPE),
            "source": pa.array([m.source for m in present], SOURCE_TYPE),
            "product_ids": pa.array([list(m.product_ids) for m in present], pa.list_(pa.string())),
            "radiometric_offset": pa.array([m.radiometric_offset for m in present], offset),
        }
        statistics = _sample_statistics([m.measure for m in present], modality)
        arrays.append(_scatter({**head, **statistics}, stored, target.field(modality.name).type))
    return finite_only(pa.Table.from_arrays(arrays, schema=target))


def _scatter(fields: Mapping[str, pa.Array], stored: Sequence[object], kind: pa.StructType) -> pa.Array:
    """Return structs over all samples, null where ``stored`` has None, of fields over the samples where it has not."""
    dense = struct_of(fields, kind)
    place = np.cumsum([m is not None for m in stored]) - 1
    index = pa.array(
        [int(p) if m is not None else None for p, m in zip(place, stored, strict=True)], pa.int64()
    )
    return dense.take(index)


def _sample_statistics(measures: Sequence[Measure], modality: Modality) -> dict[str, pa.Array]:
    """Return the fields of statistics of the samples that have the modality."""
    if modality.categorical:
        counts = [m for m in measures if isinstance(m, CategoryMeasure)]
        classes = stacked([m.classes for m in counts], (len(modality.classes),))
        total = np.array([m.count for m in counts], np.int64)
        return {
            "count": pa.array(total),
            "valid": pa.array(classes.sum(axis=1).astype(np.int64)),
            "share": class_shares(classes, total, modality),
        }
    pixels = [m for m in measures if isinstance(m, PixelMeasure)]
    n = len(modality.bands)
    total = np.array([m.count for m in pixels], np.int64)
    valid = stacked([m.valid for m in pixels], (n,)).astype(np.int64)
    low, high = stacked([m.low for m in pixels], (n,)), stacked([m.high for m in pixels], (n,))
    mean, m2 = stacked([m.mean for m in pixels], (n,)), stacked([m.m2 for m in pixels], (n,))
    std = np.sqrt(m2 / np.maximum(valid, 1))
    quantiles = stacked([m.quantiles for m in pixels], (n, len(QUANTILES)))
    bands = [
        {
            "count": pa.array(total),
            "valid": pa.array(valid[:, b]),
            "min": nullable(low[:, b]),
            "max": nullable(high[:, b]),
            "mean": nullable(mean[:, b]),
            "std": nullable(std[:, b]),
            **{q: nullable(nearest_float32(quantiles[:, b, i])) for i, (q, _) in enumerate(QUANTILES)},
        }
        for b in range(n)
    ]
    return per_band(bands, modality)
