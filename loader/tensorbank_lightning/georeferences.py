"""GeoTIFFs that hold nothing but where a sample lies, for writers of predictions, which copy the georeference of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tensorbank.errors import ErrorKind, InvalidInputError

__all__ = ["Georeferences"]

NODATA = 255
"""The value that no pixel has; writers ask for one."""


class Georeferences:
    """Files of georeferences in a folder, one a sample, some 300 bytes each.

    Parameters
    ----------
    folder
        Folder of the files, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(
        self,
        sample_ids: Sequence[str],
        epsg: Sequence[int | None],
        bounds: Sequence[Mapping[str, float] | None],
        height: int,
        width: int,
    ) -> list[str]:
        """Write a file for each sample, (1, height, width) uint8 of zeros, and return their paths.

        Parameters
        ----------
        sample_ids, epsg, bounds
            Columns of the index: the names of files, the codes of the grids, and their edges ``x_min``, ``y_min``, ``x_max``,
            ``y_max`` in the grids' units.

        Raises
        ------
        InvalidInputError
            A sample has no place, or rasterio is not installed (kind ``missing-extra``).
        """
        try:
            import rasterio
            from rasterio.transform import from_bounds
        except ModuleNotFoundError as error:
            raise InvalidInputError(
                f"predictions are georeferenced by {error.name}; pip install 'tensorbank[lightning]'",
                kind=ErrorKind.MISSING_EXTRA,
            ) from error
        pixels = np.zeros((1, height, width), np.uint8)
        paths = []
        for name, code, edges in zip(sample_ids, epsg, bounds, strict=True):
            corners: list[Any] = [(edges or {}).get(key) for key in ("x_min", "y_min", "x_max", "y_max")]
            if code is None or None in corners:
                raise InvalidInputError(
                    f"sample {name} has no georeference to write its prediction with; leave such samples out: "
                    "WHERE epsg IS NOT NULL AND bounds IS NOT NULL"
                )
            path = self.folder / f"{quote(name, safe='')}.tif"
            form = {
                "driver": "GTiff",
                "count": 1,
                "dtype": "uint8",
                "height": height,
                "width": width,
                "nodata": NODATA,
                "compress": "deflate",
            }
            place = {"crs": f"EPSG:{code}", "transform": from_bounds(*corners, width, height)}
            with rasterio.open(path, "w", **form, **place) as file:
                file.write(pixels)
            paths.append(str(path))
        return paths
