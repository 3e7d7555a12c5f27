"""A model of a table: what each version holds, as plain Python values, and what a reader must be told of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from support.tiny_source import pixels

__all__ = ["ASKED", "EMPTY", "MODALITIES", "UNIVERSE", "Sample", "State", "name_of", "statistics_of"]

MODALITIES = ("DEM", "S1RTC")
UNIVERSE = tuple(range(12))
"""The numbers of all samples that there may be."""
TILES = 4
ASKED = (3, 4, 9)
"""The samples that readers ask for by their names."""


def name_of(number: int) -> str:
    """Return the id of a sample."""
    return f"sample-{number:04d}"


@cache
def digest(number: int, modality: str, edition: int) -> str:
    """Return a hash of the pixels that an archive has for a sample."""
    return hashlib.sha256(pixels(number, modality, edition).tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Sample:
    """A sample of a version: which edition of the archive each of its modalities is of."""

    editions: Mapping[str, int]


@dataclass(frozen=True)
class State:
    """The content of a version.

    ``values`` are those of added columns, by column and sample.
    """

    samples: Mapping[int, Sample] = field(default_factory=dict)
    values: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    modalities: tuple[str, ...] = ("DEM",)

    def with_samples(self, new: Mapping[int, Sample]) -> State:
        """Return the state with some samples more."""
        names = {name for sample in new.values() for name in sample.editions}
        more = tuple(n for n in MODALITIES if n in names and n not in self.modalities)
        return replace(self, samples={**self.samples, **new}, modalities=(*self.modalities, *more))

    def without(self, numbers: Iterable[int]) -> State:
        """Return the state without some samples, and without what columns said of them."""
        gone = set(numbers)
        values = {c: {n: v for n, v in some.items() if n not in gone} for c, some in self.values.items()}
        return replace(self, samples={n: s for n, s in self.samples.items() if n not in gone}, values=values)

    def told(self) -> dict[str, object]:
        """Return what a reader must be told."""
        samples = {
            name_of(n): {m: digest(n, m, edition) for m, edition in s.editions.items()}
            for n, s in self.samples.items()
        }
        tiles = {name_of(n): dict.fromkeys(s.editions, TILES) for n, s in self.samples.items()}
        return {
            "samples": samples,
            "asked": [name_of(n) for n in ASKED if n in self.samples],
            "tiles": tiles,
            "members": sorted(samples),
            "n_samples": len(samples),
            "modalities": sorted(self.modalities),
            "columns": sorted(self.values),
            "statistics": statistics_of(self.samples),
        }

    def has_values(self, told: Mapping[str, Mapping[str, float]]) -> bool:
        """Tell whether the values that a reader was told are those of the state."""
        return all(
            some.get(n) == told.get(column, {}).get(name_of(n))
            for column, some in self.values.items()
            for n in self.samples
        )


def statistics_of(samples: Mapping[int, Sample]) -> dict[str, list[tuple[int, float, float, float]]]:
    """Return count, minimum, maximum and mean of each band of all samples, by modality."""
    return _statistics(tuple(sorted((n, m, e) for n, s in samples.items() for m, e in s.editions.items())))


@cache
def _statistics(held: tuple[tuple[int, str, int], ...]) -> dict[str, list[tuple[int, float, float, float]]]:
    found = {}
    for modality in MODALITIES:
        each = [pixels(n, m, e) for n, m, e in held if m == modality]
        if each:
            bands = np.moveaxis(np.stack(each), 2, 0)
            found[modality] = [
                (b.size, float(b.min()), float(b.max()), round(float(b.mean()), 6)) for b in bands
            ]
    return found


EMPTY = State()
