"""Arrow schemas of the three index tables, derived from the modalities of a table.

``samples`` has one row a sample and is the source of truth, ``tiles`` one row a (sample, date, cell), ``shards`` one row a
(part, shard). A modality is one struct column in each: its statistics are fields of it, ``S2L2A.B08.mean`` for a
modality of several bands, ``NDVI.mean`` for one of a single band, ``LULC.share.trees`` for a categorical one. A shard also
has the bounds of its samples' means and shares, for these are what queries ask for, and those of their centres: ``bbox`` is
made of footprints, and bounds no centre.
The column's field metadata carries the modality's description.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from tensorbank.errors import FormatError
from tensorbank.schema import Modality, TableSchema
from tensorbank.statistics import QUANTILES

__all__ = [
    "HILBERT_ORDER",
    "METADATA_KEY",
    "REF_TYPE",
    "SEASONS",
    "TILE_REF_TYPE",
    "modality_columns",
    "samples_schema",
    "shards_schema",
    "table_schema",
    "tiles_schema",
]

METADATA_KEY = b"tensorbank.modality"
SEASONS: tuple[str, ...] = ("winter", "spring", "summer", "autumn", "mixed")
"""The meteorological seasons of the sample's hemisphere; ``mixed`` where its dates lie in several."""

HILBERT_ORDER = 16
"""The order of the Hilbert curve in the column ``hilbert``: its cells number ``4 ** HILBERT_ORDER``."""

TIME = pa.timestamp("us", tz="UTC")

