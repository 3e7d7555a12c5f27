"""Batches that are each of one source of a mix: a reader and a form for each source, one of which a batch needs.

Positions count through the plans of all sources, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import torch

from tensorbank.fetch import FetchOptions, FetchStats
from tensorbank.mixture import Mix
from tensorbank.reader import BatchRead, Buffers, SampleReader
from tensorbank_loader.batch import Batch, BatchForm

__all__ = ["MixForm", "MixReader"]

Int64 = npt.NDArray[np.int64]


class MixForm:
    """As :class:`BatchForm`, for a mix of whole batches."""

    def __init__(self, mix: Mix) -> None:
        self._forms = tuple(BatchForm.of(plan) for plan in mix.sources)
        self._starts = _starts(mix)

    def at(self, positions: Int64) -> BatchForm:
        """The form of a batch of these positions."""
        return self._forms[_source_of(positions, self._starts)]

    def batch(
        self,
        tensors: Mapping[str, torch.Tensor],
        masks: Mapping[str, npt.NDArray[np.bool_]],
        positions: Int64,
    ) -> Batch:
        """As :meth:`BatchForm.batch`."""
        source = _source_of(positions, self._starts)
        return self._forms[source].batch(tensors, masks, positions - self._starts[source])


class MixReader:
    """As :class:`SampleReader`, for a mix of whole batches."""

    def __init__(self, mix: Mix, options: FetchOptions | None = None) -> None:
        self.options = options or FetchOptions()
        self._mix = mix
        self._readers = tuple(SampleReader(plan, self.options) for plan in mix.sources)
        self._starts = _starts(mix)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self._mix, self.options))

    @property
    def stats(self) -> FetchStats:
        """What has been read so far of all sources."""
        return _sum([r.stats for r in self._readers])

    @property
    def decode_s(self) -> float:
        """As :attr:`SampleReader.decode_s`."""
        return sum(r.decode_s for r in self._readers)

    def submit(self, positions: Int64, out: Buffers) -> BatchRead:
        """As :meth:`SampleReader.submit`."""
        source = _source_of(positions, self._starts)
        return self._readers[source].submit(positions - self._starts[source], out)

    def close(self) -> None:
        """As :meth:`SampleReader.close`."""
        for reader in self._readers:
            reader.close()


def _starts(mix: Mix) -> Int64:
    return np.cumsum([0, *map(len, mix.plans)])


def _source_of(positions: Int64, starts: Int64) -> int:
    return int(np.searchsorted(starts, positions[0], side="right")) - 1


def _sum(stats: list[FetchStats]) -> FetchStats:
    """Counts and times of several fetchers add up; of percentiles the worst tells."""
    combine = {name: max if "_p" in name else sum for name in (f.name for f in fields(FetchStats))}
    return FetchStats(**{name: how([getattr(s, name) for s in stats]) for name, how in combine.items()})
