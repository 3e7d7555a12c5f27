"""Figures of single samples: their images beside the classes that are true and those that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, InvalidInputError

__all__ = ["SampleFigure"]

Pixels = npt.NDArray[Any]
COLOURS = (("B04", "B03", "B02"), ("red", "green", "blue"))
"""The names of bands that are shown as red, green and blue, where a modality has them."""
SHOWN = (2.0, 98.0)
"""The percentiles of a band's pixels that are black and white."""
DATES, PLANES = 4, 3
"""The axes of an image with dates, (band, time, y, x), and of one without."""
OVERLAY = 0.65
"""The opacity of a map over its image."""
N_COLOURS = 10


@dataclass(frozen=True)
class SampleFigure:
    """The way in which samples are drawn.

    TerraTorch's tasks ask a data module, or its ``val_dataset``, for figures by :meth:`plot`, for the first batches of a
    validation.

    Parameters
    ----------
    bands
        Names of the bands by modality.
    classes
        Names of the mask's classes by code; codes without one are told as numbers.
    ignore
        Value of the mask where there is no class, which is left free.
    """

    bands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    classes: Mapping[int, str] = field(default_factory=dict)
    ignore: int = -1

    def plot(self, sample: Mapping[str, Any], suptitle: str | None = None) -> Any:
        """Return a Matplotlib figure of a sample; None if it has no image.

        Parameters
        ----------
        sample
            Sample of a task's batch on the CPU: ``image``, a tensor or tensors by modality, or modalities beside the other
            entries, each (band, y, x) or (band, time, y, x), of which the last date is shown; ``mask``, ``prediction``, (y, x),
            whole numbers for classes; ``label``; ``filename``.
        suptitle
            Title; None: the name of the sample.

        Raises
        ------
        InvalidInputError
            Matplotlib is not installed; the kind is ``missing-package``.
        """
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise InvalidInputError(
                "figures of samples are drawn by matplotlib; pip install matplotlib",
                kind=ErrorKind.MISSING_PACKAGE,
            ) from error
        images = self._images(sample)
        if not images:
            return None
        given = {name: _array(sample[name]) for name in ("mask", "prediction") if name in sample}
        maps = {name: values for name, values in given.items() if values.ndim == 2}
        n = len(images) + len(maps)
        figure = Figure(figsize=(3.2 * n, 3.6), layout="constrained")
        axes = figure.subplots(1, n, squeeze=False)[0]
        for axis, (title, pixels) in zip(axes, images.items(), strict=False):
            _show(axis, title, pixels)
        base = next(iter(images.values()))
        drawn = self._draw_maps(dict(zip(axes[len(images) :], maps.items(), strict=True)), base)
        if drawn:
            figure.legend(
                handles=drawn, loc="outside lower center", ncols=min(len(drawn), 8), frameon=False, fontsize=8
            )
        figure.suptitle(suptitle or _title(sample), fontsize=10)
        return figure

    def _images(self, sample: Mapping[str, Any]) -> dict[str, Pixels]:
        """Return what is shown of each modality, (y, x) or (y, x, 3) from 0 to 1, by its title."""
        given = sample.get("image", {name: sample[name] for name in self.bands if name in sample})
        named = given if isinstance(given, Mapping) else {"image": given}
        shown = {}
        for name, tensor in named.items():
            pixels, title = _array(tensor), name
            if pixels.ndim == DATES:
                title, pixels = f"{name}, the last of {pixels.shape[1]} dates", pixels[:, -1]
            if pixels.ndim == PLANES:
                shown[title] = self._stretched(name, pixels.astype(np.float64))
        return shown

    def _stretched(self, name: str, pixels: Pixels) -> Pixels:
        """Return three bands as colours, or the first one, stretched band by band."""
        names = list(self.bands.get(name, ()))
        chosen = next(
            ([names.index(b) for b in colours] for colours in COLOURS if {*colours} <= {*names}), None
        )
        bands = pixels[chosen if chosen is not None else [0, 1, 2] if len(pixels) == PLANES else [0]]
        seen = np.nan_to_num(bands, posinf=0.0, neginf=0.0)
        low, high = np.percentile(seen, SHOWN, axis=(1, 2), keepdims=True)
        stretched = np.clip((seen - low) / np.maximum(high - low, 1e-9), 0, 1)
        return np.moveaxis(stretched, 0, -1) if len(bands) == PLANES else stretched[0]

    def _draw_maps(self, maps: Mapping[Any, tuple[str, Pixels]], base: Pixels) -> list[Any]:
        """Draw maps over an image, and return what a legend has of their classes."""
        from matplotlib import colormaps
        from matplotlib.patches import Patch

        titles = {"mask": "truth", "prediction": "prediction"}
        colours = colormaps["tab10"](np.arange(N_COLOURS))[:, :3]
        codes: set[int] = set()
        for axis, (name, values) in maps.items():
            _show(axis, titles[name], base)
            if values.dtype.kind == "f":
                axis.imshow(values, alpha=OVERLAY, cmap="viridis", interpolation="nearest")
                continue
            classes = values != self.ignore
            overlay = np.zeros((*values.shape, 4))
            overlay[classes, :3] = colours[values[classes] % N_COLOURS]
            overlay[classes, 3] = OVERLAY
            axis.imshow(overlay, interpolation="nearest")
            codes |= set(np.unique(values[classes]).tolist())
        return [
            Patch(color=colours[code % N_COLOURS], label=self.classes.get(code, str(code)))
            for code in sorted(codes)
        ]


def _show(axis: Any, title: str, pixels: Pixels) -> None:
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=1)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()


def _array(tensor: Any) -> Pixels:
    return np.asarray(tensor.detach().cpu() if hasattr(tensor, "detach") else tensor)


def _title(sample: Mapping[str, Any]) -> str:
    """Return the name of a sample and, of one with a label, what is true and what was found."""
    name = sample.get("filename", "")
    if isinstance(name, Mapping):
        name = next(iter(name.values()), "")
    words = [str(name).rpartition("/")[2]]
    if "label" in sample:
        words.append(f"label {_array(sample['label']).tolist()}")
        if np.ndim(sample.get("prediction", 0)) == 0 and "prediction" in sample:
            words.append(f"prediction {_array(sample['prediction']).tolist()}")
    return ", ".join(word for word in words if word)
