"""Columns of the index, level by level."""

from __future__ import annotations

import pyarrow as pa

from tensorbank import Band, Modality, TableSchema
from tensorbank.index_schema import modality_columns, samples_schema, shards_schema, tiles_schema

NDVI = Modality("NDVI", "float32", (Band("NDVI"),), 1, 264, 264)
S1 = Modality("S1", "float32", (Band("VV"), Band("VH")), 1, 264, 264)
LULC = Modality("LULC", "uint8", (Band("LULC"),), 1, 264, 264, classes=((0, "no_data"), (1, "water")))
SCHEMA = TableSchema((NDVI, S1, LULC))


def fields(schema: pa.Schema, *path: str) -> list[str]:
    kind = schema.field(path[0]).type
    for name in path[1:]:
        kind = kind.field(name).type
    return [kind.field(i).name for i in range(kind.num_fields)]


def test_statistics_of_one_band_stand_in_the_column_itself():
    assert {"ref", "source", "count", "valid", "min", "max", "mean", "std", "p50"} <= set(
        fields(samples_schema(SCHEMA), "NDVI")
    )


def test_statistics_of_several_bands_stand_under_their_names():
    assert {"ref", "VV", "VH"} <= set(fields(samples_schema(SCHEMA), "S1"))
    assert "mean" not in fields(samples_schema(SCHEMA), "S1")
    assert {"min", "mean", "p98"} <= set(fields(samples_schema(SCHEMA), "S1", "VH"))


def test_classes_have_shares_and_no_means():
    for make in (samples_schema, tiles_schema, shards_schema):
        columns = fields(make(SCHEMA), "LULC")
        assert "mean" not in columns
        assert fields(make(SCHEMA), "LULC", "share") == ["no_data", "water"]
    assert {"min_share", "max_share"} <= set(fields(shards_schema(SCHEMA), "LULC"))


def test_each_level_describes_the_modalities():
    for make in (samples_schema, tiles_schema, shards_schema):
        assert modality_columns(make(SCHEMA)) == {"NDVI": NDVI, "S1": S1, "LULC": LULC}


def test_each_level_says_where_its_rows_lie():
    assert {"sample_id", "part", "split"} <= set(samples_schema(SCHEMA).names)
    assert {"sample_id", "y0", "y1", "x0", "x1"} <= set(tiles_schema(SCHEMA).names)
    assert {"part", "shard", "n_samples", "bbox"} <= set(shards_schema(SCHEMA).names)
    assert {"key", "length"} <= set(fields(shards_schema(SCHEMA), "S1"))
