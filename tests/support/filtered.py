"""A table that tests filter by CQL2, and the names that a filter may use."""

from __future__ import annotations

from tensorbank import Band, Modality, TableSchema
from tensorbank_server.filters import queryables

SCHEMA = TableSchema(
    (
        Modality("S2L2A", "int16", (Band("B04"), Band("B08")), 1, 8, 8),
        Modality("NDVI", "float16", (Band("NDVI"),), 1, 8, 8),
        Modality("LULC", "uint8", (Band("LULC"),), 1, 8, 8, classes=((0, "no_data"), (1, "bare ground"))),
    )
)
NAMES = queryables(SCHEMA, "eo.terramesh")
