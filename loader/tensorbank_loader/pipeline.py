"""The way of batches from the store to the consumer: a reader, the window of reads ahead, copies to the device, the transform."""

from __future__ import annotations

import os

import torch

from tensorbank.fetch import FetchOptions
from tensorbank.reading import Skipped
from tensorbank_loader.batch import Batches, Window, forked
from tensorbank_loader.device import accelerator_of, on_device
from tensorbank_loader.epochs import Epochs, State, World
from tensorbank_loader.prepared import Prepared, PreparedAhead, Transformed
from tensorbank_loader.streamed import Streamed, form_of, plans_of, reader_of
from tensorbank_loader.telemetry import LoaderStats, Meter
from tensorbank_loader.transforms import Transform

__all__ = ["Pipeline"]


class Pipeline:
    """A pipeline of batches for one consumer thread of one process.

    It goes on across epochs: the first batches of an epoch are under way when the one before ends. The reader and its counts
    stay when what was read ahead is dropped.

    Parameters
    ----------
    streamed
        Plan or mix.
    epochs
        Epochs, of batches of whatever size: they decide the form of batches, not which.
    device
        Device where tensors end up.
    options
        Options of reading; None: the defaults.
    n_ahead
        Batches that a thread transforms ahead of the consumer; 0: none, and there is no such thread. A GPU does the work of
        transforms by itself, in the order in which it is asked, so that no thread is needed there either.

    Raises
    ------
    InvalidInputError
        The plan selects no modality, torch lacks a dtype, or two things would have one name in the batch.
    """

    def __init__(
        self,
        streamed: Streamed,
        epochs: Epochs,
        device: torch.device,
        options: FetchOptions | None,
        n_ahead: int = 0,
    ) -> None:
        self._reader = reader_of(streamed, options)
        self._form = form_of(streamed, epochs, skipping=self._reader.options.on_error == "skip")
        self._handles = frozenset({h.name for plan in plans_of(streamed) for h in plan.handles})
        self._device = device
        self._n_ahead = n_ahead
        self._batches: Transformed | PreparedAhead | None = None
        self._window: Window | None = None
        self._pid: int | None = None

    @property
    def options(self) -> FetchOptions:
        """The options of reading."""
        return self._reader.options

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The newest of the items left out so far."""
        return self._reader.skipped

    def check_process(self) -> None:
        """Refuse to go on in a process that was forked off the one that reads.

        Raises
        ------
        InvalidInputError
            This is such a process; the kind is ``forked``.
        """
        if self._pid not in (None, os.getpid()):
            raise forked()

    def open(self, epochs: Epochs, world: World, state: State, transform: Transform) -> None:
        """Begin with the batches of a rank from a state on, unless the pipeline runs already."""
        if self._batches is not None:
            return
        self._pid = os.getpid()
        accelerator = accelerator_of(self._device)
        pinned = accelerator is not None and accelerator.pins
        shares = epochs.shares(state, world, endless=True)
        self._window = Window(self._reader, self._form, shares, pinned=pinned)
        batches = Batches(self._window, padded=epochs.even == "pad")
        made = Transformed(on_device(batches, self._device, accelerator), transform, self._handles)
        ahead = self._n_ahead and accelerator is None
        self._batches = PreparedAhead(made, self._n_ahead, self._window.cancel) if ahead else made

    def __next__(self) -> Prepared:
        """Return the next batch. An error ends the pipeline, which can be opened again."""
        assert self._batches is not None, "the pipeline is opened first"
        try:
            return next(self._batches)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop what was read ahead and stop the threads. May be called twice."""
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.close()  # copies to the device must be over before their sources go
        if self._window is not None:
            self._window.close()

    def stats(self, meter: Meter) -> LoaderStats:
        """Return the counts and times so far, with those that the consumer's side has metered."""
        return meter.stats(
            self._reader.stats,
            decode_s=self._reader.decode_s,
            skipped=self._reader.n_skipped,
            n_ahead=(self._window.n_ahead if self._window else 0)
            + (self._batches.n_ahead if isinstance(self._batches, PreparedAhead) else 0),
            inflight_bytes=self._window.inflight_bytes if self._window else 0,
        )
