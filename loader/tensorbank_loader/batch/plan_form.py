"""The form of the batches of one plan, as torch tensors that are allocated once and decoded in place."""

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
from tensorbank_loader.batch.form import BUDGET_COLUMNS, MASK, TIME_INDEX, Batch
from tensorbank_loader.batch.memory import BatchMemory
from tensorbank_loader.budgets import BudgetDraws, DrawnBudget, as_columns
from tensorbank_loader.order import DateChoice

__all__ = ["PlanForm"]

Int64 = npt.NDArray[np.int64]
ColumnKind = Literal["number", "time", "dates", "values"]
"""A way to hand out a metadata column: as a tensor of numbers, of times, of those of chosen dates, or as a list of values."""
NUMBERS_OF_DATES = "cloud_covers"
"""The column with a number for each date. A list of times has one for each date whatever its name; a list of numbers may be of
anything."""


@dataclass(frozen=True, slots=True)
class PlanForm:
    """The form of the batches of one plan. Keeps :class:`BatchForm`; decided by the plan, so that no batch differs from the next.

    Parameters
    ----------
    plan
        Plan of the samples.
    dtypes
        torch's dtypes, by handle name.
    columns
        Kinds in which the metadata columns are handed out, by column name.
    gappy
        Handles that some sample lacks, or lacks some dates of, which have a mask.
    choice
        Dates that are read; None: all.
    draws
        Draws of the samples' budgets; None: there is no budget.
    """

    plan: Plan
    dtypes: dict[str, torch.dtype]
    columns: dict[str, ColumnKind]
    gappy: tuple[str, ...]
    choice: DateChoice | None = None
    draws: BudgetDraws | None = None

    @classmethod
    def of(
        cls,
        plan: Plan,
        choice: DateChoice | None = None,
        draws: BudgetDraws | None = None,
        *,
        skipping: bool = False,
    ) -> PlanForm:
        """Return the form of a plan's batches.

        Parameters
        ----------
        choice
            Dates that are read; None: all.
        draws
            Draws of the samples' budgets; None: there is no budget.
        skipping
            True if damage is skipped, so that any sample may lack any handle and all handles have masks.

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
            or (draws is not None and h.name in draws.budget.names)
            or plan.table[h.columns.key].null_count
            or h.columns.n_times in plan.table.column_names
        )
        # Masks come and go with the samples that are selected, and what reads them cannot tell a modality from them.
        own = {MASK} | ({TIME_INDEX} if choice else set()) | ({*BUDGET_COLUMNS} if draws else set())
        names = [h.name for h in plan.handles]
        for name in names:
            if name in own:
                raise InvalidInputError(f"the batch has {name!r} already; rename the modality with AS")
        for name in plan.metadata_columns:
            if name in own or name in names:
                raise InvalidInputError(f"the batch has {name!r} already; rename the column with AS")
        return cls(
            plan=plan,
            dtypes={h.name: _torch_dtype(h) for h in plan.handles},
            columns={name: _kind(name, plan.table[name], choice) for name in plan.metadata_columns},
            gappy=gappy,
            choice=choice,
            draws=draws,
        )

    def dates(self, positions: Int64, *, epoch: int) -> Int64 | None:
        return None if self.choice is None else self.choice.dates(positions, epoch=epoch)

    def budget(self, positions: Int64, *, epoch: int) -> DrawnBudget | None:
        return None if self.draws is None else self.draws.draw(positions, epoch=epoch)

    def allocate(self, positions: Int64, memory: BatchMemory) -> dict[str, torch.Tensor]:
        n = len(positions)
        return {
            h.name: memory.tensor(h.name, (n, self._n_times(h), *h.shape[1:]), self.dtypes[h.name])
            for h in self.plan.handles
        }

    def _n_times(self, handle: Handle) -> int:
        """Return the number of dates of a sample in the batch."""
        return self.choice.n_chosen if self.choice is not None and handle.by_date else handle.n_times

    def batch(
        self,
        tensors: Mapping[str, torch.Tensor],
        masks: Mapping[str, npt.NDArray[np.bool_]],
        positions: Int64,
        dates: Int64 | None = None,
        budget: DrawnBudget | None = None,
    ) -> Batch:
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
        if budget is not None:
            batch |= _tensors(as_columns(budget))
        if self.gappy:
            batch[MASK] = {name: _mask(masks[name]) for name in self.gappy}
        return batch


def _tensors(value: Any) -> Any:
    """Return arrays as tensors, those of mappings included."""
    if isinstance(value, Mapping):
        return {name: _tensors(one) for name, one in value.items()}
    return torch.from_numpy(np.ascontiguousarray(value))


def _mask(mask: npt.NDArray[np.bool_]) -> torch.Tensor:
    """Return a mask, (n,) if one date is delivered: the tensor has no axis of dates then either."""
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
    """Return True if each row has a list with a value for each date."""
    kind = column.type
    if not pa.types.is_list(kind) or column.null_count:
        return False
    if not (pa.types.is_timestamp(kind.value_type) or name == NUMBERS_OF_DATES):
        return False
    lengths = pc.list_value_length(column)
    return bool(pc.all(pc.equal(lengths, n_dates)).as_py()) and not pc.list_flatten(column).null_count


def _values(column: pa.ChunkedArray, kind: ColumnKind, dates: Int64 | None) -> torch.Tensor | list[Any]:
    if kind == "values":
        found: list[Any] = column.to_pylist()
        return found
    if kind == "dates" and dates is not None:
        flat = _numbers(pc.list_flatten(column))
        n_dates = len(flat) // max(len(dates), 1)
        return torch.from_numpy(np.take_along_axis(flat.reshape(-1, n_dates or 1), dates, axis=1))
    return torch.from_numpy(np.array(_numbers(column)))  # a copy: Arrow's memory is read-only


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return times as int64 microseconds since 1970 UTC, and numbers as they are."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64())
    return as_numpy(column)
