"""Ranges of objects as bytes in files: read into place and verified, written in one go."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Sequence
from itertools import groupby

import crc32c as crc
import numpy as np

from tensorbank.cache.cached_range import CachedRange
from tensorbank.cache.intervals import Interval

__all__ = ["Target", "checksum", "read_ranges", "write_segment"]

MAX_BUFFERS = 512
"""The most buffers of one vectored read or write; Linux takes 1024."""
_START = struct.Struct("<q")


class Target:
    """The buffer in which the bytes of one read come together.
    One piece that covers the whole read is handed on without a copy.
    """

    def __init__(self, wanted: Interval) -> None:
        self._start, self._end = wanted
        self._buffer: memoryview | None = None
        self._whole: memoryview | None = None

    @property
    def data(self) -> memoryview:
        return (self._whole if self._whole is not None else self._open()).toreadonly()

    def place(self, start: int, end: int) -> memoryview | None:
        """Return the memory for bytes ``[start, end)``; None if they are not all within the read."""
        if start < self._start or end > self._end:
            return None
        return self._open()[start - self._start : end - self._start]

    def fill(self, pieces: Iterable[tuple[int, memoryview]]) -> None:
        """Copy the parts of some pieces that lie within."""
        for start, data in pieces:
            end = start + len(data)
            if self._buffer is None and (start, end) == (self._start, self._end):
                self._whole = data
                return
            a, b = max(start, self._start), min(end, self._end)
            self._open()[a - self._start : b - self._start] = data[a - start : b - start]

    def _open(self) -> memoryview:
        if self._buffer is None:
            self._buffer = np.empty(self._end - self._start, np.uint8).data
        return self._buffer


def checksum(name: str, start: int, data: memoryview) -> int:
    """Return a checksum over the bytes and where they belong:
    an index that mixes up ranges is found out, too.
    """
    return int(crc.crc32c(data, crc.crc32c(_START.pack(start), crc.crc32c(name.encode()))))


def read_ranges(
    folder: str, name: str, ranges: Sequence[CachedRange], target: Target
) -> tuple[list[CachedRange], list[CachedRange]]:
    """Read ranges into the target; return those that are damaged, and those whose segment is gone."""
    bad: list[CachedRange] = []
    gone: list[CachedRange] = []
    for file, group in groupby(ranges, key=lambda e: e.file):
        mine = list(group)
        try:
            segment = os.open(f"{folder}/{file}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            gone += mine
            continue
        try:
            size = os.fstat(segment).st_size
            bad += [e for e in mine if e.position + e.n_bytes > size]  # before anything is allocated for it
            for run in _runs([e for e in mine if e.position + e.n_bytes <= size]):
                bad += _read_run(segment, name, run, target)
        finally:
            os.close(segment)
    return bad, gone


def _read_run(segment: int, name: str, run: list[CachedRange], target: Target) -> list[CachedRange]:
    """Read ranges that follow each other in a segment; return the damaged ones."""
    places = [target.place(e.start, e.end) for e in run]
    buffers = [memoryview(bytearray(e.n_bytes)) if p is None else p for e, p in zip(run, places, strict=True)]
    n_read = os.preadv(segment, buffers, run[0].position)
    bad = []
    for e, place, data in zip(run, places, buffers, strict=True):
        if e.position + e.n_bytes - run[0].position > n_read or checksum(name, e.start, data) != e.checksum:
            bad.append(e)
        elif place is None:
            target.fill([(e.start, data)])
    return bad


def _runs(ranges: Sequence[CachedRange]) -> list[list[CachedRange]]:
    """Return the ranges that follow each other in their segment, some at a time."""
    runs: list[list[CachedRange]] = []
    for e in ranges:
        follows = runs and runs[-1][-1].position + runs[-1][-1].n_bytes == e.position
        if follows and len(runs[-1]) < MAX_BUFFERS:
            runs[-1].append(e)
        else:
            runs.append([e])
    return runs


def write_segment(path: str, position: int, datas: Sequence[memoryview]) -> bool:
    """Write buffers one after the other; False if the segment has been evicted meanwhile."""
    try:
        segment = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        for first in range(0, len(datas), MAX_BUFFERS):
            batch = datas[first : first + MAX_BUFFERS]
            n_bytes = sum(map(len, batch))
            if os.pwritev(segment, batch, position) != n_bytes:
                raise OSError(errno.ENOSPC, "the disk took only a part", path)
            position += n_bytes
    finally:
        os.close(segment)
    return True
