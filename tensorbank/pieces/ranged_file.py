"""One index file of a store, read by byte ranges: each piece is proved by its checksum, kept on the disk, and fetched once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import crc32c as crc
import numpy as np

from tensorbank.errors import ErrorKind, IntegrityError, StorageError
from tensorbank.pieces.kept_pieces import KeptPieces
from tensorbank.pieces.piece_list import PieceList, footer_size
from tensorbank.ranges import coalesce

__all__ = ["RangedFile"]

Read = Callable[[int, int], memoryview]
"""A callable that brings ``n_bytes`` of the file, from a start on."""
N_FETCHES = 3
"""The number of times that bytes which cannot be right are fetched before the error is raised:
the network may have been at fault."""
MAX_GAP_BYTES = 64 << 10
MAX_AMPLIFICATION = 1.25
MAX_READ_BYTES = 8 << 20
MIN_TAIL_BYTES = 128 << 10
"""Bytes from the end that are fetched at first, at least: DuckDB asks for as many at once of files of some ten megabytes."""


class RangedFile:
    """A file whose pieces are fetched as they are asked for. May be used by many threads at once.

    Parameters
    ----------
    where
        What errors call it.
    kept
        The copy of what came.
    checksum
        CRC-32C of the whole file, as its commit has it.
    fetch
        Brings bytes from the store; its errors are raised.
    """

    def __init__(self, where: str, kept: KeptPieces, checksum: int, fetch: Read) -> None:
        self.where = where
        self.n_bytes = kept.n_bytes
        self.kept = kept
        self._checksum = checksum
        self._fetch = fetch
        self._turn = threading.Lock()
        self._coming: dict[int, Future[dict[int, memoryview]]] = {}
        self._size = 1
        self._checksums: list[int] = []
        self._n_tail_bytes = 0
        self._is_kept = bytearray()

    def open(self, tail_bytes: int) -> bool:
        """Bring the tail, and prove it and the list that is in it.

        Parameters
        ----------
        tail_bytes
            Guess of how long the tail is; a longer one takes a second request.

        Returns
        -------
        False if the file has no list of pieces, or is not what the list and its commit say: it is to be read as a whole.
        """
        guess = min(max(tail_bytes, MIN_TAIL_BYTES), self.n_bytes)
        if self._take(self._end(self.kept.read, guess)):
            return True
        for _ in range(N_FETCHES):
            try:
                end = self._end(self._fetch, guess)
            except StorageError as error:
                if error.kind != ErrorKind.SHORT_READ:
                    raise
                return False
            if end is None:
                return False
            if self._take(end):
                start = self.n_bytes - len(end)
                first = -(-start // self._size) * self._size  # with whole pieces that came before the tail
                self.kept.write(first, end[first - start :])
                return True
        return False

    @property
    def tail(self) -> bytes:
        """The bytes behind the last piece that is listed, the footer among them."""
        return self.read(self.n_bytes - self._n_tail_bytes, self._n_tail_bytes)

    def read(self, start: int, n_bytes: int) -> bytes:
        """Return ``n_bytes`` from ``start`` on, or fewer where the file ends, after :meth:`open`.

        Raises
        ------
        IntegrityError
            They are not those that were written.
        NotFoundError, StorageError
            The store has no such file any more, or it failed.
        """
        end = min(start + n_bytes, self.n_bytes)
        if start >= end:
            return b""
        numbers = self._numbers(start, end)
        first, last = self._interval(numbers.start, numbers.stop)
        if all(self._is_kept[numbers.start : numbers.stop]):
            memory = self.kept.read(first, last - first)
            if len(self._sound(numbers.start, memory)) == len(numbers):
                return memory[start - first : end - first].tobytes()
        found = self._load(numbers)
        return memoryview(b"".join([found[n] for n in numbers]))[start - first : end - first].tobytes()

    @property
    def is_complete(self) -> bool:
        """True if all pieces are known to be kept."""
        return all(self._is_kept)

    def lacks(self, start: int, end: int) -> bool:
        """Tell whether bytes may have to be fetched: they are not known to be kept, though they could be."""
        numbers = self._numbers(start, end)
        return not self.kept.is_full and not all(self._is_kept[numbers.start : numbers.stop])

    def bring(self, start: int, end: int) -> None:
        """Bring the pieces of some bytes that are missing, so that they are here when they are asked for."""
        if self.lacks(start, end):
            self._load(self._numbers(start, end))

    def _numbers(self, start: int, end: int) -> range:
        """Return the numbers of the pieces that hold some bytes."""
        first = max(start, 0) // self._size
        return range(first, max(first, min(-(-end // self._size), len(self._checksums))))

    def _end(self, read: Read, guess: int) -> memoryview | None:
        """Return the tail and maybe more, as it is read; None if there is no list in it."""
        end = read(self.n_bytes - guess, guess)
        footer = footer_size(end)
        if footer is None or footer > self.n_bytes:
            return None
        end = self._longer(read, end, footer)
        found = PieceList.find(end, self.n_bytes)
        return None if found is None else self._longer(read, end, self.n_bytes - found.n_bytes)

    def _longer(self, read: Read, end: memoryview, n_bytes: int) -> memoryview:
        """Return at least the last ``n_bytes`` of the file, of which some are there."""
        n_more = n_bytes - len(end)
        if n_more <= 0:
            return end
        return memoryview(b"".join((read(self.n_bytes - n_bytes, n_more), end)))

    def _take(self, end: memoryview | None) -> bool:
        """Take the list in the last bytes of the file, if they prove right; the tail becomes some more pieces."""
        found = None if end is None else PieceList.find(end, self.n_bytes)
        if end is None or found is None:
            return False
        tail = end[found.n_bytes - self.n_bytes :]
        if not found.is_of(tail, self._checksum):
            return False
        of_tail = [
            int(crc.crc32c(tail[a : a + found.piece_bytes])) for a in range(0, len(tail), found.piece_bytes)
        ]
        self._size, self._n_tail_bytes = found.piece_bytes, len(tail)
        self._checksums = found.checksums.tolist() + of_tail
        self._is_kept = bytearray(len(self._checksums))
        return True

    def _load(self, numbers: Sequence[int]) -> dict[int, memoryview]:
        """Return pieces: those that are kept, those that others are fetching, and what is missing then."""
        mine: Future[dict[int, memoryview]] = Future()
        with self._turn:
            others = {n: self._coming[n] for n in numbers if n in self._coming}
            own = [n for n in numbers if n not in others]
            self._coming |= dict.fromkeys(own, mine)
        try:
            mine.set_result(self._found(own))
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._turn:
                for number in own:
                    del self._coming[number]
        return mine.result() | {number: future.result()[number] for number, future in others.items()}

    def _found(self, numbers: Sequence[int]) -> dict[int, memoryview]:
        """Return pieces that are kept or fetched now."""
        found: dict[int, memoryview] = {}
        for first, last in _runs(numbers):
            start, end = self._interval(first, last)
            found |= self._sound(first, self.kept.read(start, end - start))
        for number in numbers:
            self._is_kept[number] = number in found
        if missing := [self._interval(n, n + 1) for n in numbers if n not in found]:
            starts, ends = np.array(missing, np.int64).T
            reads = coalesce(
                starts,
                ends,
                max_gap_bytes=MAX_GAP_BYTES,
                max_amplification=MAX_AMPLIFICATION,
                max_read_bytes=MAX_READ_BYTES,
            )
            for start, end in zip(reads[0].tolist(), reads[1].tolist(), strict=True):
                found |= self._fetched(start // self._size, start, end)
        return found

    def _interval(self, first: int, last: int) -> tuple[int, int]:
        """Return the bytes of some pieces that follow each other."""
        return first * self._size, min(last * self._size, self.n_bytes)

    def _fetched(self, first: int, start: int, end: int) -> dict[int, memoryview]:
        """Fetch whole pieces, and keep them.

        Raises
        ------
        IntegrityError
            They are wrong again and again.
        """
        for _ in range(N_FETCHES):
            try:
                data = self._fetch(start, end - start)
            except StorageError as error:
                if error.kind != ErrorKind.SHORT_READ:
                    raise
                continue
            found = self._sound(first, data)
            if len(data) == end - start and len(found) == -(-len(data) // self._size):
                self.kept.write(start, data)
                for number in found:
                    self._is_kept[number] = not self.kept.is_full
                return found
        raise IntegrityError(
            f"index file {self.where} cannot be read: bytes {start} to {end} are not what its checksums say"
        )

    def _sound(self, first: int, data: memoryview) -> dict[int, memoryview]:
        """Return the pieces from number ``first`` on that are what their checksums say, by number."""
        pieces = [data[a : a + self._size] for a in range(0, len(data), self._size)]
        said = self._checksums[first : first + len(pieces)]
        return {
            first + i: piece
            for i, (piece, checksum) in enumerate(zip(pieces, said, strict=True))
            if crc.crc32c(piece) == checksum
        }


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the runs of numbers that follow each other, half-open."""
    start = None
    for place, number in enumerate(numbers):
        if start is None:
            start = number
        if place + 1 == len(numbers) or numbers[place + 1] != number + 1:
            yield start, number + 1
            start = None
