"""Values that look wrong. They are kept bit for bit, with a finding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tensorbank.schema import Modality
from tensorbank.statistics import CategoryMeasure, Measure
from tensorbank_indexer.modalities import KNOWN
from tensorbank_indexer.source import Finding, SampleRef

__all__ = ["suspicions"]

MAX_CLASSES = 256
"""The most distinct codes without a name that a map of classes may have; an array with more is none."""


def suspicions(statistics: Measure, modality: Modality, ref: SampleRef) -> list[Finding]:
    """Return findings about values that look wrong, which are kept bit for bit."""

    def suspicion(kind: str, reason: str, action: str) -> Finding:
        return Finding(kind, ref.archive, reason, action, member=ref.stem, modality=modality.name)

    if isinstance(statistics, CategoryMeasure):
        codes = statistics.unknown_codes
        if not codes.size:
            return []
        unknown = statistics.count - int(statistics.classes.sum())
        reason = f"{unknown} pixels have a code without a name: {_some(codes)}"
        if codes.size > MAX_CLASSES:
            return [
                suspicion(
                    "too-many-classes",
                    f"{reason}; {codes.size} of them are no classes of a map",
                    "kept; they count in no share",
                )
            ]
        return [suspicion("unknown-class", reason, "kept; they count in no share")]
    found = []
    for band, valid in zip(modality.band_names, statistics.valid, strict=True):
        if not valid:
            found.append(
                suspicion("nan-only-band", f"band {band} has no valid pixel", "kept; its statistics are null")
            )
    for band, infinite in zip(modality.band_names, statistics.infinite, strict=True):
        if infinite:
            reason = f"{infinite} pixels of band {band} are infinite"
            found.append(suspicion("infinite-pixels", reason, "kept; they count as not valid"))
    expected = KNOWN[modality.name].valid_range if modality.name in KNOWN else None
    if expected and statistics.valid.any():
        low, high = float(np.nanmin(statistics.low)), float(np.nanmax(statistics.high))
        if low < expected[0] or high > expected[1]:
            reason = f"values reach from {low:g} to {high:g}, expected are {expected[0]:g} to {expected[1]:g}"
            found.append(suspicion("value-range", reason, "kept as it is"))
    return found


def _some(codes: npt.NDArray[np.float64]) -> str:
    first = ", ".join(f"{c:g}" for c in codes[:5])
    return first if codes.size <= 5 else f"{first} and {codes.size - 5} more"
