"""Batches as torch tensors: allocated once, decoded in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from tensorbank.errors import InvalidInputError
from tensorbank.plan import Handle, Plan

__all__ = ["allocate", "as_batch", "check_dtypes", "metadata_of"]

Batch = dict[str, Any]


def check_dtypes(plan: Plan) -> None:
    """InvalidInputError for a modality whose dtype torch does not have."""
    for handle in plan.handles:
        torch_dtype(handle)


def torch_dtype(handle: Handle) -> torch.dtype:
    """Torch's dtype of a handle."""
    try:
        return torch.from_numpy(np.empty(0, handle.modality.dtype)).dtype
    except TypeError as error:
        raise InvalidInputError(
            f"{handle.name} is {handle.modality.dtype}, which torch does not have"
        ) from error


def allocate(plan: Plan, n_samples: int, *, pinned: bool) -> dict[str, torch.Tensor]:
    """Uninitialised tensors (n, time, band, y, x) in the stored dtype, by handle name."""
    return {
        h.name: torch.empty((n_samples, *h.shape), dtype=torch_dtype(h), pin_memory=pinned)
        for h in plan.handles
    }


def as_batch(
    plan: Plan,
    tensors: Mapping[str, torch.Tensor],
    masks: Mapping[str, npt.NDArray[np.bool_]],
    positions: npt.NDArray[np.int64],
) -> Batch:
    """What the consumer gets.

    A handle's tensor is (n, band, y, x), or (n, time, band, y, x) where the modality has several dates. ``mask`` says, for
    handles that some sample of the plan lacks, which samples of the batch have it; the others hold the fill value.
    """
    batch: Batch = {
        h.name: tensors[h.name].squeeze(1) if h.modality.n_times == 1 else tensors[h.name]
        for h in plan.handles
    }
    batch |= metadata_of(plan, positions)
    gappy = [h.name for h in plan.handles if (plan.addresses[h.name].key < 0).any()]
    if gappy:
        batch["mask"] = {name: torch.from_numpy(masks[name].copy()) for name in gappy}
    return batch


def metadata_of(plan: Plan, positions: npt.NDArray[np.int64]) -> Batch:
    """Metadata columns: numbers, booleans and times (int64 microseconds since 1970) without nulls as tensors, others as lists."""
    rows = plan.table.select(list(plan.metadata_columns)).take(pa.array(positions))
    found: Batch = {}
    for name in rows.column_names:
        column = rows[name]
        kind = column.type
        if column.null_count == 0 and pa.types.is_timestamp(kind):
            column = column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64())
            kind = column.type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        if number and column.null_count == 0:
            found[name] = torch.from_numpy(column.to_numpy().copy())
        else:
            found[name] = column.to_pylist()
    return found
