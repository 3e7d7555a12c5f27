"""Batches of a homogeneous mix: a form and a reader that pass each batch to those of its one source.

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
from tensorbank.queries import Mix
from tensorbank.reading import BatchRead, Buffers, SampleReader, Skipped
from tensorbank_loader.batch.form import Batch
from tensorbank_loader.batch.memory import BatchMemory
from tensorbank_loader.batch.plan_form import PlanForm
from tensorbank_loader.budgets import BudgetDraws, DrawnBudget
from tensorbank_loader.order import DateChoice

__all__ = ["MixForm", "MixReader"]

Int64 = npt.NDArray[np.int64]


class MixForm:
    """A form of batches that are each of one source of a mix. Keeps :class:`BatchForm`.

    Parameters
    ----------
    mix
        Homogeneous mix.
    choices
        Dates that are read of each source; None: all.
    budgets
        Draws of the budgets of each source; None: there is no budget.
    skipping
        True if damage is skipped, so that all handles have masks.
    """

    def __init__(
        self,
        mix: Mix,
        choices: Sequence[DateChoice | None],
        budgets: Sequence[BudgetDraws | None],
        *,
        skipping: bool = False,
    ) -> None:
        sources = zip(mix.sources, choices, budgets, strict=True)
        self._forms = tuple(
            PlanForm.of(plan, choice, draws, skipping=skipping) for plan, choice, draws in sources
        )
        self._starts = _starts(mix)

    def dates(self, positions: Int64, *, epoch: int) -> Int64 | None:
        source, own = _of_source(positions, self._starts)
        return self._forms[source].dates(own, epoch=epoch)

    def budget(self, positions: Int64, *, epoch: int) -> DrawnBudget | None:
        source, own = _of_source(positions, self._starts)
        return self._forms[source].budget(own, epoch=epoch)

    def allocate(self, positions: Int64, memory: BatchMemory) -> dict[str, torch.Tensor]:
        source, own = _of_source(positions, self._starts)
        return self._forms[source].allocate(own, memory)

    def batch(
        self,
        tensors: Mapping[str, torch.Tensor],
        masks: Mapping[str, npt.NDArray[np.bool_]],
        positions: Int64,
        dates: Int64 | None = None,
        budget: DrawnBudget | None = None,
    ) -> Batch:
        source, own = _of_source(positions, self._starts)
        return self._forms[source].batch(tensors, masks, own, dates, budget)


class MixReader:
    """A reader of batches that are each of one source of a mix. Keeps :class:`Reader`."""

    def __init__(self, mix: Mix, options: FetchOptions | None = None) -> None:
        self.options = options or FetchOptions()
        self._mix = mix
        self._readers = tuple(SampleReader.of(plan, self.options) for plan in mix.sources)
        self._starts = _starts(mix)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self._mix, self.options))

    @property
    def stats(self) -> FetchStats:
        return reduce(add, (r.stats for r in self._readers))

    @property
    def decode_s(self) -> float:
        return sum(r.decode_s for r in self._readers)

    @property
    def n_skipped(self) -> int:
        return sum(r.n_skipped for r in self._readers)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return tuple(skipped for r in self._readers for skipped in r.skipped)

    def submit(
        self,
        positions: Int64,
        out: Buffers | Callable[[], Buffers],
        dates: Int64 | None = None,
        wanted: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    ) -> BatchRead:
        source, own = _of_source(positions, self._starts)
        return self._readers[source].submit(own, out, dates, wanted)

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


def _starts(mix: Mix) -> Int64:
    """Return the first position of each source, and the number of all positions, (sources + 1,) int64."""
    return np.cumsum([0, *map(len, mix.plans)])


def _of_source(positions: Int64, starts: Int64) -> tuple[int, Int64]:
    """Return the source of a batch, and the positions in its plan, (n,) int64."""
    source = int(np.searchsorted(starts, positions[0], side="right")) - 1
    return source, positions - starts[source]
