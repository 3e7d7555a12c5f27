"""Tensors as bytes of the formats that people open them with. Pure: arrays in, bytes out.

Tensors are (time, band, y, x). A GeoTIFF has one sample a (time, band), in this order, and float16, which GDAL before
3.11 does not know, as float32.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import pyproj
import tifffile
from safetensors.numpy import save as save_safetensors

from tensorbank.errors import NotFoundError

__all__ = ["MEDIA_TYPES", "Georeference", "as_geotiff", "as_npy", "as_npz", "as_safetensors"]

Tensor = npt.NDArray[np.generic]
Georeference = tuple[int, tuple[float, float, float, float]]
"""EPSG code and (x_min, y_min, x_max, y_max) of the tensor, in its units."""

MEDIA_TYPES = {
    "npy": "application/x-npy",
    "npz": "application/x-npz",
    "safetensors": "application/vnd.safetensors",
    "tif": "image/tiff; application=geotiff",
}
_PIXEL_SCALE, _TIE_POINT, _GEO_KEYS, _METADATA, _NO_DATA = 33550, 33922, 34735, 42112, 42113


def as_npy(tensor: Tensor) -> bytes:
    """NumPy's own format."""
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, np.lib.format.header_data_from_array_1_0(tensor))
    return b"".join((sink.getvalue(), tensor.data.cast("B")))


def as_npz(tensors: Mapping[str, Tensor]) -> bytes:
    """Several arrays, not compressed."""
    sink = io.BytesIO()
    np.savez(sink, **dict(tensors))  # type: ignore[arg-type] # numpy's stub takes any name for allow_pickle
    return sink.getvalue()


def as_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Several arrays and some words about them."""
    return bytes(save_safetensors(dict(tensors), dict(metadata)))


def georeference(
    row: Mapping[str, object], height: int, width: int, window: tuple[int, int, int, int]
) -> Georeference:
    """Where a window of a sample lies.

    Raises
    ------
    NotFoundError
        The sample has no place in a projection.
    """
    bounds, epsg = row.get("bounds"), row.get("epsg")
    if not isinstance(bounds, Mapping) or not isinstance(epsg, int) or None in bounds.values():
        raise NotFoundError("the sample is not georeferenced; ask for another format", kind="no-georeference")
    x_min, y_min, x_max, y_max = (float(bounds[n]) for n in ("x_min", "y_min", "x_max", "y_max"))
    dx, dy = (x_max - x_min) / width, (y_max - y_min) / height
    y0, y1, x0, x1 = window
    return epsg, (x_min + x0 * dx, y_max - y1 * dy, x_min + x1 * dx, y_max - y0 * dy)


def as_geotiff(
    tensor: Tensor, place: Georeference, names: Sequence[str], no_data: float | None = None
) -> bytes:
    """An uncompressed GeoTIFF (OGC 19-008r4), north up, pixel is area.

    Parameters
    ----------
    tensor
        (n, y, x).
    names
        (n,) of the bands.
    """
    if tensor.dtype == np.float16:
        tensor = tensor.astype(np.float32)
    epsg, (x_min, y_min, x_max, y_max) = place
    _, height, width = tensor.shape
    scale = ((x_max - x_min) / width, (y_max - y_min) / height, 0.0)
    geographic = pyproj.CRS.from_epsg(epsg).is_geographic
    keys = [(1024, 0, 1, 2 if geographic else 1), (1025, 0, 1, 1), (2048 if geographic else 3072, 0, 1, epsg)]
    directory = [1, 1, 1, len(keys), *(n for key in keys for n in key)]
    items = "".join(
        f'<Item name="DESCRIPTION" sample="{i}" role="description">{escape(name)}</Item>'
        for i, name in enumerate(names)
    )
    tags = [
        (_PIXEL_SCALE, 12, 3, scale, True),
        (_TIE_POINT, 12, 6, (0.0, 0.0, 0.0, x_min, y_max, 0.0), True),
        (_GEO_KEYS, 3, len(directory), directory, True),
        (_METADATA, 2, 0, f"<GDALMetadata>{items}</GDALMetadata>", True),
    ]
    if no_data is not None:
        tags.append((_NO_DATA, 2, 0, f"{no_data:g}", True))
    sink = io.BytesIO()
    tifffile.imwrite(
        sink,
        tensor,
        photometric="minisblack",
        planarconfig="separate" if len(tensor) > 1 else None,
        metadata=None,
        software="TensorBank",
        extratags=tags,
    )
    return sink.getvalue()
