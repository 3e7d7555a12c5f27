"""Batches onto the device, without waiting for the copy."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from tensorbank_loader.batch import Batch
from tensorbank_loader.window import Window

__all__ = ["on_device"]

N_COPIES_AHEAD = 2
"""Batches on the device: the one that is handed over and the one that is copied while the consumer works on it."""


def on_device(window: Window, device: torch.device) -> Iterator[tuple[int, Batch]]:
    """The batches of a window with their tensors on ``device``.

    On CUDA, copies run on a stream of their own; the consumer's stream waits for the copy by an event, never the host. A
    batch that has arrived already is copied while the consumer works on the one before; one that has not is never waited
    for on behalf of the next. Other devices are copied to in turn, the CPU not at all.
    """
    if device.type == "cuda":
        yield from _by_side_stream(window, device)
    else:
        for number, batch in window:
            yield number, batch if device.type == "cpu" else _moved(batch, device)


def _by_side_stream(window: Window, device: torch.device) -> Iterator[tuple[int, Batch]]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch annotates it in part
    copies: deque[tuple[int, Batch, torch.cuda.Event]] = deque()

    def copy(number: int, batch: Batch) -> None:
        with torch.cuda.stream(stream):
            copies.append((number, _moved(batch, device), stream.record_event()))

    while True:
        if not copies:
            found = next(window, None)
            if found is None:
                return
            copy(*found)
        while len(copies) < N_COPIES_AHEAD and window.ready:
            copy(*next(window))
        number, moved, copied = copies.popleft()
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for tensor in _tensors(moved):
            tensor.record_stream(current)  # the allocator must not reuse it while this stream works on it
        yield number, moved


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: _moved(v, device) for name, v in value.items()}
    return value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from _tensors(v)
