"""Batches that are each of one source of a mix: a reader and a form for each source, one of which a batch needs.

Positions count through the plans of all sources, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt
import torch

from tensorbank.fetch import FetchOptions, FetchStats
from tensorbank.plans import Mix
from tensorbank.reading import BatchRead, Buffers, SampleReader, Skipped
from tensorbank_loader.batch.form import Batch, BatchForm
from tensorbank_loader.order import DateChoice

__all__ = ["MixForm", "MixReader"]

Int64 = npt.NDArray[np.int64]


class MixForm:
    """The counterpart of :class:`BatchForm` for a mix of whole batches."""

    def __init__(self, mix: Mix, choices: Sequence[DateChoice | None], *, skipping: bool = False) -> None:
        sources = zip(mix.sources, choices, strict=True)
        self._forms = tuple(BatchForm.of(plan, choice, skipping=skipping) for plan, choice in sources)
        self._starts = _starts(mix)

    def at(self, positions: Int64) -> BatchForm:
        """The form of a batch of these positions."""
        return self._forms[_source_of(positions, self._starts)]

    def dates(self, positions: Int64, *, epoch: int) -> Int64 | None:
        """Choose dates like :meth:`BatchForm.dates`, for samples of one source."""
        source = _source_of(positions, self._starts)
        return self._forms[source].dates(positions - self._starts[source], epoch=epoch)

    def batch(
        self,
        tensors: Mapping[str, torch.Tensor],
        masks: Mapping[str, npt.NDArray[np.bool_]],
        positions: Int64,
        dates: Int64 | None = None,
    ) -> Batch:
        """Make a batch like :meth:`BatchForm.batch`, of samples of one source."""
        source = _source_of(positions, self._starts)
        return self._forms[source].batch(tensors, masks, positions - self._starts[source], dates)


class MixReader:
    """The counterpart of :class:`SampleReader` for a mix of whole batches."""

    def __init__(self, mix: Mix, options: FetchOptions | None = None) -> None:
        self.options = options or FetchOptions()
        self._mix = mix
        self._readers = tuple(SampleReader(plan, self.options) for plan in mix.sources)
        self._starts = _starts(mix)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self._mix, self.options))

    @property
    def stats(self) -> FetchStats:
        """The statistics of what has been read so far of all sources."""
        return reduce(add, (r.stats for r in self._readers))

    @property
    def decode_s(self) -> float:
        """The seconds of :attr:`SampleReader.decode_s`, summed over the sources."""
        return sum(r.decode_s for r in self._readers)

    @property
    def n_skipped(self) -> int:
        """The number of :attr:`SampleReader.n_skipped`, summed over the sources."""
        return sum(r.n_skipped for r in self._readers)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The items of :attr:`SampleReader.skipped` of all sources;
        positions are those of the source's plan."""
        return tuple(skipped for r in self._readers for skipped in r.skipped)

    def submit(
        self, positions: Int64, out: Buffers | Callable[[], Buffers], dates: Int64 | None = None
    ) -> BatchRead:
        """Begin a read like :meth:`SampleReader.submit`, of samples of one source."""
        source = _source_of(positions, self._starts)
        return self._readers[source].submit(positions - self._starts[source], out, dates)

    def close(self) -> None:
        """Close the readers of all sources, as :meth:`SampleReader.close` does."""
        for reader in self._readers:
            reader.close()


def _starts(mix: Mix) -> Int64:
    return np.cumsum([0, *map(len, mix.plans)])


def _source_of(positions: Int64, starts: Int64) -> int:
    return int(np.searchsorted(starts, positions[0], side="right")) - 1
