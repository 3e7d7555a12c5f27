"""Axes of an array by their names and coordinates: (time, band, y, x), the first row in the north, the first column
in the west.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import FormatError
from tensorbank_indexer.containers import Problem

__all__ = ["AXES", "SYNONYMS", "four_axes", "grid_problem", "heading"]

Array = npt.NDArray[Any]
AXES = ("time", "band", "y", "x")
SYNONYMS = {
    "time": ("time", "date"),
    "band": ("band", "bands", "channel", "channels"),
    "y": ("y", "northing", "lat", "latitude"),
    "x": ("x", "easting", "lon", "longitude"),
}
"""The names of axes and of their coordinates, in lower case."""
AXIS_OF = {name: axis for axis, names in SYNONYMS.items() for name in names} | {
    "row": "y",  # of numbers of pixels, which are no coordinates
    "col": "x",
    "column": "x",
}
MAX_UNEVENNESS = 0.25
"""The distance, in pixels, that a centre may lie beside a regular grid: float32 rounds northings to half a metre."""


def four_axes(array: Array, dims: tuple[str, ...], problems: list[Problem], name: str = "bands") -> Array:
    """Return the array as (time, band, y, x): transposed by the names of its axes, with an axis of length 1 for
    each that it lacks.

    Axes without a name are taken to lie in this order.

    Raises
    ------
    FormatError
        It has more than four or fewer than two axes, or names that fit no order.
    """
    if not 2 <= array.ndim <= 4:
        raise FormatError(f"{name!r} has {array.ndim} axes instead of time, band, y and x.")
    if dims == AXES:
        return array
    given = tuple(AXIS_OF.get(dim.lower(), dim.lower()) for dim in dims)
    by_place = _by_place(array.ndim, given)
    if not any(given) or given == by_place:
        given = by_place
    elif set(given) <= set(AXES) and len(set(given)) == len(given) and {"y", "x"} <= set(given):
        order = sorted(range(array.ndim), key=lambda i: AXES.index(given[i]))
        if order != list(range(array.ndim)):
            array = array.transpose(order)
            problems.append(
                Problem(
                    "transposed", f"The axes of {name!r} are {', '.join(dims)}.", "stored as time, band, y, x"
                )
            )
            given = tuple(given[i] for i in order)
    elif all(dim == place or dim not in AXES for dim, place in zip(given, by_place, strict=True)):
        reason = f"The axes of {name!r} are called {', '.join(map(repr, dims))}."
        problems.append(Problem("unknown-axes", reason, f"taken for {', '.join(by_place)}"))
        given = by_place
    else:
        raise FormatError(f"{name!r} has axes {', '.join(map(repr, dims))} instead of time, band, y and x.")
    lacking = tuple(i for i, axis in enumerate(AXES) if axis not in given)
    return np.expand_dims(array, lacking)


def _by_place(n_axes: int, names: tuple[str, ...]) -> tuple[str, ...]:
    if n_axes == 3:
        return ("time", "y", "x") if names and names[0] == "time" else ("band", "y", "x")
    return AXES[-n_axes:]


def heading(coordinate: Array | None) -> int:
    """Return 1 if a coordinate ascends, -1 if it descends, 0 if it does neither or there is none.

    A grid need not be regular, nor known along its other axis, to be upside down.
    """
    if (
        coordinate is None
        or coordinate.ndim != 1
        or len(coordinate) < 2
        or coordinate.dtype.kind not in "fiu"
    ):
        return 0
    if (coordinate[1:] > coordinate[:-1]).all():
        return 1
    return -1 if (coordinate[1:] < coordinate[:-1]).all() else 0


def grid_problem(name: str, values: Array) -> str:
    """Say why a coordinate is not that of a regular grid; empty if it is."""
    if values.dtype.kind not in "fiu":
        return f"{name} holds {values.dtype} instead of numbers."
    if values.ndim != 1:
        return f"{name} has {values.ndim} axes, as of a rotated grid; one is needed."
    if len(values) < 2:
        return f"{name} has {len(values)} pixels; two are needed to know their size."
    return name + reason if (reason := _unevenness(values.astype(np.float64, copy=False).tobytes())) else ""


@lru_cache(maxsize=256)
def _unevenness(centres: bytes) -> str:
    """Say what is wrong with pixel centres, float64; cached, since all modalities of a sample have the same."""
    values = np.frombuffer(centres)
    finite = np.isfinite(values)
    if not finite.all():
        return f" has {int((~finite).sum())} pixels without a finite coordinate."
    step = (values[-1] - values[0]) / (len(values) - 1)
    away = np.abs(values - np.linspace(values[0], values[-1], len(values))).max()
    if not step or not away <= MAX_UNEVENNESS * abs(step):
        return f" is no regular grid: pixels lie up to {away:g} beside steps of {step:g}."
    return ""
