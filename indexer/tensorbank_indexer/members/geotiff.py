"""One modality of one sample as a GeoTIFF holds it, without a date: elevation, or classes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tensorbank.errors import ErrorKind, FormatError, InvalidInputError
from tensorbank_indexer.cf import NO_PLACE, Position, described_position, unpack
from tensorbank_indexer.containers import Allowance, Problem, readable
from tensorbank_indexer.members.member import Member, put_pixels, turn_north

__all__ = ["read_geotiff", "require_rasterio"]


def require_rasterio() -> None:
    """Return if GeoTIFFs can be read here: else every one of an archive would be left out.

    Raises
    ------
    InvalidInputError
        rasterio is not installed; the kind is ``missing-extra``.
    """
    try:
        import rasterio  # noqa: F401 - GDAL takes half a second, and few archives need it
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            "this archive has GeoTIFFs, which are read by rasterio; pip install 'tensorbank[geotiff]'",
            kind=ErrorKind.MISSING_EXTRA,
        ) from error


def read_geotiff(
    data: bytes | memoryview, *, modality: str = "", codes: bool = False, allowance: Allowance | None = None
) -> Member:
    """Decode a GeoTIFF to pixels (1, band, y, x), its place by its reference system and grid.

    Parameters
    ----------
    modality
        Name of the modality, which a single band gets.
    codes
        True if the pixels are codes of classes, which are not unpacked.

    Raises
    ------
    FormatError
        It is no GeoTIFF, or takes more than the limits; what it claims is checked before it is decoded.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile

    member = Member(Position())
    with warnings.catch_warnings(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            # Other formats that GDAL knows may name files and servers.
            with MemoryFile(bytes(data)) as file, file.open(driver="GTiff") as raster:
                dtypes = {np.dtype(name) for name in raster.dtypes}
                n_bytes = raster.count * raster.height * raster.width * max(d.itemsize for d in dtypes)
                (allowance or Allowance()).take("the image", n_bytes)
                pixels = raster.read()[None]
                attrs = _attributes(raster)
                member.position = _position(raster, member.problems)
        except RasterioError as error:
            raise FormatError(f"It is no sound GeoTIFF: {readable(str(error), 200)}.") from error
    pixels = unpack(pixels, attrs, None, member.problems, "the image", codes=codes)
    names = np.array([modality]) if pixels.shape[1] == 1 and modality else None
    put_pixels(member, pixels, names, modality)
    turn_north(member)
    return member


def _attributes(raster: Any) -> dict[str, Any]:
    """Return what the image declares of its numbers, under CF's names."""
    attrs: dict[str, Any] = {} if raster.nodata is None else {"_FillValue": raster.nodata}
    for name, values, identity in (("scale_factor", raster.scales, 1.0), ("add_offset", raster.offsets, 0.0)):
        if len({*values}) == 1 and values[0] != identity:
            attrs[name] = values[0]
    return attrs


def _position(raster: Any, problems: list[Problem]) -> Position:
    """Return the place by the grid; none where there is none, or where rows do not run from west to east."""
    grid = raster.transform
    if raster.crs is None or grid.is_identity:
        problems.append(
            Problem("bad-georeference", "The image has no reference system, or no grid.", NO_PLACE)
        )
        return Position()
    if grid.b or grid.d:
        problems.append(Problem("bad-georeference", "The grid is rotated.", NO_PLACE))
        return Position()
    x = grid.c + grid.a * (np.arange(raster.width) + 0.5)
    y = grid.f + grid.e * (np.arange(raster.height) + 0.5)
    arrays = {"x": x, "y": y, "crs": np.array(raster.crs.to_epsg() or raster.crs.to_wkt())}
    return described_position(arrays, problems, attrs=lambda _: {})
