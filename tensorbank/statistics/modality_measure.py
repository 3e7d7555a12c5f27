"""The measure of one modality of one sample, by its kind: numbers or classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tensorbank.schema import Modality
from tensorbank.statistics.classes import CategoryMeasure, measure_categories
from tensorbank.statistics.pixels import PixelMeasure, measure_pixels

__all__ = ["Measure", "measure"]

Measure = PixelMeasure | CategoryMeasure
"""The statistics of one modality of one sample."""


def measure(pixels: npt.NDArray[np.generic], modality: Modality, n_tiles: int) -> Measure:
    """Measure one sample of a modality.

    ``pixels`` is (time, band, y, x) in the stored dtype, of at most as many dates as the modality has; the finest statistics
    are of ``n_tiles`` x ``n_tiles`` cells. Pure.
    """
    if modality.categorical:
        return measure_categories(pixels, [code for code, _ in modality.classes], n_tiles)
    return measure_pixels(pixels, n_tiles)
