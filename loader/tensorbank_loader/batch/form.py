"""Batches as torch tensors: allocated once, decoded in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.errors import InvalidInputError
from tensorbank.plans import Handle, Plan
from tensorbank_loader.batch.collation import Sample
from tensorbank_loader.batch.memory import BatchMemory
from tensorbank_loader.order import DateChoice

__all__ = ["Batch", "BatchForm", "n_samples_of", "samples_of"]

Batch = dict[str, Any]
"""A batch: tensors by handle name, metadata by column name,
and ``mask`` where a handle is missing from some sample."""

MASK = "mask"
TIME_INDEX = "time_index"
ColumnKind = Literal["number", "time", "dates", "values"]
NUMBERS_OF_DATES = "cloud_covers"
"""The table's column with a number for each date. Lists of times are dates' whatever their name, of numbers anything's."""


@dataclass(frozen=True, slots=True)
class BatchForm:
    """The form of every batch of a plan; decided by the plan, so that no batch differs from the next.

    Tensors
        (n, band, y, x) in the stored dtype, or (n, time, band, y, x) where the modality has several dates.
    Metadata
        Numbers and booleans are tensors; a null is NaN in a float column, and makes any other column a list. Times without
        nulls are int64 microseconds since 1970 UTC. Everything else is a list of Python values.
    Chosen dates
        Where some of the dates are chosen, tensors of modalities with several have those only, and (n, band, y, x) where it is
        one. ``time_index``, (n, k) int64, tells which. Of columns that have a time for each date of each sample, such as
        ``S2_times``, and of ``cloud_covers``, the chosen dates' are a tensor (n, k); times are int64 microseconds since 1970 UTC.
    ``mask``
        {handle: (n,) bool} for the handles that some sample of the plan lacks, or may lack where damage is skipped: which
        samples have it. The others hold the fill value, NaN for floats and else 0. {handle: (n, time) bool} where some sample
        has fewer dates than its table: which dates of the tensor are its own; it is padded with the fill value behind them.

    Parameters
    ----------
    dtypes
        torch's dtypes, by handle name.
    columns
        Kinds in which the metadata columns are handed out.
    gappy
        Handles that some sample lacks, or some dates of which.
    choice
        The dates that are read; None: all.
    """

    plan: Plan
    dtypes: dict[str, torch.dtype]
    columns: dict[str, ColumnKind]
    gappy: tuple[str, ...]
    choice: DateChoice | None = None

    @classmethod
    def of(cls, plan: Plan, choice: DateChoice | None = None, *, skipping: bool = False) -> BatchForm:
        """The form of a plan's batches.

        Parameters
        ----------
        choice
            The dates that are read; None: all.
        skipping
            Any sample may come to lack any handle, so that all are masked.

        Raises
        ------
        InvalidInputError
            The plan selects no modality; torch lacks a dtype; two things would have one name in the batch.
        """
        if not plan.handles:
            raise InvalidInputError(
                "the query selects no modality, so there is nothing to stream; use .arrow()"
            )
        gappy = tuple(
            h.name
            for h in plan.handles
            if skipping
            or plan.table[f"{h.name}.key"].null_count
            or f"{h.name}.n_times" in plan.table.column_names
        )
        taken = {h.name for h in plan.handles} | ({MASK} if gappy else set())
        taken |= {TIME_INDEX} if choice else set()
        for name in plan.metadata_columns:
            if name in taken:
                raise InvalidInputError(f"the batch has {name!r} already; rename the column with AS")
        return cls(
            plan=plan,
            dtypes={h.name: _torch_dtype(h) for h in plan.handles},
            columns={name: _kind(name, plan.table[name], choice) for name in plan.metadata_columns},
            gappy=gappy,
            choice=choice,
        )

    def at(self, positions: npt.NDArray[np.int64]) -> BatchForm:  # noqa: ARG002
        """The form of a batch of these positions: the one form of all."""
        return self

    def dates(self, positions: npt.NDArray[np.int64], *, epoch: int) -> npt.NDArray[np.int64] | None:
        """Return the dates that are read of the samples at some positions, (n, k) int64; None: all."""
        return None if self.choice is None else self.choice.dates(positions, epoch=epoch)

    def allocate(self, n_samples: int, memory: BatchMemory) -> dict[str, torch.Tensor]:
        """Allocate uninitialised tensors (n, time, band, y, x), by handle name."""
        return {
            h.name: memory.tensor(h.name, (n_samples, self._n_times(h), *h.shape[1:]), self.dtypes[h.name])
            for h in self.plan.handles
        }

    def _n_times(self, handle: Handle) -> int:
        """Return the number of dates of a sample in the batch."""
        return self.choice.n_chosen if self.choice is not None and handle.by_date else handle.n_times

    def batch(
        self,
        tensors: Mapping[str, torch.Tensor],
        masks: Mapping[str, npt.NDArray[np.bool_]],
        positions: npt.NDArray[np.int64],
        dates: npt.NDArray[np.int64] | None = None,
    ) -> Batch:
        """Return the batch for the consumer, made of filled tensors; no pixel is copied."""
        batch: Batch = {
            h.name: tensors[h.name].squeeze(1) if self._n_times(h) == 1 else tensors[h.name]
            for h in self.plan.handles
        }
        rows = self.plan.table.select(list(self.columns)).take(as_arrow(positions))
        for name, kind in self.columns.items():
            try:
                batch[name] = _values(rows[name], kind, dates)
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise InvalidInputError(
                    f"column {name!r}, of type {rows[name].type}, cannot be handed out: {error}; cast it in the query"
                ) from error
        if dates is not None:
            batch[TIME_INDEX] = torch.from_numpy(dates)
        if self.gappy:
            batch[MASK] = {name: _mask(masks[name]) for name in self.gappy}
        return batch


