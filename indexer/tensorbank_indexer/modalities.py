"""Known facts about the modalities of the field: units, classes, plausible values.

A name that is not here is ingested all the same, with what its archive says. Sources: Sentinel-2 and Sentinel-1 product
specifications; ESRI/Impact Observatory annual land cover in the consecutive coding of TerraMesh (1 water, 7 snow and ice, 8
clouds are documented, the others follow the order of the ESRI legend); SEnSEI-v2 cloud classes of the archives' attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorbank.schema import Band, Modality

__all__ = ["KNOWN", "Knowledge", "describe"]

_S2_BANDS = {
    "B01": "coastal aerosol, 443 nm",
    "B02": "blue, 492 nm",
    "B03": "green, 560 nm",
    "B04": "red, 665 nm",
    "B05": "red edge, 704 nm",
    "B06": "red edge, 740 nm",
    "B07": "red edge, 783 nm",
    "B08": "near infrared, 833 nm",
    "B8A": "narrow near infrared, 865 nm",
    "B09": "water vapour, 945 nm",
    "B10": "cirrus, 1374 nm",
    "B11": "short-wave infrared, 1610 nm",
    "B12": "short-wave infrared, 2190 nm",
}
_S1_BANDS = {"vv": "co-polarised backscatter", "vh": "cross-polarised backscatter"}
_LAND_COVER = (
    "no_data",
    "water",
    "trees",
    "flooded_vegetation",
    "crops",
    "built_area",
    "bare_ground",
    "snow_ice",
    "clouds",
    "rangeland",
)
_CLOUD_MASK = ("land", "water", "snow", "thin_cloud", "thick_cloud", "cloud_shadow", "no_data")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The facts that the field knows of a modality. ``valid_range`` is closed, in stored units."""

    long_name: str
    unit: str = "1"
    scale: float | None = None
    bands: Mapping[str, str] = field(default_factory=dict)
    classes: Sequence[str] = ()
    valid_range: tuple[float, float] | None = None


KNOWN: Mapping[str, Knowledge] = {
    "S2L1C": Knowledge("Sentinel-2 top-of-atmosphere reflectance", scale=1e-4, bands=_S2_BANDS),
    "S2L2A": Knowledge("Sentinel-2 surface reflectance", scale=1e-4, bands=_S2_BANDS),
    "S2RGB": Knowledge("Sentinel-2 true colour, stretched per image"),
    "S1GRD": Knowledge(
        "Sentinel-1 ground range detected backscatter", "dB", bands=_S1_BANDS, valid_range=(-100, 60)
    ),
    "S1RTC": Knowledge(
        "Sentinel-1 terrain corrected backscatter", "dB", bands=_S1_BANDS, valid_range=(-100, 60)
    ),
    "DEM": Knowledge("Copernicus digital elevation model", "m", valid_range=(-500, 9000)),
    "NDVI": Knowledge("normalised difference vegetation index of the stored S2L2A", valid_range=(-1, 1)),
    "LULC": Knowledge("ESRI annual land cover", classes=_LAND_COVER),
    "cloud_mask": Knowledge("SEnSEI-v2 cloud mask", classes=_CLOUD_MASK),
}
"""The known modalities. Plausible ranges are generous: they flag broken files, not strong scatterers."""


def describe(name: str, dtype: str, bands: Sequence[str], shape: Sequence[int]) -> Modality:
    """Describe a modality by what an archive holds and what the field knows; ``shape`` is (time, band, y, x)."""
    known = KNOWN.get(name, Knowledge(name))
    attributes: dict[str, object] = {"long_name": known.long_name, "units": known.unit}
    # Floats are what an archive's own scale made of them, or reflectances anyway.
    if known.scale is not None and np.dtype(dtype).kind != "f":
        attributes["scale_to_reflectance"] = known.scale
    if known.classes:
        attributes["flag_values"] = list(range(len(known.classes)))
        attributes["flag_meanings"] = " ".join(known.classes)
    return Modality(
        name=name,
        dtype=dtype,
        bands=tuple(Band(b, known.unit, known.bands.get(b, "")) for b in bands),
        n_times=shape[0],
        height=shape[2],
        width=shape[3],
        classes=tuple(enumerate(known.classes)),
        attributes=attributes,
    )
