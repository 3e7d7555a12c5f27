"""Columns of index rows in Arrow: numbers and structs of statistics, without NaN and infinity.

In an index NaN and infinity make answers depend on its layout: a comparison with NaN prunes a row group or not, by the other
values in it. So every table of rows passes :func:`finite_only` before it leaves this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.schema import Modality
from tensorbank_indexer.rows.stored_sample import StoredSample

__all__ = [
    "class_shares",
    "fact_column",
    "finite_only",
    "nearest_float32",
    "nullable",
    "per_band",
    "stacked",
    "struct_of",
]


def fact_column(samples: Sequence[StoredSample], field: pa.Field) -> pa.Array:
    """Return one column of facts, null where a sample lacks it."""
    return pa.array([s.facts.get(field.name) for s in samples], field.type)


def nullable(values: npt.NDArray[np.generic]) -> pa.Array:
    """Make an Arrow array with null for NaN."""
    return pa.array(values, from_pandas=True)


def nearest_float32(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the nearest float32 of each value; infinite beyond its range."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def stacked(arrays: Sequence[npt.NDArray[np.generic]], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Stack arrays of one shape to (n, *shape); n may be 0."""
    return np.stack(arrays) if arrays else np.zeros((0, *shape))


def class_shares(
    classes: npt.NDArray[np.generic], total: npt.NDArray[np.generic], modality: Modality
) -> pa.StructArray:
    """Return the share of each class, a struct with one field a class.

    ``classes`` (n, class) counts pixels by class, ``total`` (n,) all pixels, those of no class included.
    """
    names = [name for _, name in modality.classes]
    share = classes / np.maximum(total, 1)[:, None]
    return pa.StructArray.from_arrays([pa.array(share[:, i]) for i in range(len(names))], names)


def per_band(bands: Sequence[dict[str, pa.Array]], modality: Modality) -> dict[str, pa.Array]:
    """Return the fields of a modality: those of its band if there is one, else one struct per band."""
    if len(bands) == 1:
        return bands[0]
    names = modality.band_names
    return {
        n: pa.StructArray.from_arrays(list(b.values()), list(b)) for n, b in zip(names, bands, strict=True)
    }


def struct_of(fields: Mapping[str, pa.Array], kind: pa.StructType) -> pa.StructArray:
    """Return the fields as structs of a type, each cast to its own."""
    return pa.StructArray.from_arrays([fields[f.name].cast(f.type) for f in kind], fields=list(kind))


def finite_only(rows: pa.Table) -> pa.Table:
    """Return the rows with null for every NaN and infinity, in every column and however deep in structs and lists. Pure."""
    columns = [_finite(column.combine_chunks()) for column in rows.columns]
    return pa.Table.from_arrays(columns, schema=rows.schema)


def _finite(array: pa.Array) -> pa.Array:
    """Return one array without NaN and infinity; the array itself if it has none."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    kind = array.type
    if pa.types.is_floating(kind):
        sound = pc.fill_null(pc.is_finite(array), True)
        return (
            array if pc.all(sound, min_count=0).as_py() else pc.if_else(sound, array, pa.scalar(None, kind))
        )
    if pa.types.is_struct(kind):
        fields = [array.field(i) for i in range(kind.num_fields)]
        found = [_finite(field) for field in fields]
        if all(new is old for new, old in zip(found, fields, strict=True)):
            return array
        return pa.StructArray.from_arrays(found, fields=list(kind), mask=array.is_null())
    if pa.types.is_list(kind):
        found = _finite(array.values)
        if found is array.values or found.equals(array.values):
            return array
        return pa.ListArray.from_arrays(array.offsets, found, type=kind, mask=array.is_null())
    return array
