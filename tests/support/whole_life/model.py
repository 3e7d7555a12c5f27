"""A model of a table: what each version holds, as plain Python values, and what a reader must be told of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from support.tiny_source import pixels

__all__ = ["EMPTY", "MODALITIES", "UNIVERSE", "Either", "Sample", "State", "name_of", "statistics_of"]

MODALITIES = ("DEM", "S1RTC")
UNIVERSE = tuple(range(12))
"""The numbers of all samples that there may be."""
TILES = 4


def name_of(number: int) -> str:
    """Return the id of a sample."""
    return f"sample-{number:04d}"


@cache
def digest(number: int, modality: str, edition: int) -> str:
    """Return a hash of the pixels that an archive has for a sample."""
    return hashlib.sha256(pixels(number, modality, edition).tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Either:
    """A value that a sample which comes again has, or has not: compaction may have removed it while nobody had the sample."""

    value: float


@dataclass(frozen=True)
class Sample:
    """A sample of a version: which edition of the archive each of its modalities is of."""

    editions: Mapping[str, int]


@dataclass(frozen=True)
class State:
    """The content of a version.

    ``values`` are those of added columns, by column and sample; also of samples that the version has no more.
    """

    samples: Mapping[int, Sample] = field(default_factory=dict)
    values: Mapping[str, Mapping[int, float | Either]] = field(default_factory=dict)
    modalities: tuple[str, ...] = ("DEM",)

    def with_samples(self, new: Mapping[int, Sample]) -> State:
        """Return the state with some samples more."""
        names = {name for sample in new.values() for name in sample.editions}
        more = tuple(n for n in MODALITIES if n in names and n not in self.modalities)
        return replace(self, samples={**self.samples, **new}, modalities=(*self.modalities, *more))

    def without(self, numbers: Iterable[int]) -> State:
        """Return the state without some samples. Their values stay: they are of whoever comes with their key."""
        gone = set(numbers)
        return replace(self, samples={n: s for n, s in self.samples.items() if n not in gone})

    def compacted(self) -> State:
        """Return the state after a compaction, which may remove the values of samples that are not there."""
        values = {
            column: {
                n: v if n in self.samples or isinstance(v, Either) else Either(v) for n, v in some.items()
            }
            for column, some in self.values.items()
        }
        return replace(self, values=values)

    def told(self) -> dict[str, object]:
        """Return what a reader must be told."""
        samples = {
            name_of(n): {m: digest(n, m, edition) for m, edition in s.editions.items()}
            for n, s in self.samples.items()
        }
        tiles = {name_of(n): dict.fromkeys(s.editions, TILES) for n, s in self.samples.items()}
        return {
            "samples": samples,
            "tiles": tiles,
            "members": sorted(samples),
            "n_samples": len(samples),
            "modalities": sorted(self.modalities),
            "columns": sorted(self.values),
            "statistics": statistics_of(self.samples),
        }

    def resolved(self, told: Mapping[str, Mapping[str, float]]) -> State | None:
        """Return the state with the values that a reader was told, None if it cannot have them."""
        values: dict[str, Mapping[int, float | Either]] = {}
        for column, some in self.values.items():
            seen = told.get(column, {})
            mine = dict(some)
            for number in self.samples:
                value, found = some.get(number), seen.get(name_of(number))
                if isinstance(value, Either) and found in (None, value.value):
                    if found is None:
                        del mine[number]
                    else:
                        mine[number] = found
                elif value != found:
                    return None
            values[column] = mine
        return replace(self, values=values)


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
