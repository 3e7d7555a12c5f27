"""Batches onto the device, one ahead of the consumer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tensorbank_loader.batch import Batch

__all__ = ["on_device"]


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches with their tensors on ``device``.

    On CUDA, copies run on a stream of their own while the consumer works on the batch before; the consumer's stream waits for
    the copy by an event, never the host. Other devices are copied to in turn, the CPU not at all.
    """
    if device.type == "cpu":
        yield from batches
        return
    if device.type != "cuda":
        for batch in batches:
            yield _moved(batch, device)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch annotates it in part
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    try:
        for batch in batches:
            with torch.cuda.stream(stream):
                moved = _moved(batch, device)
                copied = stream.record_event()
            if ahead is not None:
                yield _handed_over(*ahead, device)
            ahead = (moved, copied)
        if ahead is not None:
            yield _handed_over(*ahead, device)
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()


def _handed_over(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    for tensor in _tensors(batch):
        tensor.record_stream(current)  # the allocator must not reuse it while this stream works on it
    return batch


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
