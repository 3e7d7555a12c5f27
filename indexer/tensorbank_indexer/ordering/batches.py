"""Batches: the samples that an ingest looks at together, and the archives that have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tensorbank_indexer.source import Archive, SampleRef, Scan

__all__ = ["Batch", "archive_batches"]


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of which at most one part is made, and the archives that were looked at for them."""

    refs: Sequence[SampleRef]
    archives: Sequence[Archive]


def archive_batches(scans: Iterable[Scan], n_samples: int) -> Iterator[Batch]:
    """Yield the samples of as many whole archives as have ``n_samples`` together, time after time."""
    refs: list[SampleRef] = []
    archives: list[Archive] = []
    for scanned in scans:
        refs += scanned.samples
        archives.append(scanned.archive)
        if len(refs) >= n_samples:
            yield Batch(refs, archives)
            refs, archives = [], []
    if archives:
        yield Batch(refs, archives)
