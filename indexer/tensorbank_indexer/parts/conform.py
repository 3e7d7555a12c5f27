"""Fit of a sample to its table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tensorbank.schema import Modality
from tensorbank_indexer.containers import readable
from tensorbank_indexer.source import Finding, RawModality, SampleRef

__all__ = ["conform", "in_type"]


def in_type(pixels: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.generic]:
    """The pixels in another type, if it holds each of them exactly, else as they are.

    Archives disagree on the type of a modality more often than on its values: one declares a missing value that none
    of its pixels has, another stores 8 bits in 16.
    """
    wanted = np.dtype(dtype)
    if pixels.dtype == wanted:
        return pixels
    with np.errstate(invalid="ignore", over="ignore"):
        cast = pixels.astype(wanted)
        same = np.array_equal(cast.astype(pixels.dtype), pixels, equal_nan=wanted.kind == "f")
    return cast if same else pixels


def conform(given: RawModality, modality: Modality, ref: SampleRef) -> Finding | None:
    """Return None if the pixels are what the table holds, maybe of fewer dates,
    else the reason why they are left out."""
    shape = given.pixels.shape
    fits = 0 < shape[0] <= modality.n_times and shape[1:] == modality.sample_shape[1:]
    expected = {
        "shape": (shape, shape if fits else modality.sample_shape),
        "dtype": (given.pixels.dtype.name, modality.dtype),
        "bands": (given.bands, modality.band_names),
    }
    for kind, (got, wanted) in expected.items():
        if got != wanted:
            return Finding(
                f"other-{kind}",
                ref.archive,
                readable(f"{kind} is {_text(got)} where the table has {_text(wanted)}"),
                "modality left out, the sample's others kept",
                member=ref.stem,
                modality=modality.name,
            )
    return None


def _text(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)
