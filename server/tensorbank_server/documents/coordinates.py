"""Coordinates of virtual Zarr groups: the ids, times and places of samples, and the names of bands. Pure.

A coordinate is a Zarr v3 array of one chunk along one dimension: texts as data type ``string`` (codec ``vlen-utf8``), numbers as
float64 or int64, times as CF writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numcodecs.vlen import VLenUTF8

from tensorbank.layout import dimension_names
from tensorbank.plans import Handle, Plan
from tensorbank.schema import Modality

__all__ = ["CHUNK", "Coordinate", "of_band_names", "of_plan"]

CHUNK = "c/0"
"""The key of a coordinate's only chunk."""
NO_TIME = np.iinfo(np.int64).min
"""The number that stands for a missing time of a sample; NumPy's NaT."""


@dataclass(frozen=True, slots=True)
class Coordinate:
    """An array along one dimension.

    Parameters
    ----------
    values
        (n,) texts, float64 or int64.
    """

    dimension: str
    values: Any
    attributes: Mapping[str, object] = field(default_factory=dict)

    @property
    def _is_text(self) -> bool:
        return bool(self.values.dtype == object)

    def document(self) -> dict[str, object]:
        """Return its ``zarr.json``."""
        n = len(self.values)
        fill: object
        if self._is_text:
            kind, fill, codec = "string", "", {"name": "vlen-utf8", "configuration": {}}
        else:
            kind = str(self.values.dtype)
            fill = "NaN" if kind == "float64" else self.attributes.get("_FillValue", 0)
            codec = {"name": "bytes", "configuration": {"endian": "little"}}
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [n],
            "data_type": kind,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(n, 1)]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": fill,
            "codecs": [codec],
            "attributes": dict(self.attributes),
            "dimension_names": [self.dimension],
            "storage_transformers": [],
        }

    def chunk(self) -> bytes:
        """Return its values as bytes of its only chunk."""
        if self._is_text:
            return bytes(VLenUTF8().encode(self.values))
        return bytes(self.values.astype(self.values.dtype.newbyteorder("<"), copy=False).tobytes())


def of_plan(plan: Plan) -> dict[str, Coordinate]:
    """Return the metadata columns of a plan that a coordinate can hold, and the names of its bands."""
    found = {}
    for name in plan.metadata_columns:
        values, attributes = _values(plan.table[name])
        if values is not None:
            found[name] = Coordinate("sample", values, attributes)
    return {**of_band_names(plan.handles), **found}


def of_band_names(handles: Iterable[Handle]) -> dict[str, Coordinate]:
    """Return the names of the bands of each handle, as the coordinate of its band dimension."""
    handles = list(handles)
    modalities: list[Modality] = [h.modality for h in handles]
    found = {}
    for handle in handles:
        dimension = dimension_names(handle.modality, modalities)[2]
        names = [handle.modality.band_names[b] for b in handle.bands]
        found[dimension] = Coordinate(dimension, np.array(names, object))
    return found


def _values(column: pa.ChunkedArray) -> tuple[Any, dict[str, object]]:
    """Return the values of a column and their attributes; None for a type that no coordinate can hold."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(pc.fill_null(column, "").to_pylist(), object), {}
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        times = column.cast(pa.timestamp("us")).cast(pa.int64())
        filled = pc.fill_null(times, int(NO_TIME)).to_numpy()
        units = "microseconds since 1970-01-01"
        return filled, {"units": units, "calendar": "proleptic_gregorian", "_FillValue": int(NO_TIME)}
    if pa.types.is_integer(kind) and not column.null_count:
        return column.cast(pa.int64(), safe=False).to_numpy(), {}
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        floats = column.cast(pa.int8()) if pa.types.is_boolean(kind) else column
        return pc.fill_null(floats.cast(pa.float64(), safe=False), float("nan")).to_numpy(), {}
    return None, {}
