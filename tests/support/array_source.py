"""An archive that is a dictionary of arrays, for tables of any modalities, bands and dates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import tensorbank as tb
from tensorbank_indexer import (
    Archive,
    Finding,
    IngestOptions,
    MemberAddress,
    RawModality,
    RawSample,
    SampleRef,
    Scan,
    SourceFile,
    ingest,
)

__all__ = ["Made", "array_bank"]

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class Made:
    """A sample: pixels (time, band, y, x) by modality, and the seconds since 1970 of its dates."""

    pixels: Mapping[str, Pixels]
    times_s: Sequence[int] = (1_594_000_000,)
    lon: float = 10.0
    lat: float = 45.0


@dataclass(frozen=True)
class ArraySource:
    """A source of samples by name; ``bands`` names those of each modality."""

    samples: Mapping[str, Made]
    bands: Mapping[str, Sequence[str]]
    format: str = "arrays"
    root: str = "arrays://made"
    placement: str = "anywhere"
    attributes: Mapping[str, str] = field(default_factory=dict)

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        return [Archive("all", "train", "made", (SourceFile("", "all", 1, "1"),))], []

    def scan(self, archive: Archive) -> Scan:
        refs = []
        for number, (name, made) in enumerate(self.samples.items()):
            members = {m: MemberAddress(f"{m}/{name}", 0, 1, "1") for m in made.pixels}
            time_ns = int(made.times_s[0]) * 10**9
            refs.append(
                SampleRef("all", "train", "made", name, name, made.lon, made.lat, time_ns, members, number)
            )
        return Scan(archive, tuple(refs), ())

    def read(self, refs: Sequence[SampleRef]) -> Iterator[RawSample]:
        for ref in refs:
            made = self.samples[ref.sample_id]
            raw = RawSample(ref, ref.sample_id, None, made.lon, made.lat, None, None, {})
            for name, pixels in made.pixels.items():
                times = np.array(made.times_s[: len(pixels)], np.int64) * 10**9
                raw.modalities[name] = RawModality(
                    pixels, tuple(self.bands[name]), times, (), ref.members[name]
                )
            yield raw


def array_bank(
    folder: Path, table: str, samples: Mapping[str, Made], bands: Mapping[str, Sequence[str]], **options: Any
) -> tb.Bank:
    """Make a bank with a table of such samples."""
    bank = tb.create(folder)
    report = ingest(
        ArraySource(samples, bands), bank, table, IngestOptions(n_workers=1, samples_per_shard=16, **options)
    )
    assert report.n_added == len(samples), report.summary()
    return bank
