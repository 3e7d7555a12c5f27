"""Encoders of tensors: NumPy, safetensors, GeoTIFF. Pure: arrays in, bytes out.

Tensors are (time, band, y, x). A GeoTIFF has one sample a (time, band), in this order, and float16, which GDAL before
3.11 does not know, as float32.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyproj
from safetensors.numpy import save as save_safetensors

from tensorbank.errors import ErrorKind, NotFoundError

__all__ = ["MEDIA_TYPES", "Georeference", "as_geotiff", "as_npy", "as_npz", "as_safetensors"]

Tensor = npt.NDArray[np.generic]
Georeference = tuple[int, tuple[float, float, float, float]]
"""The place of a tensor: EPSG code and (x_min, y_min, x_max, y_max) in its units."""

MEDIA_TYPES = {
    "npy": "application/x-npy",
    "npz": "application/x-npz",
    "safetensors": "application/vnd.safetensors",
    "tif": "image/tiff; application=geotiff; profile=cloud-optimized",
}
MAX_BLOCK_PIXELS = 512
"""The longest side of a GeoTIFF's block, in pixels; GDAL's own default."""


def as_npy(tensor: Tensor) -> bytes:
    """Encode a tensor in NumPy's own format."""
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, np.lib.format.header_data_from_array_1_0(tensor))
    return b"".join((sink.getvalue(), tensor.data.cast("B")))


def as_npz(tensors: Mapping[str, Tensor]) -> bytes:
    """Encode several arrays, not compressed."""
    sink = io.BytesIO()
    np.savez(sink, **dict(tensors))  # type: ignore[arg-type] # numpy's stub takes any name for allow_pickle
    return sink.getvalue()


def as_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Encode several arrays and their metadata."""
    return bytes(save_safetensors(dict(tensors), dict(metadata)))


def georeference(
    row: Mapping[str, object], height: int, width: int, window: tuple[int, int, int, int]
) -> Georeference:
    """Return the place of a window of a sample.

    Raises
    ------
    NotFoundError
        The sample has no place in a projection.
    """
    bounds, epsg = row.get("bounds"), row.get("epsg")
    if not isinstance(bounds, Mapping) or not isinstance(epsg, int) or None in bounds.values():
        raise NotFoundError(
            "the sample is not georeferenced; ask for another format", kind=ErrorKind.NO_GEOREFERENCE
        )
    x_min, y_min, x_max, y_max = (float(bounds[n]) for n in ("x_min", "y_min", "x_max", "y_max"))
    if not (_is_projection(epsg) and x_min < x_max and y_min < y_max):
        raise NotFoundError(
            "the georeference of the sample cannot be used; ask for another format",
            kind=ErrorKind.NO_GEOREFERENCE,
        )
    dx, dy = (x_max - x_min) / width, (y_max - y_min) / height
    y0, y1, x0, x1 = window
    return epsg, (x_min + x0 * dx, y_max - y1 * dy, x_min + x1 * dx, y_max - y0 * dy)


@lru_cache(maxsize=1_024)
def _is_projection(epsg: int) -> bool:
    """Tell whether a code is that of a projection; an index may hold any number."""
    try:
        pyproj.CRS.from_epsg(epsg)
    except pyproj.exceptions.CRSError:
        return False
    return True


def as_geotiff(
    tensor: Tensor,
    place: Georeference,
    names: Sequence[str],
    *,
    no_data: float | None = None,
    categorical: bool = False,
) -> bytes:
    """Return a cloud-optimized GeoTIFF (OGC 21-026), north up, pixel is area, not compressed.

    Up to 512 pixels a side it is one block; what is larger has blocks of 512 and overviews, so that a client that zooms out
    reads little of it.

    Parameters
    ----------
    tensor
        (n, y, x).
    names
        (n,) of the bands.
    categorical
        Overviews then pick a pixel, since a mean of classes is none of them.
    """
    # GDAL takes a while to load, and few services are asked for GeoTIFFs
    import rasterio.shutil
    from rasterio.io import MemoryFile
    from rasterio.transform import from_bounds

    if tensor.dtype == np.float16:
        tensor = tensor.astype(np.float32)
    epsg, bounds = place
    n, height, width = tensor.shape
    block = min(-(-max(height, width) // 16) * 16, MAX_BLOCK_PIXELS)
    with MemoryFile() as plain, MemoryFile() as optimized:
        with plain.open(
            driver="GTiff",
            width=width,
            height=height,
            count=n,
            dtype=tensor.dtype,
            crs=f"EPSG:{epsg}",
            transform=from_bounds(*bounds, width, height),
            nodata=no_data,
            interleave="band",
        ) as dataset:
            dataset.write(tensor)
            dataset.descriptions = tuple(names)
        rasterio.shutil.copy(
            plain.name,
            optimized.name,
            driver="COG",
            blocksize=block,
            compress="NONE",
            overviews="AUTO",
            overview_resampling="NEAREST" if categorical else "AVERAGE",
        )
        return bytes(optimized.getbuffer())
