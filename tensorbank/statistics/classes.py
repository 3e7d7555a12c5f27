"""Counts of the classes of a categorical modality of one sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.statistics.moments import tile_edges

__all__ = ["CategoryMeasure", "measure_categories"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class CategoryMeasure:
    """The statistics of a categorical modality: pixels per class, (class,) and per tile (time, n, n, class).

    ``unknown_codes`` are the distinct values of pixels that are of no class, ascending.
    """

    count: int
    classes: Int64
    tile_count: Int64
    tile_classes: Int64
    unknown_codes: Float64


def measure_categories(pixels: npt.NDArray[np.generic], codes: list[int], n_tiles: int) -> CategoryMeasure:
    """Count the pixels of each class in (time, 1, y, x) integers; a pixel with any other code is of no class."""
    times, _, height, width = pixels.shape
    ys, xs = tile_edges(height, n_tiles), tile_edges(width, n_tiles)
    rows = np.repeat(np.arange(n_tiles), np.diff(ys))
    columns = np.repeat(np.arange(n_tiles), np.diff(xs))
    cell = rows[:, None] * n_tiles + columns
    n_classes = len(codes) + 1
    number = _class_numbers(pixels[:, 0], codes)
    flat = (np.arange(times)[:, None, None] * n_tiles**2 + cell) * n_classes + number
    counts = np.bincount(flat.reshape(-1), minlength=times * n_tiles**2 * n_classes)
    per_tile = counts.reshape(times, n_tiles, n_tiles, n_classes)
    unknown = pixels[:, 0][number == len(codes)] if per_tile[..., -1].any() else pixels[:0, 0]
    distinct = np.unique(unknown).astype(np.float64)
    return CategoryMeasure(
        count=times * height * width,
        classes=per_tile[..., :-1].sum(axis=(0, 1, 2)),
        tile_count=per_tile.sum(axis=-1),
        tile_classes=per_tile[..., :-1],
        unknown_codes=distinct[~np.isnan(distinct)],
    )


def _class_numbers(values: npt.NDArray[np.generic], codes: list[int]) -> Int64:
    """Return for each value the position of its code, ``len(codes)`` for any other.

    By a table for bytes, by a search for wider types.
    """
    if values.dtype.itemsize == 1:
        table = np.full(256, len(codes), np.int64)
        sound = [(c, i) for i, c in enumerate(codes) if 0 <= c < (128 if values.dtype.kind == "i" else 256)]
        table[[c for c, _ in sound]] = [i for _, i in sound]
        return table[values.view(np.uint8)]
    order = np.argsort(codes)
    known = np.asarray(codes)[order]
    at = np.minimum(np.searchsorted(known, values), len(codes) - 1)
    return np.where(known[at] == values, order[at], len(codes))
