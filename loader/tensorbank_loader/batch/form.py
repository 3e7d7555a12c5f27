"""The form of batches: what a batch holds, and the contract of what makes one of filled buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from tensorbank_loader.batch.collation import Sample
from tensorbank_loader.batch.memory import BatchMemory
from tensorbank_loader.budgets import DrawnBudget

__all__ = ["BUDGET_COLUMNS", "MASK", "TIME_INDEX", "Batch", "BatchForm", "n_samples_of", "samples_of"]

Batch = dict[str, Any]
"""A batch: tensors by handle name, metadata by column name, and ``mask`` if a handle is missing from some sample."""
MASK = "mask"
"""The name of a batch's masks."""
TIME_INDEX = "time_index"
"""The name of a batch's chosen dates."""
BUDGET_COLUMNS = ("input_tokens", "target_tokens", "draw_key")
"""The names of a batch's drawn budgets."""
Int64 = npt.NDArray[np.int64]


class BatchForm(Protocol):
    """The form of batches, of one plan or of a mix that makes each batch of one source.

    Batches of one form have the same names, types and shapes, but for the number of samples; those of a mix do so source by
    source. A batch has:

    Tensors
        (n, band, y, x) in the stored dtype, or (n, time, band, y, x) where the modality has several dates.
    Metadata
        Numbers and booleans are tensors. A null is NaN in a float column, and makes any other column a list. Times without
        nulls are int64 microseconds since 1970 UTC. Everything else is a list of Python values.
    Chosen dates
        Where some of the dates are chosen, tensors of modalities with several dates have those only, and are (n, band, y, x)
        if it is one. ``time_index``, (n, k) int64, tells which. Of columns that have a time for each date of each sample,
        such as ``S2_times``, and of ``cloud_covers``, the chosen dates are a tensor (n, k); times are int64 microseconds since
        1970 UTC.
    ``mask``
        {handle: (n,) bool}: True for the samples that have the handle. It is there for handles that some sample of the plan
        lacks, or may lack where damage is skipped. Samples without the handle hold the fill value, NaN for floats and else 0.
        {handle: (n, time) bool} where some sample has fewer dates than its table: True for the dates of the tensor that the
        sample has. The others are behind them and hold the fill value.

    Budgets
        Where tokens have a budget, ``input_tokens`` and ``target_tokens``, {handle: (n,) int64}, say how many of each sample are
        seen and predicted, and ``draw_key``, (n,) int64, is a random number for each sample. A handle of which a sample has
        neither is not read, and its ``mask`` is False.

    A batch is made in three steps: :meth:`dates` and :meth:`budget` before it is read, :meth:`allocate` when its first bytes have
    come, in a thread of the reader, and :meth:`batch` when its buffers are filled. Forms hold no buffers, and all methods may be
    called at once.
    """

    def dates(self, positions: Int64, *, epoch: int) -> Int64 | None:
        """Return the dates that are read of the samples at some positions, (n, k) int64; None: all."""

    def budget(self, positions: Int64, *, epoch: int) -> DrawnBudget | None:
        """Return the budgets of the samples at some positions; None: there are none."""

    def allocate(self, positions: Int64, memory: BatchMemory) -> dict[str, torch.Tensor]:
        """Allocate uninitialised tensors (n, time, band, y, x) for the samples at some positions, (n,), by handle name."""

    def batch(
        self,
        tensors: Mapping[str, torch.Tensor],
        masks: Mapping[str, npt.NDArray[np.bool_]],
        positions: Int64,
        dates: Int64 | None = None,
        budget: DrawnBudget | None = None,
    ) -> Batch:
        """Return the batch for the consumer, made of the filled tensors; no pixel is copied.

        Parameters
        ----------
        tensors
            Tensors that :meth:`allocate` returned, filled.
        masks
            Masks of the read, (n,) or (n, time) bool, by handle name.
        positions
            Positions of the samples, (n,) int64.
        dates
            Dates that :meth:`dates` returned.
        budget
            Budgets that :meth:`budget` returned.

        Raises
        ------
        InvalidInputError
            A value of a metadata column has no counterpart in Python or torch.
        """


def samples_of(batch: Batch, start: int = 0) -> list[Sample]:
    """Return the single samples of a batch from place ``start`` on; their tensors share the batch's memory."""
    return [
        Sample(
            (name, {k: v[i] for k, v in value.items()} if isinstance(value, dict) else value[i])
            for name, value in batch.items()
        )
        for i in range(start, n_samples_of(batch))
    ]


def n_samples_of(batch: Batch) -> int:
    """Return the number of samples in a batch."""
    return len(next(iter(batch.values())))
