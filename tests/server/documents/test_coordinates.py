"""Coordinates of virtual Zarr groups, as zarr-python and xarray read them."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
import xarray
import zarr
from zarr.core.buffer import default_buffer_prototype

from tensorbank.layout import group_document
from tensorbank_server.documents.coordinates import CHUNK, Coordinate, _values

MOMENTS = [
    datetime(2020, 4, 8, 14, 30, tzinfo=UTC),
    None,
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
]
CASES = {
    "text": (pa.array(["a", None, "größer 東"]), ["a", "", "größer 東"]),
    "coded": (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    "double": (pa.array([1.5, None, float("inf")]), [1.5, np.nan, np.inf]),
    "float": (pa.array([1.5, None, -2.0], pa.float32()), [1.5, np.nan, -2.0]),
    "whole": (pa.array([1, -(2**62), 3]), [1, -(2**62), 3]),
    "holes": (pa.array([1, None, 3], pa.int32()), [1.0, np.nan, 3.0]),
    "truth": (pa.array([True, None, False]), [1.0, np.nan, 0.0]),
    "time": (
        pa.array(MOMENTS, pa.timestamp("us", tz="UTC")),
        np.array([m and m.replace(tzinfo=None) for m in MOMENTS], "datetime64[us]"),
    ),
    "day": (
        pa.array([date(2021, 2, 28), None, date(1900, 1, 1)]),
        np.array(["2021-02-28", None, "1900-01-01"], "datetime64[D]"),
    ),
}


def opened(coordinates: dict[str, Coordinate]) -> xarray.Dataset:
    """Put a group of coordinates in memory and open it by its consolidated metadata."""
    store = zarr.storage.MemoryStore()
    make = default_buffer_prototype().buffer.from_bytes
    documents = {n: c.document() for n, c in coordinates.items()}
    group = group_document({"coordinates": " ".join(coordinates)}, documents)

    async def fill() -> None:
        await store.set("zarr.json", make(json.dumps(group).encode()))
        for name, coordinate in coordinates.items():
            await store.set(f"{name}/zarr.json", make(json.dumps(documents[name]).encode()))
            await store.set(f"{name}/{CHUNK}", make(coordinate.chunk()))

    asyncio.run(fill())
    return xarray.open_zarr(store, consolidated=True, chunks=None)


@pytest.mark.parametrize("name", CASES)
def test_a_column_is_read_back(name):
    column, expected = CASES[name]
    values, attributes = _values(pa.chunked_array([column.slice(0, 1), column.slice(1)]))
    dataset = opened({name: Coordinate("sample", values, attributes)})
    assert name in dataset.coords
    np.testing.assert_array_equal(dataset[name].values, np.array(expected))


def test_what_has_no_coordinate_is_left_out():
    assert _values(pa.chunked_array([pa.array([[1], [2]])])) == (None, {})


def test_an_empty_selection_has_empty_coordinates():
    values, attributes = _values(pa.chunked_array([pa.array([], pa.string())]))
    assert opened({"sample_id": Coordinate("sample", values, attributes)}).sizes == {"sample": 0}
