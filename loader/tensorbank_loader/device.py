"""Batches onto the device, without waiting for the copy.

Copies run on a stream of their own, so that they overlap with the consumer's work; the consumer's stream waits for a copy by an
event. The host waits only where two copies, or two of the consumer's steps, are under way already. What copies need of torch
stands behind :class:`Accelerator`, so that their order can be tested where there is no GPU.
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
"""The number of batches on the device: the one that is handed over and the one that
is copied while the consumer works on it."""
N_STEPS_AHEAD = 2
"""The number of steps that the host may have asked for and the device not yet done:
the device never runs dry, nor full of batches."""


class EventLike(Protocol):
    """A point in a stream's work, as ``torch.cuda.Event``."""

    def query(self) -> bool:
        """Tell whether the work before the event is done."""

    def synchronize(self) -> None:
        """Return when the work before it is done."""


class StreamLike(Protocol):
    """A queue of work that runs in order, as ``torch.cuda.Stream``."""

    def record_event(self) -> EventLike:
        """The end of the work so far."""

    def wait_event(self, event: Any) -> None:
        """Make later work wait for an event; returns at once."""


class Accelerator(Protocol):
    """The interface to a device that copies need."""

    @property
    def pins(self) -> bool:
        """True if host memory must be page-locked for a copy to run by itself."""

    def new_stream(self) -> StreamLike:
        """A stream beside the consumer's."""

    def current_stream(self) -> StreamLike:
        """The consumer's stream."""

    def using(self, stream: Any) -> AbstractContextManager[object]:
        """Make copies inside the context work of a stream."""

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor on the device that will hold these values; returns before it does, so ``tensor`` must stay as it is."""

    def keep(self, tensor: torch.Tensor, stream: Any) -> None:
        """Forbid reuse of a tensor's device memory before the stream's work so far is done."""


class Cuda:
    """The streams of NVIDIA, and of AMD, which torch gives the same names."""

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
    """A device that this machine has, the CPU for None.

    Raises
    ------
    InvalidInputError
        Torch knows no such device, or there is none here.
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
    """Return the means to copy to a device beside the consumer's work;
    None where that is not possible, as on the CPU."""
    return Cuda(device) if device.type == "cuda" else None


def on_device(
    batches: Batches, device: torch.device, accelerator: Accelerator | None
) -> Generator[tuple[Step, Batch], None, None]:
    """The batches of a window with their tensors on ``device``.

    With an accelerator, a batch that has arrived already is copied while the consumer works on the one before; one that has
    not is never waited for on behalf of the next. A batch on the host is let go, for its memory to be used again, when
    its copy is over. Without one, batches are copied in turn, and on the CPU not at all.
    """
    if accelerator is not None:
        yield from _by_side_stream(batches, accelerator)
        return
    for step, batch in batches:
        yield step, batch if device.type == "cpu" else _each(batch, lambda t: t.to(device))


def _by_side_stream(batches: Batches, accelerator: Accelerator) -> Iterator[tuple[Step, Batch]]:
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
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _each(v, change) for name, v in value.items()}
    return value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from _tensors(v)
