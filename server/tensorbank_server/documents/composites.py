"""Pictures of samples by name: which bands make them, and how numbers become colours. Pure: arrays in, arrays out."""

# Own code rather than `rio-tiler` or the colour maps of matplotlib: pixels come as arrays, not from files, and half of the
# pictures (radar, hillshade, classes by name) need code in any case. What a library would save is the six colours of the
# vegetation index.

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from tensorbank.schema import Modality, TableSchema

__all__ = ["COMPOSITES", "Composite", "encode", "legend", "picture"]

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Composite:
    """A picture that can be asked for by name.

    Parameters
    ----------
    sources
        Modalities and their bands; the first that the sample has is taken. An empty name stands for the only band.
    paint
        (bands, y, x) in the stored dtype to (y, x, 3) uint8.
    smooth
        True if pixels may be mixed when the picture is resized; classes may not.
    """

    name: str
    title: str
    sources: tuple[tuple[str, tuple[str, ...]], ...]
    paint: Callable[[npt.NDArray[np.generic], Painting], Pixels]
    smooth: bool = True

    def source(self, schema: TableSchema, present: Sequence[str]) -> tuple[Modality, tuple[int, ...]] | None:
        """Return the modality and band numbers of the first source that is there."""
        for name, bands in self.sources:
            if name not in present or name not in schema:
                continue
            m = schema[name]
            wanted = [b or m.band_names[0] for b in bands]
            if all(b in m.band_names for b in wanted):
                return m, tuple(m.band_names.index(b) for b in wanted)
        return None


@dataclass(frozen=True, slots=True)
class Painting:
    """The facts that a picture needs beside its pixels.

    ``rescale`` is the range of values from black to white, None for that of the picture: percentiles 2 to 98 of all bands
    together, so that colours stay what they are. ``pixel_m`` is the size of a pixel, metres.
    """

    modality: Modality
    rescale: tuple[float, float] | None = None
    pixel_m: float = 10.0


def _stretch(values: Floats, rescale: tuple[float, float] | None) -> Pixels:
    low, high = rescale or _range(values)
    scaled = (values - low) * (255.0 / max(high - low, 1e-9))
    found: Pixels = np.nan_to_num(np.clip(scaled, 0, 255), nan=0.0).astype(np.uint8)
    return found


