"""Statistics made anew from decoded pixels, and where the index says something else. Pure.

Counts, bounds, quantiles, shares and histograms are compared exactly, but for float32's rounding in tiles. Means and standard
deviations may differ by a millionth of the range of the values: sums of floats depend on the order in which a processor adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.schema import Modality
from tensorbank.statistics import QUANTILES, CategoryMeasure, Measure

__all__ = ["sample_differences", "tile_differences"]

RELATIVE = 1e-6
ROUNDING = 2.0**-22
"""The relative error of a float32 that was rounded outward."""


def sample_differences(said: Mapping[str, Any], measure: Measure, modality: Modality) -> Iterator[str]:
    """Yield the statistics of a row of samples that are not those of its pixels.

    Parameters
    ----------
    said
        Struct of the modality in the row.
    """
    if isinstance(measure, CategoryMeasure):
        yield from _differences(
            said, {"count": measure.count, "valid": int(measure.classes.sum())}, {}, modality.name
        )
        shares = _shares(measure.classes, measure.count, modality)
        yield from _differences(
            said["share"] or {}, shares, dict.fromkeys(shares, RELATIVE), f"{modality.name}.share"
        )
        return
    for b, (path, band) in enumerate(_bands(said, modality)):
        width = _width(measure.low[b], measure.high[b])
        some = measure.valid[b] > 0
        wanted = {
            "count": measure.count,
            "valid": int(measure.valid[b]),
            "min": measure.low[b],
            "max": measure.high[b],
            "mean": measure.mean[b],
            "std": np.sqrt(measure.m2[b] / measure.valid[b]) if some else np.nan,
            **{q: np.float32(measure.quantiles[b, i]) for i, (q, _) in enumerate(QUANTILES)},
        }
        yield from _differences(band, wanted, {"mean": RELATIVE * width, "std": RELATIVE * width}, path)


def tile_differences(
    said: Mapping[str, Any], measure: Measure, modality: Modality, cell: tuple[int, int, int]
) -> Iterator[str]:
    """Yield the statistics of a row of tiles that are not those of its pixels; ``cell`` is its date, row and column."""
    if isinstance(measure, CategoryMeasure):
        classes, count = measure.tile_classes[cell], int(measure.tile_count[cell])
        yield from _differences(said, {"valid": int(classes.sum())}, {}, modality.name)
        shares = _shares(classes, count, modality)
        yield from _differences(
            said["share"] or {}, shares, dict.fromkeys(shares, RELATIVE), f"{modality.name}.share"
        )
        return
    t, y, x = cell
    for b, (path, band) in enumerate(_bands(said, modality)):
        low, high = measure.tile_low[t, b, y, x], measure.tile_high[t, b, y, x]
        width = _width(low, high)
        wanted = {
            "valid": int(measure.tile_valid[t, b, y, x]),
            "min": low,
            "max": high,
            "mean": measure.tile_mean[t, b, y, x],
            "std": measure.tile_std[t, b, y, x],
        }
        rounding = {"min": ROUNDING * abs(low), "max": ROUNDING * abs(high)}
        yield from _differences(
            band, wanted, rounding | {"mean": RELATIVE * width, "std": RELATIVE * width}, path
        )
        if (band["min"] is not None and band["min"] > low) or (
            band["max"] is not None and band["max"] < high
        ):
            yield f"{path} has bounds {band['min']:g} to {band['max']:g}, its pixels reach from {low:g} to {high:g}"


def _bands(said: Mapping[str, Any], modality: Modality) -> list[tuple[str, Mapping[str, Any]]]:
    if len(modality.bands) == 1:
        return [(modality.name, said)]
    return [(f"{modality.name}.{name}", said[name] or {}) for name in modality.band_names]


def _shares(classes: npt.NDArray[np.int64], count: int, modality: Modality) -> dict[str, float]:
    return {name: float(classes[i]) / max(count, 1) for i, (_, name) in enumerate(modality.classes)}


def _width(low: float, high: float) -> float:
    width = float(abs(low) + abs(high))
    return width if np.isfinite(width) else 0.0


def _differences(
    said: Mapping[str, Any], wanted: Mapping[str, Any], tolerances: Mapping[str, float], path: str
) -> Iterator[str]:
    for name, value in wanted.items():
        if name not in said:
            continue
        told, number = said[name], float(value)
        if told is None or not np.isfinite(number):
            same = told is None and not np.isfinite(number)
        else:
            same = abs(float(told) - number) <= tolerances.get(name, 0.0)
        if not same:
            yield f"{path}.{name} is {told}, its pixels give {number:g}"
