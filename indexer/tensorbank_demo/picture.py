"""A picture of a batch: one row a sample, one column a modality, in the colours that are usual in the field."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["contact_sheet"]

CELL_INCH = 1.9
TITLE_INCH = 0.36
LEGEND_INCH = 0.34
LABEL_INCH = 0.28
DPI = 110
INK, PALE, PAPER = "#20242a", "#7b838e", "#ffffff"
MISSING = "#e4e6ea"
LULC_CLASSES = {
    "no data": "#c9ccd1",
    "water": "#3f87c9",
    "trees": "#2f6b3a",
    "flooded vegetation": "#73a99b",
    "crops": "#e3b23c",
    "built area": "#b8373d",
    "bare ground": "#b9a48a",
    "snow, ice": "#c3e6f2",
    "clouds": "#f4f4f6",
    "rangeland": "#c4ce83",
}
TITLES = {
    "S2L2A": "S2L2A  true colour",
    "S2L1C": "S2L1C  true colour",
    "S2RGB": "S2RGB",
    "S1RTC": "S1RTC  vv, vh, vv-vh",
    "S1GRD": "S1GRD  vv, vh, vv-vh",
    "DEM": "DEM  hillshade",
    "NDVI": "NDVI  -0.2 to 0.9",
    "LULC": "LULC",
}
RGB_BANDS, B11 = [3, 2, 1], -2  # B04, B03, B02; the same places in both levels
CLOUD_DN, CLOUD_B11_DN = 3_800, 2_000
"""The reflectances above which pixels are clouds (snow is dark in B11) and take no part in the stretch,
or ground would be black."""

Pixels = npt.NDArray[Any]
Image = npt.NDArray[np.uint8]


def contact_sheet(
    batch: Mapping[str, Pixels],
    sample_ids: Sequence[str],
    modalities: Sequence[str],
    path: str | os.PathLike[str],
    *,
    masks: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> Path:
    """Draw samples as a PNG.

    Parameters
    ----------
    batch
        Arrays [n, time, band, y, x] or [n, band, y, x] by modality, in stored units (reflectance x 10,000, dB, metres);
        of several dates the first is shown. A modality that is not there is a grey cell.
    sample_ids
        One name a row, (n,).
    modalities
        One a column, from left to right.
    path
        Path of the PNG; folders are created.
    masks
        Flags of the samples that have a modality, (n,) by name; all have those that are not named.

    Returns
    -------
    The path.

    Raises
    ------
    InvalidInputError
        Nothing to draw, or an array is not of four or five dimensions with n samples.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not sample_ids or not modalities:
        raise InvalidInputError(f"Nothing to draw: {len(sample_ids)} samples, {len(modalities)} modalities.")
    images = {name: _first_dates(name, batch[name], len(sample_ids)) for name in modalities if name in batch}
    n_rows, n_columns = len(sample_ids), len(modalities)
    legend_inch = LEGEND_INCH if "LULC" in images else 0.08
    width, height = (
        LABEL_INCH + n_columns * CELL_INCH + 0.08,
        TITLE_INCH + n_rows * CELL_INCH + legend_inch,
    )
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    for row, sample_id in enumerate(sample_ids):
        for column, name in enumerate(modalities):
            axes = figure.add_axes(
                (
                    (LABEL_INCH + column * CELL_INCH + 0.04) / width,
                    1 - (TITLE_INCH + (row + 1) * CELL_INCH - 0.04) / height,
                    (CELL_INCH - 0.08) / width,
                    (CELL_INCH - 0.08) / height,
                )
            )
            there = name in images and (masks is None or name not in masks or bool(masks[name][row]))
            _draw_cell(axes, name, images[name][row] if there else None)
            if row == 0:
                axes.set_title(TITLES.get(name, name), fontsize=8.5, color=INK, pad=5)
            if column == 0:
                axes.set_ylabel(sample_id, fontsize=8, color=INK, labelpad=5, family="monospace")
    if "LULC" in images:
        _draw_legend(figure, np.unique(images["LULC"]), height)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=DPI)
    return target


def _first_dates(name: str, values: Pixels, n_samples: int) -> Pixels:
    """Return the first date, [n, band, y, x], of pixels that may have a time axis."""
    array = np.asarray(values)
    if array.ndim == 5:
        array = array[:, 0]
    if array.ndim != 4 or len(array) != n_samples:
        raise InvalidInputError(
            f"{name} has shape {np.shape(values)}, expected [{n_samples}, (time,) band, y, x] for the sample ids given."
        )
    return array