REF_TYPE = pa.struct(
    [
        pa.field("key", pa.string()),
        pa.field("row", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("block_bytes", pa.list_(pa.int32())),
    ]
)
"""The address of a sample's blocks: shard key in the bank, index on the part's sample axis, bytes ``[offset,
offset + length)``, and the stored length of each block, date by date and band by band."""

TILE_REF_TYPE = pa.struct(
    [*REF_TYPE, *(pa.field(n, pa.int16()) for n in ("time_index", "y0", "y1", "x0", "x1"))]
)
"""A sample's address as in :data:`REF_TYPE`, repeated for each of its tiles, and the window of the tile: date and pixels
``[y0, y1) x [x0, x1)``. So a query of tiles needs no look at the samples; what repeats is small once encoded."""

SOURCE_TYPE = pa.struct(
    [
        pa.field("path", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("etag", pa.string()),
    ]
)
OFFSET_TYPE = pa.struct([pa.field("value", pa.float32()), pa.field("method", pa.string())])

_COUNTS = [pa.field("count", pa.int64()), pa.field("valid", pa.int64())]
_BOUNDS = [pa.field("min", pa.float64()), pa.field("max", pa.float64())]
_MOMENTS = [pa.field("mean", pa.float64()), pa.field("std", pa.float64())]

SAMPLE_BAND = [*_COUNTS, *_BOUNDS, *_MOMENTS, *(pa.field(n, pa.float32()) for n, _ in QUANTILES)]
SHARD_BAND = [
    *_COUNTS,
    *_BOUNDS,
    pa.field("mean", pa.float64()),
    pa.field("min_mean", pa.float64()),
    pa.field("max_mean", pa.float64()),
    pa.field("m2", pa.float64()),
    pa.field("bins", pa.list_(pa.int16())),
    pa.field("bin_counts", pa.list_(pa.int64())),
]
TILE_BAND = [
    pa.field("valid", pa.int32()),
    pa.field("min", pa.float32()),
    pa.field("max", pa.float32()),
    pa.field("mean", pa.float32()),
    pa.field("std", pa.float32()),
]

_BOX = [pa.field(n, pa.float64()) for n in ("west", "south", "east", "north")]

SAMPLE_COLUMNS = [
    pa.field("sample_id", pa.string()),
    pa.field("part", pa.string()),
    pa.field("split", pa.string()),
    pa.field("subset", pa.string()),
    pa.field("cell_id", pa.string()),
    pa.field("location_id", pa.string()),
    pa.field("season", pa.string()),
    pa.field("hilbert", pa.int64()),
    pa.field("lon", pa.float64()),
    pa.field("lat", pa.float64()),
    pa.field("epsg", pa.int32()),
    pa.field("bounds", pa.struct([pa.field(n, pa.float64()) for n in ("x_min", "y_min", "x_max", "y_max")])),
    pa.field("bbox", pa.struct(_BOX)),
    pa.field("footprint", pa.binary()),
    pa.field("S2_time", TIME),
    pa.field("S1_time", TIME),
    pa.field("S1_S2_difference_s", pa.float64()),
    pa.field("S2_times", pa.list_(TIME)),
    pa.field("S1_times", pa.list_(TIME)),
    pa.field("cloud_cover", pa.float64()),
    pa.field("cloud_covers", pa.list_(pa.float64())),
    pa.field("modalities", pa.list_(pa.string())),
    pa.field("stem", pa.string()),
    pa.field("key", pa.int64()),
]
TILE_COLUMNS = [
    pa.field("sample_id", pa.string()),
    pa.field("part", pa.string()),
    pa.field("split", pa.string()),
    pa.field("row", pa.int32()),
    pa.field("time_index", pa.int16()),
    pa.field("tile", pa.int16()),
    pa.field("season", pa.string()),
    pa.field("lon", pa.float64()),
    pa.field("lat", pa.float64()),
    pa.field("y0", pa.int16()),
    pa.field("y1", pa.int16()),
    pa.field("x0", pa.int16()),
    pa.field("x1", pa.int16()),
    pa.field("key", pa.int64()),
]
SHARD_COLUMNS = [
    pa.field("part", pa.string()),
    pa.field("shard", pa.int32()),
    pa.field("n_samples", pa.int32()),
    pa.field("bbox", pa.struct(_BOX)),
    pa.field("min_lon", pa.float64()),
    pa.field("max_lon", pa.float64()),
    pa.field("min_lat", pa.float64()),
    pa.field("max_lat", pa.float64()),
    pa.field("first_time", TIME),
    pa.field("last_time", TIME),
    pa.field("seasons", pa.list_(pa.string())),
    pa.field("min_cloud_cover", pa.float64()),
    pa.field("max_cloud_cover", pa.float64()),
]


def _statistics(
    modality: Modality, band: Sequence[pa.Field], *, share: pa.DataType, shares: Sequence[str] = ("share",)
) -> list[pa.Field]:
    """Return the statistics fields of a modality column at one level."""
    if modality.categorical:
        classes = pa.struct([pa.field(name, share) for _, name in modality.classes])
        return [*(f for f in band if f.name in ("count", "valid")), *(pa.field(n, classes) for n in shares)]
    if len(modality.bands) == 1:
        return list(band)
    return [pa.field(name, pa.struct(list(band))) for name in modality.band_names]


def _column(modality: Modality, fields: list[pa.Field]) -> pa.Field:
    return pa.field(modality.name, pa.struct(fields), metadata={METADATA_KEY: modality.to_json().encode()})


def samples_schema(schema: TableSchema) -> pa.Schema:
    """Return the columns of the samples table."""
    head = [
        pa.field("ref", REF_TYPE),
        pa.field("source", SOURCE_TYPE),
        pa.field("product_ids", pa.list_(pa.string())),
        pa.field("radiometric_offset", OFFSET_TYPE),
    ]
    columns = [_column(m, [*head, *_statistics(m, SAMPLE_BAND, share=pa.float64())]) for m in schema]
    return pa.schema([*SAMPLE_COLUMNS, *columns])


def tiles_schema(schema: TableSchema) -> pa.Schema:
    """Return the columns of the tiles table."""
    head = pa.field("ref", TILE_REF_TYPE)
    columns = [_column(m, [head, *_statistics(m, TILE_BAND, share=pa.float32())]) for m in schema]
    return pa.schema([*TILE_COLUMNS, *columns])


def shards_schema(schema: TableSchema) -> pa.Schema:
    """Return the columns of the shards table."""
    head = [pa.field("key", pa.string()), pa.field("n_samples", pa.int32()), pa.field("length", pa.int64())]
    shares = ("share", "min_share", "max_share")
    columns = [
        _column(m, [*head, *_statistics(m, SHARD_BAND, share=pa.float64(), shares=shares)]) for m in schema
    ]
    return pa.schema([*SHARD_COLUMNS, *columns])


def modality_columns(schema: pa.Schema) -> dict[str, Modality]:
    """Return the modalities described by the fields of an index table."""
    found = {}
    for field in schema:
        text = (field.metadata or {}).get(METADATA_KEY)
        if text is not None:
            found[field.name] = Modality.from_json(text.decode())
    return found


def table_schema(schema: pa.Schema) -> TableSchema:
    """Return the schema that :func:`samples_schema` describes; FormatError where no column is a modality."""
    found = modality_columns(schema)
    if not found:
        raise FormatError("the samples table has no modality column; it was not written by TensorBank")
    return TableSchema(tuple(found.values()))