def samples_of(batch: Batch, start: int = 0) -> list[Sample]:
    """Return single samples of a batch from place ``start`` on;
    their tensors are views that share the batch's memory."""
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


def _mask(mask: npt.NDArray[np.bool_]) -> torch.Tensor:
    """Return the mask, (n,) where one date is delivered, as the tensor has no axis of dates then either."""
    return torch.from_numpy(mask[:, 0] if mask.ndim == 2 and mask.shape[1] == 1 else mask)


def _torch_dtype(handle: Handle) -> torch.dtype:
    try:
        return torch.from_numpy(np.empty(0, handle.modality.dtype)).dtype
    except TypeError as error:
        raise InvalidInputError(
            f"{handle.name} is {handle.modality.dtype}, which torch does not have"
        ) from error


def _kind(name: str, column: pa.ChunkedArray, choice: DateChoice | None) -> ColumnKind:
    kind = column.type
    if choice is not None and _is_of_dates(name, column, choice.n_dates):
        return "dates"
    if pa.types.is_floating(kind):
        return "number"
    if column.null_count:
        return "values"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "number"
    return "time" if pa.types.is_timestamp(kind) else "values"


def _is_of_dates(name: str, column: pa.ChunkedArray, n_dates: int) -> bool:
    """Tell whether each row has a list with a value for each date."""
    kind = column.type
    if not pa.types.is_list(kind) or column.null_count:
        return False
    if not (pa.types.is_timestamp(kind.value_type) or name == NUMBERS_OF_DATES):
        return False
    lengths = pc.list_value_length(column)
    return bool(pc.all(pc.equal(lengths, n_dates)).as_py()) and not pc.list_flatten(column).null_count


def _values(
    column: pa.ChunkedArray, kind: ColumnKind, dates: npt.NDArray[np.int64] | None
) -> torch.Tensor | list[Any]:
    if kind == "values":
        found: list[Any] = column.to_pylist()
        return found
    if kind == "dates" and dates is not None:
        flat = _numbers(pc.list_flatten(column))
        n_dates = len(flat) // max(len(dates), 1)
        return torch.from_numpy(np.take_along_axis(flat.reshape(-1, n_dates or 1), dates, axis=1))
    return torch.from_numpy(np.array(_numbers(column)))  # a copy: Arrow's memory is read-only


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return the times as int64 microseconds since 1970 UTC, numbers as they are."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64())
    return as_numpy(column)
