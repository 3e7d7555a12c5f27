"""Byte ranges and their arithmetic. Intervals are half-open, in bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError

__all__ = ["ByteRange", "coalesce"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes ``[start, end)`` of one object."""

    key: str
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise InvalidInputError(f"not a byte range: [{self.start}, {self.end}) of {self.key}")

    @property
    def n_bytes(self) -> int:
        return self.end - self.start


def coalesce(
    starts: Int64, ends: Int64, *, max_gap_bytes: int, max_amplification: float, max_read_bytes: int
) -> tuple[Int64, Int64, Int64]:
    """Join neighbouring ranges of one object into fewer reads.

    Pure. No defaults: the caller owns the limits. Ranges that touch are always joined up to ``max_read_bytes``; over
    a gap only while the read stays within ``max_amplification`` of the bytes asked for.

    Parameters
    ----------
    starts, ends
        (n,) int64, sorted by start, disjoint.
    max_gap_bytes
        Largest hole between two ranges of one read.
    max_amplification
        Largest ratio of bytes read to bytes asked for within one read, >= 1.
    max_read_bytes
        Largest read; a single longer range stays one read.

    Returns
    -------
    Starts and ends of the reads, (m,) int64 with m <= n, and for each range the number of its read, (n,) int64.

    Raises
    ------
    InvalidInputError
        Ranges overlap or are unsorted; the message names the first such pair.
    """
    if len(starts) == 0:
        return starts, ends, np.zeros(0, np.int64)
    bad = np.flatnonzero((starts[1:] < ends[:-1]) | (ends[1:] < starts[1:]))
    if bad.size or ends[0] < starts[0]:
        i = int(bad[0]) if bad.size else 0
        raise InvalidInputError(
            f"ranges overlap or are unsorted at {i}: {starts[i : i + 2]}, {ends[i : i + 2]}"
        )
    reads: list[tuple[int, int]] = []
    owner: list[int] = []
    first, last, wanted = int(starts[0]), int(ends[0]), int(ends[0] - starts[0])
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if i:
            total, asked = end - first, wanted + end - start
            joins = start - last <= max_gap_bytes and total <= max_read_bytes
            if joins and (start == last or total <= max_amplification * asked):
                last, wanted = end, asked
            else:
                reads.append((first, last))
                first, last, wanted = start, end, end - start
        owner.append(len(reads))
    reads.append((first, last))
    bounds = np.array(reads, np.int64)
    return bounds[:, 0], bounds[:, 1], np.array(owner, np.int64)
