"""An archive of a few samples of 8 x 8 pixels that lies nowhere: all of it follows from numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tensorbank_indexer import (
    Archive,
    Finding,
    MemberAddress,
    RawModality,
    RawSample,
    SampleRef,
    Scan,
    SourceFile,
)

__all__ = ["SIDE", "TinySource", "pixels"]

SIDE = 8
BANDS = {"DEM": ("elevation",), "S1RTC": ("vv", "vh"), "S2L2A": ("B04", "B08")}


def pixels(number: int, modality: str, edition: int = 1) -> np.ndarray:
    """Return what an edition of the archive holds for a sample, (time, band, y, x)."""
    rng = np.random.default_rng([number, edition, len(modality)])
    return rng.integers(0, 3000, (1, len(BANDS[modality]), SIDE, SIDE)).astype(np.int16)


class TinySource:
    """A source of samples ``first`` to ``first + n``; another ``edition`` has other pixels, ETags and places in the files."""

    format = "tiny"
    root = "tiny://archive"
    placement = "anywhere"
    attributes: Mapping[str, str] = {"licence": "CC0-1.0"}

    def __init__(
        self, n: int, first: int = 0, edition: int = 1, modalities: Sequence[str] = ("DEM",)
    ) -> None:
        self.n, self.first, self.edition, self.modalities = n, first, edition, tuple(modalities)

    @property
    def etag(self) -> str:
        return f"edition-{self.edition}"

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        name = f"{self.first:04d}-{self.first + self.n:04d}"
        files = tuple(SourceFile(m, f"{m}/{name}", 1000, self.etag) for m in self.modalities)
        return [Archive(name, "train", "made", files)], []

    def scan(self, archive: Archive) -> Scan:
        refs = []
        for number in range(self.first, self.first + self.n):
            members = {
                file.modality: MemberAddress(file.path, 100 * number + self.edition, 100, file.etag)
                for file in archive.files
            }
            stem, lon, time_ns = f"sample-{number:04d}", 10.0 + number / 10, 1_594_000_000 * 10**9
            refs.append(SampleRef(archive.name, "train", "made", stem, stem, lon, 45.0, time_ns, members))
        return Scan(archive, tuple(refs), ())

    def read(self, refs: Sequence[SampleRef]) -> Iterator[RawSample]:
        for ref in refs:
            sample = RawSample(ref, ref.sample_id, None, ref.lon, ref.lat, None, None, {})
            for name, address in ref.members.items():
                number = int(ref.stem.removeprefix("sample-"))
                found = pixels(number, name, self.edition)
                sample.modalities[name] = RawModality(
                    found, BANDS[name], np.array([ref.time_ns]), (), address
                )
            yield sample
