"""Batches of single steps, cut out of what was read together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from tensorbank_loader.batch.form import Batch
from tensorbank_loader.batch.read_window import Window
from tensorbank_loader.epochs import Step

__all__ = ["PADDING", "Batches"]

PADDING = "padding"
"""The name of a batch's padding flags, where ranks are made equal by padding:
(n,) bool, True for samples that only fill up."""


class Batches:
    """An iterator of ``(step, batch)`` over a window whose reads are of one step or several.

    Batches of one read are views into one memory; no pixel is copied.

    Parameters
    ----------
    window
        Yields ``(steps, batch)``.
    padded
        True if batches have flags of their padding.
    """

    def __init__(self, window: Window, *, padded: bool) -> None:
        self._window = window
        self._padded = padded
        self._cut: deque[tuple[Step, Batch]] = deque()

    def __iter__(self) -> Iterator[tuple[Step, Batch]]:
        return self

    def __next__(self) -> tuple[Step, Batch]:
        if not self._cut:
            steps, batch = next(self._window)
            start = 0
            for step in steps:
                end = start + step.n_samples
                self._cut.append((step, batch if len(steps) == 1 else _slice(batch, start, end)))
                start = end
        step, batch = self._cut.popleft()
        if self._padded:
            batch[PADDING] = torch.arange(step.n_samples) >= step.n_samples - step.n_padding
        return step, batch

    @property
    def ready(self) -> bool:
        """True if the next batch is there and sound."""
        return bool(self._cut) or self._window.ready

    def close(self) -> None:
        """End the iteration. May be called twice."""
        self._cut.clear()
        self._window.close()


def _slice(value: Any, start: int, end: int) -> Any:
    """Return the samples ``[start, end)`` of a batch, of a mask or of one column."""
    if isinstance(value, dict):
        return {name: _slice(v, start, end) for name, v in value.items()}
    return value[start:end]
