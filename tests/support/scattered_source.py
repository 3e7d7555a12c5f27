"""Archives of tiny samples whose places and seasons are drawn by chance, so that each archive has some of everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from support.tiny_source import TinySource
from tensorbank_indexer import Archive, Finding, RawSample, SampleRef, Scan, SourceFile

__all__ = ["ScatteredSource"]

DAY_NS = 86_400 * 10**9


class ScatteredSource(TinySource):
    """A source of ``n_archives`` with ``n_each`` samples; those whose number is in ``unreadable`` raise an error."""

    root = "tiny://scattered"

    def __init__(self, n_archives: int, n_each: int, first: int = 0, unreadable: Sequence[int] = ()) -> None:
        super().__init__(n_archives * n_each, first * n_each, modalities=("S2L2A",))
        self.n_archives, self.n_each, self.first_archive = n_archives, n_each, first
        self.unreadable = frozenset(unreadable)

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        names = [
            f"archive-{number:02d}"
            for number in range(self.first_archive, self.first_archive + self.n_archives)
        ]
        return [
            Archive(name, "train", "made", (SourceFile("S2L2A", f"S2L2A/{name}", 1000, "edition-1"),))
            for name in names
        ], []

    def scan(self, archive: Archive) -> Scan:
        start = int(archive.name.removeprefix("archive-")) * self.n_each
        tiny = TinySource(self.n_each, start)
        refs = [replace(ref, archive=archive.name) for ref in tiny.scan(archive).samples]
        return Scan(archive, tuple(map(self._scattered, refs)), ())

    def read(self, refs: Sequence[SampleRef]) -> Iterator[RawSample]:
        for ref in refs:
            number = int(ref.stem.removeprefix("sample-"))
            if number in self.unreadable:
                raise ValueError(f"sample {number} is not readable")
            yield from super().read([ref])

    @staticmethod
    def _scattered(ref: SampleRef) -> SampleRef:
        rng = np.random.default_rng(int(ref.stem.removeprefix("sample-")))
        lon, lat = rng.uniform(-180, 180), rng.uniform(-90, 90)
        return replace(ref, lon=lon, lat=lat, time_ns=int(rng.integers(1, 3650)) * DAY_NS)
