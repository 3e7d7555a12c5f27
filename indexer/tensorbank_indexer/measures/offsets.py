"""The radiometric offset that the stored values of a Sentinel-2 sample carry, and how sure that is.

Processing baselines since 04.00 add 1000; archives removed it from some samples only, so it is looked for in the pixels of each:
cirrus of L1C is near zero nearly everywhere, so its darkest pixels show the offset itself; those of all bands of L2A show it
with high probability. A scene that is bright throughout has no dark pixels to tell by, and a few dark ones may be damaged or
filled: then the offset is not stated, unless the product id names a baseline that adds none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorbank.schema import Modality
from tensorbank.statistics import PixelMeasure, bin_edges

__all__ = ["RadiometricOffset", "baseline_of", "radiometric_offset"]

OFFSET = 1000.0
FIRST_WITH_OFFSET = 400
"""The processing baseline 04.00, as product ids write it."""
BRIGHT = 3000.0
"""The median of the blue band above which a scene is cloud, snow or salt, with or without the offset."""
FEW = 1e-3
"""The share of dark or zero pixels that may be damaged ones."""
MEDIAN = 2
_BASELINE = re.compile(r"_N(\d{4})_")
_EDGES = bin_edges()
_ZERO = int(np.searchsorted(_EDGES, 0.0, side="right")) - 1
_LIMITS = {"S2L1C": (1000.0, "B10"), "S2L2A": (950.0, "")}
"""The value, by modality, that dark pixels reach only by the offset, and the band to look at,
all where there is none."""


@dataclass(frozen=True, slots=True)
class RadiometricOffset:
    """The offset of one sample: ``value`` is None if the pixels do not tell; ``contradiction`` says where the product id
    tells otherwise.
    """

    value: float | None
    method: str
    contradiction: str = ""


def baseline_of(product_ids: Sequence[str]) -> int | None:
    """Return the lowest processing baseline in product ids, such as 301 for ``..._N0301_...``; None where they name none."""
    found = [int(m[1]) for text in product_ids if (m := _BASELINE.search(text))]
    return min(found, default=None)


def radiometric_offset(
    modality: Modality, measure: PixelMeasure, product_ids: Sequence[str]
) -> RadiometricOffset | None:
    """Return the offset of one sample; None for modalities that cannot have one."""
    if (
        modality.name not in _LIMITS or np.dtype(modality.dtype).kind == "f"
    ):  # floats are reflectances, not counts
        return None
    limit, name = _LIMITS[modality.name]
    if name and name not in modality.band_names:
        return None
    baseline = baseline_of(product_ids)
    named = f"baseline N{baseline:04d}" if baseline is not None else ""
    value, method = _by_pixels(modality, measure, limit, name)
    if value is None and baseline is not None and baseline < FIRST_WITH_OFFSET:
        return RadiometricOffset(0.0, f"{named} adds none; {method}")
    contradiction = ""
    if value and baseline is not None and baseline < FIRST_WITH_OFFSET:
        contradiction = f"the pixels carry an offset of {value:g} ({method}), but {named} adds none"
    if value == 0.0 and baseline is not None and baseline >= FIRST_WITH_OFFSET:
        method = f"{method}; {named} adds 1000, which was removed"
    return RadiometricOffset(value, method, contradiction)


def _by_pixels(
    modality: Modality, measure: PixelMeasure, limit: float, name: str
) -> tuple[float | None, str]:
    bands = [modality.band_index(name)] if name else list(range(len(modality.bands)))
    counts = measure.histogram[bands].sum(axis=0).astype(np.int64)
    zeros = int(counts[_ZERO])
    others = int(counts.sum()) - zeros
    dark = int(counts[:-1][_EDGES[1:] <= limit].sum()) - zeros
    what = f"{name or 'all bands'} >= {limit:g}"
    if not others:
        return None, "unsure: no pixel but zeros"
    if dark > FEW * others:
        return 0.0, f"dark pixels in {name or 'some band'}"
    if dark or zeros > FEW * others:
        return None, f"unsure: {what} but for {dark + zeros} pixels"
    if "B02" in modality.band_names and measure.quantiles[modality.band_index("B02"), MEDIAN] >= BRIGHT:
        return None, f"unsure: {what}, but the scene is bright throughout"
    return OFFSET, f"min({what})" if not zeros else f"min({what}) but for {zeros} pixels of 0"
