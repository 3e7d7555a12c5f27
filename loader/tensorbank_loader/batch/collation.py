"""Single samples put together to batches, as :class:`tensorbank_loader.batch.BatchForm` describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from tensorbank.errors import InvalidInputError

__all__ = ["Sample", "collate"]


class Sample(dict[str, Any]):
    """A sample as a dictionary, of a type of its own, so that torch's collate function uses ours for it."""


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put single samples together to a batch.

    Tensors are stacked. Everything else becomes a list, such as texts, dates, decimals and columns with nulls.

    Raises
    ------
    InvalidInputError
        Samples have different columns, or tensors of one column different shapes; the message names the column.
    """
    return _together(samples, "")


def _together(samples: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, Any]:
    first = samples[0]
    for sample in samples:
        for name in first.keys() ^ sample.keys():
            raise InvalidInputError(
                f"column {prefix + name!r} is in some samples of a batch and not in others; select the same of all sources, "
                "or hand out batches with global_batch_size"
            )
    return {name: _column(prefix + name, [sample[name] for sample in samples]) for name in first}


def _column(name: str, values: list[Any]) -> Any:
    if _is_mask(values[0]):
        return _together(values, f"{name}.")
    if not isinstance(values[0], torch.Tensor):
        return values
    try:
        return default_collate(values)
    except (RuntimeError, TypeError) as error:
        kinds = sorted(
            {f"{v.dtype} {tuple(v.shape)}" if isinstance(v, torch.Tensor) else str(type(v)) for v in values}
        )
        raise InvalidInputError(
            f"column {name!r} cannot be put together, its values are {', '.join(kinds)}; "
            "give the DataLoader a collate_fn of your own, or StreamingDataset a transform that makes them alike"
        ) from error


def _is_mask(value: Any) -> bool:
    """Return True if a value is several tensors by name. The fields of a struct are no tensors."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(v, torch.Tensor) for v in value.values())
    )


def _by_default(samples: Sequence[Mapping[str, Any]], *, collate_fn_map: Any = None) -> dict[str, Any]:  # noqa: ARG001
    return collate(samples)


# An entry in torch's table of collate functions by type, which is meant for that. It changes nothing for other types.
default_collate_fn_map[Sample] = _by_default
