"""The fit of a modality that was read to the one of its table: the type, the shape and the names of the bands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tensorbank.schema import Modality
from tensorbank_indexer.containers import readable
from tensorbank_indexer.source import RawModality

__all__ = ["conform", "misfit", "stored_numbers"]


def stored_numbers(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return the pixels as a table stores them: truth values become the bytes that they are."""
    return pixels.view(np.uint8) if pixels.dtype == np.bool_ else pixels


def conform(pixels: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.generic]:
    """Return the pixels in the type of their table, if it holds each of them exactly, else as they are.

    Archives disagree on the type of a modality more often than on its values: one declares a missing value that none
    of its pixels has, another stores 8 bits in 16.
    """
    wanted = np.dtype(dtype)
    if pixels.dtype == wanted:
        return pixels
    with np.errstate(invalid="ignore", over="ignore"):
        cast = pixels.astype(wanted)
        same = np.array_equal(cast.astype(pixels.dtype), pixels, equal_nan=wanted.kind == "f")
    # Between signed and unsigned integers a value that does not fit wraps around, and comes back by the same way.
    return cast if same and np.array_equal(np.less(cast, 0), np.less(pixels, 0)) else pixels


def misfit(raw: RawModality, pixels: npt.NDArray[np.generic], modality: Modality) -> tuple[str, str] | None:
    """Return why pixels cannot be stored as a modality of the table: kind and reason of the finding; None if they can.

    A sample may have fewer dates than its table.
    """
    shape = pixels.shape
    fits = 0 < shape[0] <= modality.n_times and shape[1:] == modality.sample_shape[1:]
    expected = {
        "other-shape": (shape, shape if fits else modality.sample_shape),
        "other-dtype": (pixels.dtype.name, modality.dtype),
        "other-bands": (raw.bands, modality.band_names),
    }
    for kind, (got, wanted) in expected.items():
        if got != wanted:
            what = kind.removeprefix("other-")
            return kind, readable(f"{what} is {_text(got)} where the table has {_text(wanted)}")
    return None


def _text(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)
