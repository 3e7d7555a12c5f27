"""Copies of batches to the device, beside the consumer's work.

Copies run on a stream of their own, and the consumer's stream waits for a copy by an event. The host waits only if two copies, or
two of the consumer's steps, are under way already. :class:`Accelerator` is all that copies need of torch, so that their order can
be tested without a GPU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_loader.batch import Batch, Batches
from tensorbank_loader.epochs import Step

__all__ = ["Accelerator", "Cuda", "EventLike", "StreamLike", "accelerator_of", "device_of", "on_device"]

N_COPIES_AHEAD = 2
"""The most batches on the device: the one that is handed over, and the one that is copied while the consumer works on it."""
N_STEPS_AHEAD = 2
"""The most steps that the host has asked for and the device has not done. With fewer the device would wait for the host, and with
any number it would fill up with batches."""


class EventLike(Protocol):
    """A point in a stream's work, as ``torch.cuda.Event``."""

    def query(self) -> bool:
        """Return True if the work before the event is done."""

    def synchronize(self) -> None:
        """Return when the work before the event is done."""


class StreamLike(Protocol):
    """A queue of work that runs in order, as ``torch.cuda.Stream``."""

    def record_event(self) -> EventLike:
        """Return an event at the end of the work so far."""

    def wait_event(self, event: Any) -> None:
        """Make later work wait for an event; returns at once."""


class Accelerator(Protocol):
    """The interface to a device that copies need."""

    @property
    def pins(self) -> bool:
        """True if host memory must be page-locked for a copy to run by itself."""

    def new_stream(self) -> StreamLike:
        """Return a new stream beside the consumer's."""

    def current_stream(self) -> StreamLike:
        """Return the consumer's stream."""

    def using(self, stream: Any) -> AbstractContextManager[object]:
        """Return a context in which copies are work of a stream."""

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor on the device that will hold these values.

        The copy is not over when this returns, so that ``tensor`` must stay as it is.
        """

    def keep(self, tensor: torch.Tensor, stream: Any) -> None:
        """Forbid reuse of a tensor's memory on the device before the work of a stream so far is done."""


class Cuda:
    """The streams of NVIDIA's GPUs, and of AMD's, for which torch has the same names."""

    pins = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def new_stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # torch annotates it in part

    def current_stream(self) -> torch.cuda.Stream:
        return torch.cuda.current_stream(self.device)

    def using(self, stream: torch.cuda.Stream) -> AbstractContextManager[object]:
        return torch.cuda.stream(stream)

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        # A copy out of pageable memory would hold up the host: columns of metadata are pinned on the way.
        pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
        return pinned.to(self.device, non_blocking=True)

    def keep(self, tensor: torch.Tensor, stream: torch.cuda.Stream) -> None:
        tensor.record_stream(stream)


def device_of(name: Any) -> torch.device:
    """Return a device of this machine, the CPU for None.

    Raises
    ------
    InvalidInputError
        torch knows no such device, or this machine has none; the kind is ``no-device``.
    """
    try:
        device = torch.device("cpu" if name is None else name)
        if device.type not in ("cpu", "meta"):
            torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidInputError(
            f"device is {name!r}, which cannot be used here: {reason}; leave it out for the CPU",
            kind=ErrorKind.NO_DEVICE,
        ) from error
    return device


def accelerator_of(device: torch.device) -> Accelerator | None:
    """Return the means to copy to a device beside the consumer's work; None if that is not possible, as for the CPU."""
    return Cuda(device) if device.type == "cuda" else None


def on_device(
    batches: Batches, device: torch.device, accelerator: Accelerator | None
) -> Generator[tuple[Step, Batch], None, None]:
    """Yield batches with their tensors on a device, in the order of ``batches``.

    With an accelerator, the next batch is copied while the consumer works on the one before, if it has arrived; if not, the
    one before is handed over without waiting for it. A batch on the host is let go when its copy is over, so that its memory is
    used again. Without an accelerator batches are copied in turn, and for the CPU not at all.
    """
    if accelerator is not None:
        yield from _by_side_stream(batches, accelerator)
        return
    for step, batch in batches:
        yield step, batch if device.type == "cpu" else _each(batch, lambda t: t.to(device))


def _by_side_stream(batches: Batches, accelerator: Accelerator) -> Iterator[tuple[Step, Batch]]:
    """Yield batches that are copied on a stream of their own.

    ``copies`` are batches on the device that were not handed over, each with the event of its copy. ``sources`` are the batches
    on the host whose copies may still run. ``steps`` are events at the ends of the consumer's last steps.
    """
    stream = accelerator.new_stream()
    copies: deque[tuple[Step, Batch, EventLike]] = deque()
    sources: deque[tuple[EventLike, Batch]] = deque()
    steps: deque[EventLike] = deque()

    def has_room() -> bool:
        while sources and sources[0][0].query():
            sources.popleft()
        return len(sources) < N_COPIES_AHEAD

    def copy(step: Step, batch: Batch) -> None:
        with accelerator.using(stream):
            copied = _each(batch, accelerator.copy)
            over = stream.record_event()
        copies.append((step, copied, over))
        sources.append((over, batch))

    def hand_over() -> tuple[Step, Batch]:
        step, batch, over = copies.popleft()
        current = accelerator.current_stream()
        current.wait_event(over)
        for tensor in _tensors(batch):
            accelerator.keep(tensor, current)
        return step, batch

    try:
        while True:
            if not copies:
                if not has_room():
                    sources.popleft()[0].synchronize()
                found = next(batches, None)
                if found is None:
                    return
                copy(*found)
                del found  # its memory is wanted again
            while len(copies) < N_COPIES_AHEAD and has_room() and batches.ready:
                copy(*next(batches))
            yield hand_over()
            steps.append(accelerator.current_stream().record_event())
            if len(steps) > N_STEPS_AHEAD:
                steps.popleft().synchronize()
    finally:
        for over, _ in sources:  # the window's memory must outlive the copies out of it
            over.synchronize()


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a batch with each tensor changed, those of dictionaries in it included."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _each(v, change) for name, v in value.items()}
    return value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of a batch, those of dictionaries in it included."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from _tensors(v)
