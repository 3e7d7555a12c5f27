"""The seconds that the stages of an ingest take, and the clock that adds them up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

__all__ = ["StageClock", "StageSeconds"]

Item = TypeVar("Item")


@dataclass(slots=True)
class StageSeconds:
    """Seconds of one or more tasks by stage; ``read`` includes decoding the archive."""

    read: float = 0.0
    statistics: float = 0.0
    encode: float = 0.0
    write: float = 0.0

    def add(self, other: StageSeconds) -> None:
        """Add the seconds of another task to these."""
        self.read += other.read
        self.statistics += other.statistics
        self.encode += other.encode
        self.write += other.write

    @property
    def total(self) -> float:
        """The seconds of all stages together."""
        return self.read + self.statistics + self.encode + self.write


class StageClock:
    """A clock that adds up the seconds of stages. For one thread."""

    def __init__(self) -> None:
        self.seconds = StageSeconds()

    @contextmanager
    def stage(self, name: Literal["read", "statistics", "encode", "write"]) -> Iterator[None]:
        """Count the time that the block takes as time of a stage, even if it raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            setattr(self.seconds, name, getattr(self.seconds, name) + spent)

    def reading(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield the items, none of which is None, with the time it takes to get each counted as ``read``."""
        while True:
            with self.stage("read"):
                item = next(items, None)
            if item is None:
                return
            yield item
