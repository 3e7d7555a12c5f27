"""A range that somebody wants, and what becomes of its bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensorbank.ranges import ByteRange

__all__ = ["Deliver", "Wanted"]

Deliver = Callable[[memoryview], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range that somebody wants.

    Parameters
    ----------
    deliver
        Function that is called once with the bytes, read-only, in the thread that read them.
    n_asked_bytes
        Bytes that hold wanted blocks, for the statistics.
    spans
        Spans ``[start, end)`` of the object that these bytes are; all if empty.
    again
        This repeats a read that brought a bad block, for the statistics.
    """

    range: ByteRange
    deliver: Deliver
    n_asked_bytes: int = 0
    spans: Sequence[tuple[int, int]] = ()
    again: bool = False