def _range(values: Floats) -> tuple[float, float]:
    sound = values[np.isfinite(values)]
    if not sound.size:
        return 0.0, 1.0
    low, high = np.percentile(sound[:: max(1, sound.size // 50_000)], [2, 98])
    return float(low), float(high)


def _bands(stored: npt.NDArray[np.generic], painting: Painting) -> Pixels:
    """Return three bands as red, green, blue."""
    if stored.dtype == np.uint8 and painting.rescale is None:
        return np.ascontiguousarray(np.moveaxis(stored, 0, -1)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(_stretch(stored.astype(np.float32), painting.rescale), 0, -1))


def _radar(stored: npt.NDArray[np.generic], painting: Painting) -> Pixels:
    """Return the co- and cross-polarised backscatter and their ratio, each over its usual range in dB."""
    vv, vh = stored.astype(np.float32)
    ranges = [painting.rescale] * 3 if painting.rescale else [(-22.0, 0.0), (-28.0, -6.0), (2.0, 16.0)]
    painted = [_stretch(v, r) for v, r in zip((vv, vh, vv - vh), ranges, strict=True)]
    return np.stack(painted, axis=-1)


def _hillshade(stored: npt.NDArray[np.generic], painting: Painting) -> Pixels:
    """Shade by a sun in the north-west, 45 degrees high (Lambertian)."""
    heights = stored[0].astype(np.float32)
    dy, dx = np.gradient(heights, painting.pixel_m)
    normal = np.sqrt(dx * dx + dy * dy + 1.0)
    towards = (-0.5, -0.5, np.sqrt(0.5))  # east, south, up
    shade = (-dx * towards[0] - dy * towards[1] + towards[2]) / normal
    grey = np.nan_to_num(np.clip(shade, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


_NDVI_STOPS = np.array([-0.2, 0.0, 0.2, 0.4, 0.6, 0.9], np.float32)
_NDVI_COLOURS = np.array(
    [[90, 110, 160], [200, 190, 170], [225, 215, 130], [145, 190, 80], [50, 135, 50], [0, 70, 20]], np.float32
)


def _ndvi(stored: npt.NDArray[np.generic], painting: Painting) -> Pixels:
    """Colour the stored index, or that of near infrared and red, from grey over yellow to green."""
    values = stored.astype(np.float32)
    if len(values) == 2:
        total = values[0] + values[1]
        values = np.divide(values[0] - values[1], total, out=np.zeros_like(total), where=total != 0)[None]
    low, high = painting.rescale or (-0.2, 0.9)
    at = np.nan_to_num((values[0] - low) / max(high - low, 1e-9)) * 1.1 - 0.2
    painted = [np.interp(at, _NDVI_STOPS, _NDVI_COLOURS[:, c]) for c in range(3)]
    return np.stack(painted, axis=-1).astype(np.uint8)


_CLASS_COLOURS = {
    "no_data": (0, 0, 0),
    "water": (65, 155, 223),
    "trees": (57, 125, 73),
    "flooded_vegetation": (122, 135, 198),
    "crops": (228, 150, 53),
    "built_area": (196, 40, 27),
    "bare_ground": (165, 155, 143),
    "snow_ice": (168, 235, 255),
    "snow": (168, 235, 255),
    "clouds": (97, 97, 97),
    "rangeland": (227, 226, 195),
    "land": (110, 150, 90),
    "thin_cloud": (200, 200, 200),
    "thick_cloud": (245, 245, 245),
    "cloud_shadow": (60, 60, 70),
}
_OTHER_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0))


def legend(modality: Modality) -> dict[str, tuple[int, int, int]]:
    """Return the colour of each class."""
    return {
        name: _CLASS_COLOURS.get(name, _OTHER_COLOURS[code % len(_OTHER_COLOURS)])
        for code, name in modality.classes
    }


def _classes(stored: npt.NDArray[np.generic], painting: Painting) -> Pixels:
    palette = np.zeros((256, 3), np.uint8)
    colours = legend(painting.modality)
    for code, name in painting.modality.classes:
        if 0 <= code < 256:
            palette[code] = colours[name]
    codes: npt.NDArray[np.uint8] = np.clip(stored[0], 0, 255).astype(np.uint8)
    return palette[codes]


def _optical(*bands: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((name, bands) for name in ("S2L2A", "S2L1C"))


COMPOSITES: Mapping[str, Composite] = {
    c.name: c
    for c in (
        Composite(
            "s2-true-color",
            "Sentinel-2, red, green, blue",
            (
                *_optical("B04", "B03", "B02"),
                ("S2RGB", ("B04", "B03", "B02")),
                ("RGB", ("B04", "B03", "B02")),
            ),
            _bands,
        ),
        Composite("s2-false-color", "Sentinel-2, vegetation is red", _optical("B08", "B04", "B03"), _bands),
        Composite("s2-swir", "Sentinel-2, short-wave infrared", _optical("B12", "B8A", "B04"), _bands),
        Composite(
            "s1-vv-vh",
            "Sentinel-1, VV, VH and their ratio",
            tuple((name, bands) for name in ("S1RTC", "S1GRD") for bands in (("vv", "vh"), ("VV", "VH"))),
            _radar,
        ),
        Composite("dem-hillshade", "Elevation, shaded", (("DEM", ("",)),), _hillshade),
        Composite("ndvi", "Vegetation index", (("NDVI", ("",)), *_optical("B08", "B04")), _ndvi),
        Composite("lulc", "Land cover", (("LULC", ("",)),), _classes, smooth=False),
        Composite("cloud-mask", "Clouds", (("cloud_mask", ("",)),), _classes, smooth=False),
    )
}


def picture(
    composite: Composite, stored: npt.NDArray[np.generic], painting: Painting, size: int
) -> Image.Image:
    """Return a picture whose longer side has ``size`` pixels."""
    image = Image.fromarray(composite.paint(stored, painting))
    scale = size / max(image.size)
    shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if shape == image.size:
        return image
    mixing = Image.Resampling.BILINEAR if composite.smooth else Image.Resampling.NEAREST
    return image.resize(shape, mixing, reducing_gap=None)


def encode(image: Image.Image, form: str) -> bytes:
    """Encode a picture as PNG or WebP."""
    sink = io.BytesIO()
    if form == "png":
        image.save(sink, "PNG", compress_level=1)
    else:
        image.save(sink, "WEBP", quality=85, method=1)
    return sink.getvalue()