def _draw_cell(axes: Axes, name: str, pixels: Pixels | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if pixels is None:
        axes.set_facecolor(MISSING)
        axes.text(
            0.5, 0.5, "missing", ha="center", va="center", fontsize=8, color=PALE, transform=axes.transAxes
        )
        return
    axes.imshow(_coloured(name, pixels), interpolation="nearest")


def _coloured(name: str, pixels: Pixels) -> Image:
    """Turn [band, y, x] into [y, x, 3] uint8."""
    if name in ("S2L2A", "S2L1C") and len(pixels) > max(RGB_BANDS):
        return _stretch(pixels[RGB_BANDS], pixels[B11])
    if name in ("S1RTC", "S1GRD") and len(pixels) == 2:
        return _radar(pixels.astype(np.float32))
    if name == "S2RGB" and len(pixels) == 3:
        return _bytes(pixels.transpose(1, 2, 0) / 255)
    if name == "NDVI":
        return _mapped(pixels[0], "RdYlGn", -0.2, 0.9)
    if name == "DEM":
        return _hillshade(pixels[0].astype(np.float32))
    if name == "LULC":
        palette = np.array([_rgb(colour) for colour in LULC_CLASSES.values()], np.uint8)
        image: Image = np.take(palette, pixels[0].astype(np.intp), axis=0, mode="clip")
        return image
    low, high = np.nanpercentile(pixels[0].astype(np.float32), (2, 98))
    return _mapped(pixels[0], "viridis", float(low), float(high))


def _stretch(rgb: Pixels, infrared: Pixels) -> Image:
    """Stretch 2-98 % of all three bands together, so that hues stay; clouds may saturate."""
    values = rgb.astype(np.float32)
    cloudy = (values.max(0) > CLOUD_DN) & (infrared > CLOUD_B11_DN)
    clear = values[:, ~cloudy & (values.max(0) > 0)]
    counted = clear if clear.size > 0.05 * values.size else values
    low, usual, high = np.percentile(counted, (2, 75, 98))
    high = min(high, 2.2 * usual + 300)  # edges of clouds are bright, too
    scaled = np.clip((values - low) / max(float(high - low), 600.0), 0, 1) ** 0.8
    return _bytes(scaled.transpose(1, 2, 0))


def _radar(decibel: Pixels) -> Image:
    """Return VV, VH and their difference in red, green and blue; NaN is black."""
    vv, vh = decibel
    scaled = [(vv + 20) / 18, (vh + 27) / 18, (vv - vh + 1) / 15]
    return _bytes(np.nan_to_num(np.stack(scaled, -1)))


def _hillshade(metres: Pixels) -> Image:
    """Shade the relief from the north-west over a tint of height; exaggerated where the land is flat."""
    from matplotlib import colormaps

    span = float(np.percentile(metres, 98) - np.percentile(metres, 2))
    dy, dx = np.gradient(metres, 10.0)
    exaggeration = np.clip(250 / max(span, 1.0), 1.2, 6)
    dy, dx = dy * exaggeration, dx * exaggeration
    light = (1.2 + dx * 0.7 + dy * 0.7) / np.sqrt(1 + dx**2 + dy**2) / 1.45
    height = (metres - float(metres.min())) / max(float(np.ptp(metres)), 20.0)
    tint = colormaps["gist_earth"](0.33 + 0.5 * height)[..., :3]
    tint[metres == 0] = (0.62, 0.74, 0.82)
    lit = tint * np.clip(light, 0.15, 1.25)[..., None]
    return _bytes(lit)


def _mapped(values: Pixels, colours: str, low: float, high: float) -> Image:
    from matplotlib import colormaps

    scaled = (values.astype(np.float32) - low) / max(high - low, 1e-6)
    image = _bytes(colormaps[colours](np.clip(np.nan_to_num(scaled), 0, 1))[..., :3])
    image[np.isnan(scaled)] = _rgb(MISSING)
    return image


def _bytes(shares: Pixels) -> Image:
    """Scale 0-1 to 0-255."""
    image: Image = np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
    return image


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _draw_legend(figure: Figure, codes: Pixels, height: float) -> None:
    from matplotlib.patches import Patch

    classes = list(LULC_CLASSES.items())
    shown = [classes[code] for code in codes.tolist() if 0 <= code < len(classes)]
    handles = [
        Patch(facecolor=colour, edgecolor="#b4b8bf", linewidth=0.4, label=name) for name, colour in shown
    ]
    legend = figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.03 / height),
        ncol=len(handles),
        frameon=False,
        fontsize=8,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.4,
        borderaxespad=0.0,
    )
    for text in legend.get_texts():
        text.set_color(INK)
