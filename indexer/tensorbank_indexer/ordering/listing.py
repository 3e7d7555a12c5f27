"""The listing of archives by the workers of an engine: what samples there are, before any of them is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from tensorbank.engines import Executor
from tensorbank.errors import InvalidInputError
from tensorbank_indexer.guarded_source import N_SCAN_THREADS, scan_ahead
from tensorbank_indexer.parts import IngestSetting
from tensorbank_indexer.source import Archive, Scan, Source

__all__ = ["listed_archives", "require_single_samples"]


@dataclass(frozen=True, slots=True)
class ListingTask:
    """The task of listing some archives, of which the first one has the number ``start``."""

    start: int
    archives: tuple[Archive, ...]

    @property
    def label(self) -> str:
        """See ``Task.label``."""
        return f"the listing of {self.archives[0].name} to {self.archives[-1].name}"

    @property
    def first_paths(self) -> tuple[str, ...]:
        """See ``SourceTask.first_paths``."""
        return tuple(file.path for file in self.archives[0].files)


@dataclass(frozen=True, slots=True)
class Listing:
    """The scans of some archives in order, of which the first one has the number ``start``."""

    start: int
    scans: tuple[Scan, ...]
    keys: tuple[str, ...] = ()


def run(task: ListingTask, setting: IngestSetting) -> Listing:
    """Execute a task.

    Raises
    ------
    StorageError
        The source is out of reach.
    """
    return Listing(task.start, tuple(scan_ahead(setting.source, task.archives)))


def require_single_samples(source: Source) -> None:
    """Raise InvalidInputError if samples of a source can only be read with the others of their archive."""
    if source.placement != "anywhere":
        raise InvalidInputError(
            f"a global order takes the samples of a shard from many archives, and those of {source.root} (format "
            f"{source.format}) can only be read together with the others of their archive; ingest without --global-order, by "
            "which samples are ordered within each archive"
        )


def listed_archives(archives: Sequence[Archive], executor: Executor) -> Iterator[tuple[int, Scan]]:
    """Yield the number of each archive and its scan, as workers come to them: not in order."""
    tasks = [
        ListingTask(start, tuple(archives[start : start + N_SCAN_THREADS]))
        for start in range(0, len(archives), N_SCAN_THREADS)
    ]
    with closing(executor.execute(tasks, run)) as finished:
        for listing in finished:
            yield from enumerate(listing.scans, listing.start)
