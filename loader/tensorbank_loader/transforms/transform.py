"""The type of transforms, and the check and the preparation of one that was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tensorbank.errors import InvalidInputError
from tensorbank_loader.batch import Batch

__all__ = ["Transform", "checked", "ready"]

Transform = Callable[[Batch], Any]
"""A callable, such as an ``nn.Module``, from a batch to what the consumer gets."""


def checked(transform: Transform | None) -> Transform | None:
    """Return a transform as it was given, if it is one.

    Raises
    ------
    InvalidInputError
        It cannot be called.
    """
    if transform is not None and not callable(transform):
        raise InvalidInputError(f"transform is {transform!r}; give a function of a batch, or an nn.Module")
    return transform


def ready(transform: Transform | None, device: torch.device) -> Transform:
    """Return a transform to call on batches that lie on a device.

    A module is moved there, and stays in training or evaluation mode as it is. No gradients are recorded: parameters that are
    trained belong into the model.
    """
    if transform is None:
        return lambda batch: batch
    if isinstance(transform, torch.nn.Module):
        transform.to(device)
    return torch.no_grad()(transform)
