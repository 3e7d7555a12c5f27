"""The references of all samples of a source, by season and place, whichever archives have them.

While archives are listed, references go to a temporary file, about 1 kB each, which the system removes with the process. What
stays in memory is 32 bytes a sample, and as much again while it is sorted; then one batch at a time is read back.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator
from types import TracebackType

import numpy as np
import numpy.typing as npt

from tensorbank.catalog import key_of
from tensorbank_indexer.ordering.batches import Batch
from tensorbank_indexer.parts import place_numbers
from tensorbank_indexer.source import Archive, SampleRef, Scan

__all__ = ["OrderedReferences"]

_ROW = np.dtype([("place", "<i8"), ("archive", "<i4"), ("position", "<i4"), ("key", "<i8"), ("start", "<i8")])

AreThere = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]


class OrderedReferences:
    """The references of a source while it is listed, and then in order. Use it as a context: it has a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="tensorbank-order-")  # noqa: SIM115 - closed by the context
        self._end = 0
        self._rows: list[npt.NDArray[np.void]] = []
        self._archives: dict[int, Archive] = {}

    def __enter__(self) -> OrderedReferences:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return sum(map(len, self._rows))

    def add(self, number: int, scanned: Scan) -> None:
        """Add the samples of an archive; of samples at one place, those of the archive with the lower number come first."""
        refs = scanned.samples
        rows = np.zeros(len(refs), _ROW)
        rows["place"] = place_numbers(refs)
        rows["archive"] = number
        rows["position"] = np.arange(len(refs))
        rows["key"] = [key_of(ref.split, ref.sample_id) for ref in refs]
        for place, ref in enumerate(refs):
            rows["start"][place] = self._end
            self._end += self._file.write(pickle.dumps(ref, pickle.HIGHEST_PROTOCOL))
        self._rows.append(rows)
        self._archives[number] = scanned.archive

    def batches(self, n_samples: int, are_there: AreThere) -> Iterator[Batch]:
        """Yield all samples in order, at most ``n_samples`` at a time.

        The order is cut every ``n_samples`` samples, whatever of them the table has, so that a run which was stopped cuts it as
        before. Of pieces of which less than half is new, what the table has comes by itself, and new samples of neighbours are
        put together: they become one part.

        Parameters
        ----------
        are_there
            Tells of the keys of samples, (n,) int64, which of them the table has.
        """
        rows = np.concatenate([np.zeros(0, _ROW), *self._rows])
        self._rows = [rows]
        rows = rows[np.lexsort((rows["position"], rows["archive"], rows["place"]))]
        waiting = rows[:0]
        for start in range(0, len(rows), n_samples):
            piece = rows[start : start + n_samples]
            there = are_there(piece["key"])
            is_mostly_new = 2 * np.count_nonzero(there) <= len(piece)
            new = piece[~there]
            if len(waiting) and (is_mostly_new or len(waiting) + len(new) > n_samples):
                yield self._batch(waiting)
                waiting = rows[:0]
            if is_mostly_new:
                yield self._batch(piece)
            else:
                yield self._batch(piece[there])
                waiting = np.concatenate([waiting, new])
        if len(waiting):
            yield self._batch(waiting)

    def _batch(self, rows: npt.NDArray[np.void]) -> Batch:
        refs = [self._read(start) for start in rows["start"].tolist()]
        return Batch(refs, [self._archives[number] for number in np.unique(rows["archive"]).tolist()])

    def _read(self, start: int) -> SampleRef:
        self._file.seek(start)
        ref: SampleRef = pickle.load(self._file)
        return ref
