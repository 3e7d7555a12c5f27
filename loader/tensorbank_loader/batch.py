"""Batches as torch tensors: allocated once, decoded in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from tensorbank.errors import InvalidInputError
from tensorbank.plan import Handle, Plan
from tensorbank_loader.memory import BatchMemory

__all__ = ["Batch", "BatchForm", "n_samples_of", "samples_of"]

Batch = dict[str, Any]
"""Tensors by handle name, metadata by column name, and ``mask`` where a handle is missing from some sample."""

MASK = "mask"
ColumnKind = Literal["number", "time", "values"]


@dataclass(frozen=True, slots=True)
class BatchForm:
    """What every batch of a plan looks like; decided by the plan, so that no batch differs from the next.

    Tensors
        (n, band, y, x) in the stored dtype, or (n, time, band, y, x) where the modality has several dates.
    Metadata
        Numbers and booleans are tensors; a null is NaN in a float column, and makes any other column a list. Times without
        nulls are int64 microseconds since 1970 UTC. Everything else is a list of Python values.
    ``mask``
        {handle: (n,) bool} for the handles that some sample of the plan lacks, or may lack where damage is skipped: which
        samples have it. The others hold the fill value, NaN for floats and else 0.

    Parameters
    ----------
    dtypes
        torch's dtype, by handle name.
    columns
        How to hand out the metadata columns.
    gappy
        Handles that some sample lacks.
    """

    plan: Plan
    dtypes: dict[str, torch.dtype]
    columns: dict[str, ColumnKind]
    gappy: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan, *, skipping: bool = False) -> BatchForm:
        """The form of a plan's batches.

        Parameters
        ----------
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
        gappy = tuple(h.name for h in plan.handles if skipping or plan.table[f"{h.name}.key"].null_count)
        taken = {h.name for h in plan.handles} | ({MASK} if gappy else set())
        for name in plan.metadata_columns:
            if name in taken:
                raise InvalidInputError(f"the batch has {name!r} already; rename the column with AS")
        return cls(
            plan=plan,
            dtypes={h.name: _torch_dtype(h) for h in plan.handles},
            columns={name: _kind(plan.table[name]) for name in plan.metadata_columns},
            gappy=gappy,
        )

    def at(self, positions: npt.NDArray[np.int64]) -> BatchForm:  # noqa: ARG002
        """The form of a batch of these positions: the one form of all."""
        return self

    def allocate(self, n_samples: int, memory: BatchMemory) -> dict[str, torch.Tensor]:
        """Uninitialised tensors (n, time, band, y, x), by handle name."""
        return {
            h.name: memory.tensor(h.name, (n_samples, *h.shape), self.dtypes[h.name])
            for h in self.plan.handles
        }

    def batch(
        self,
        tensors: Mapping[str, torch.Tensor],
        masks: Mapping[str, npt.NDArray[np.bool_]],
        positions: npt.NDArray[np.int64],
    ) -> Batch:
        """What the consumer gets of filled tensors; no pixel is copied."""
        batch: Batch = {
            h.name: tensors[h.name].squeeze(1) if h.n_times == 1 else tensors[h.name]
            for h in self.plan.handles
        }
        rows = self.plan.table.select(list(self.columns)).take(pa.array(positions))
        for name, kind in self.columns.items():
            batch[name] = _values(rows[name], kind)
        if self.gappy:
            batch[MASK] = {name: torch.from_numpy(masks[name]) for name in self.gappy}
        return batch


def samples_of(batch: Batch, start: int = 0) -> list[Batch]:
    """Single samples of a batch from place ``start`` on; their tensors are views that share the batch's memory."""
    return [
        {
            name: {k: v[i] for k, v in value.items()} if isinstance(value, dict) else value[i]
            for name, value in batch.items()
        }
        for i in range(start, n_samples_of(batch))
    ]


def n_samples_of(batch: Batch) -> int:
    """Samples in a batch."""
    return len(next(iter(batch.values())))


def _torch_dtype(handle: Handle) -> torch.dtype:
    try:
        return torch.from_numpy(np.empty(0, handle.modality.dtype)).dtype
    except TypeError as error:
        raise InvalidInputError(
            f"{handle.name} is {handle.modality.dtype}, which torch does not have"
        ) from error


def _kind(column: pa.ChunkedArray) -> ColumnKind:
    kind = column.type
    if pa.types.is_floating(kind):
        return "number"
    if column.null_count:
        return "values"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "number"
    return "time" if pa.types.is_timestamp(kind) else "values"


def _values(column: pa.ChunkedArray, kind: ColumnKind) -> torch.Tensor | list[Any]:
    if kind == "values":
        found: list[Any] = column.to_pylist()
        return found
    if kind == "time":
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64())
    return torch.from_numpy(np.array(column.to_numpy()))  # a copy: Arrow's memory is read-only
