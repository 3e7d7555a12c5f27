"""The loader of ``query.dataloader()``: no worker processes, reads ahead, onto the device."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.fetch import FetchOptions
from tensorbank.reading import Skipped
from tensorbank_loader.batch import Batch, Batches, Window, forked, n_samples_of
from tensorbank_loader.device import accelerator_of, device_of, on_device
from tensorbank_loader.epochs import Cursor, Epochs, OnIter, State, Step, World
from tensorbank_loader.order import Even, OrderOptions, Shuffle, Times, as_numbers
from tensorbank_loader.streamed import Streamed, epochs_of, form_of, one_size, plans_of, reader_of
from tensorbank_loader.telemetry import LoaderStats, Meter
from tensorbank_loader.transforms import Transform, checked, ready

__all__ = ["DataLoader"]


class DataLoader:
    """A loader that streams a plan or a mix in batches,
    as :class:`tensorbank_loader.batch.form.BatchForm` describes them.

    Each ``iter()`` runs an epoch, and the next one is shuffled anew; one that was left begins anew, unless
    :meth:`load_state_dict` said where to go on. :class:`tensorbank_loader.epochs.cursor.Cursor` has the rules,
    ``loader/README.md`` the whole table, with every launcher and trainer. Threads read ahead, at an epoch's end the
    first batches of the next; there are no worker processes. For one consumer thread. :meth:`close` ends the threads,
    as does ``with``.

    A copy (``copy.deepcopy``, ``pickle``) goes on where the loader stands, with threads of its own.

    Parameters
    ----------
    plan
        A plan to stream, or a mix of several.
    batch_size
        Samples a rank: shorthand for a global batch of so many times the number of ranks.
    global_batch_size
        Samples of all ranks together, in place of ``batch_size``. It decides the order and is kept in the state, so that a run
        that goes on with another number of ranks keeps its batches. Ranks' shares differ by one sample at most.
    seed
        Seed of the order; the same on every rank. None: a mix's own, else 0.
    shuffle
        ``"full"``: a fresh uniform permutation each epoch. ``"window"``: one that is as well mixed, and reads runs of
        neighbours at once, for small samples and for tiles, whose blocks it decodes once a run; it takes memory, see
        :mod:`tensorbank_loader.order.window_order`. True: ``"window"`` for tiles that share their blocks with others
        of the plan, else ``"full"``. None or False: the plan's order.
    replacement, n_draws
        Of a plan with a column ``weight``, its sampling weights: whether an epoch may hold a sample several times (yes if None),
        and how many samples it holds (the plan's number if None).
    drop_last
        Leave the last batch out if it is shorter.
    even
        Treatment of a global batch that ranks cannot share equally. ``"exact"``: every sample comes once, and
        some ranks get one more than others; where the last batch has fewer samples than there are ranks, some
        get a batch of none, whose mean is NaN, and a warning says so. ``"pad"``: ranks get equally many, some
        of them repeated, which ``batch["padding"]`` marks. ``"drop"``: the remainder is left out. With each,
        ranks make equal numbers of steps.
    times
        Of samples with several dates, how many to read, drawn anew each epoch, or a list of which, counted from 0; None: all. The
        dates are the same for all modalities of a sample, and ``batch["time_index"]`` tells them. Needs a plan that addresses
        each date alone, as ``query.plan(by_date=True)`` makes it; ``query.dataloader(times=...)`` does so itself.
    device
        Device where tensors end up, the CPU if None. For a GPU, buffers are page-locked and copied on a
        stream of their own.
    on_iter
        Treatment by ``iter()`` of an epoch that was left: ``"restart"`` begins it anew, ``"continue"`` goes
        on with it.
    world
        Rank and number of ranks; found out when the first epoch begins if None, see :meth:`World.detect`.
    options
        Options of reading.
    transform
        Applied to each batch, on the device and without gradients. A module is moved there.

    Raises
    ------
    InvalidInputError
        The plan selects no modality, a size is not positive, or torch lacks a dtype.
    """

    def __init__(
        self,
        plan: Streamed,
        *,
        batch_size: int | None = None,
        global_batch_size: int | None = None,
        seed: int | None = None,
        shuffle: Shuffle = True,
        replacement: bool | None = None,
        n_draws: int | None = None,
        drop_last: bool = False,
        even: Even = "exact",
        times: Times | None = None,
        on_iter: OnIter = "restart",
        device: str | torch.device | None = None,
        world: World | None = None,
        options: FetchOptions | None = None,
        transform: Transform | None = None,
    ) -> None:
        self.plan = plan
        self.device = device_of(device)
        if isinstance(world, World) and world.n_workers > 1:
            raise InvalidInputError("this loader has no workers; use StreamingDataset in torch's DataLoader")
        self.transform = checked(transform)
        order = OrderOptions(
            seed=seed,
            shuffle=shuffle,
            replacement=replacement,
            n_draws=n_draws,
            drop_last=drop_last,
            even=even,
            times=as_numbers(times),
        )
        epochs = epochs_of(plan, order, one_size(batch_size, global_batch_size))
        self._cursor = Cursor(epochs, batch_size=batch_size, world=world, on_iter=on_iter)
        self._open_reader(options)

    def _open_reader(self, options: FetchOptions | None) -> None:
        """Make what follows from the arguments and runs in this process."""
        self._reader = reader_of(self.plan, options)
        skipping = self._reader.options.on_error == "skip"
        self._form = form_of(self.plan, self._cursor.unsized, skipping=skipping)
        self._handles = sorted({h.name for p in plans_of(self.plan) for h in p.handles})
        self._running: _Running | None = None
        self._stream: Generator[tuple[Step, Batch], None, None] | None = None
        self._window: Window | None = None
        self._meter = Meter()
        self._pid: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state that a copy goes on with:
        arguments and place, without threads and what they have read."""
        return {
            "plan": self.plan,
            "device": self.device,
            "transform": self.transform,
            "_cursor": self._cursor,
            "options": self._reader.options,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        options = state.pop("options")
        self.__dict__.update(state)
        self._open_reader(options)

    @property
    def world(self) -> World:
        """Rank and number of ranks: those given, or found when the first epoch began, or what would be found now."""
        return self._cursor.world

    @property
    def epochs(self) -> Epochs:
        """The epochs, which decide the order."""
        return self._cursor.epochs

    def __len__(self) -> int:
        """Return the number of batches of this rank in an epoch."""
        return self.epochs.n_steps(self.world)

    def __iter__(self) -> Iterator[Any]:
        """Yield one epoch, which begins with the first batch that is asked for.

        One that still runs is given up: its iterator raises an InvalidInputError of kind ``given-up`` if it is asked for more.
        """
        self._give_up()
        self._running = running = _Running(self._epoch())
        return running

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _epoch(self) -> Generator[Any, None, None]:
        cursor, meter = self._cursor, self._meter
        if self._pid not in (None, os.getpid()):
            raise forked()
        before = cursor.state
        epochs, world = cursor.begin()
        state = cursor.state
        if state != before:
            self._end()
        transform = ready(self.transform, self.device)
        if self._stream is None:
            self._stream = self._open(epochs, world, state)
        for _ in range(state.position, epochs.n_steps(world)):
            asked = time.perf_counter()
            try:
                step, batch = next(self._stream)
            except BaseException:
                self._end()
                raise
            came = time.perf_counter()
            meter.waited(came - asked)
            n_samples = n_samples_of(batch)
            n_bytes = sum(batch[name].nbytes for name in self._handles if name in batch)
            item = transform(batch)
            del batch  # the consumer's alone from here: what it lets go of is free
            handed = time.perf_counter()
            meter.handed(n_samples, n_bytes, handed - came)
            cursor.state = epochs.after(step, world)
            yield item
            del item
            meter.stepped(time.perf_counter() - handed)
        cursor.state = State(state.epoch + 1)

    def _open(self, epochs: Epochs, world: World, state: State) -> Generator[tuple[Step, Batch], None, None]:
        """Yield the batches from a state on, without end:
        those of an epoch are under way when the one before ends."""
        self._pid = os.getpid()
        accelerator = accelerator_of(self.device)
        pinned = accelerator is not None and accelerator.pins
        shares = epochs.shares(state, world, endless=True)
        self._window = Window(self._reader, self._form, shares, pinned=pinned)
        batches = Batches(self._window, padded=epochs.even == "pad")
        return on_device(batches, self.device, accelerator)

    def _give_up(self) -> None:
        """Leave the epoch that runs for another; what was read ahead stays."""
        if self._running is not None:
            self._running.give_up()
            self._running = None

    def _end(self) -> None:
        """Drop what was read ahead."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()  # copies to the device must be over before their sources go
        if self._window is not None:
            self._window.close()

    def set_epoch(self, epoch: int) -> None:
        """Make the next ``iter()`` run this epoch from its start.

        After :meth:`load_state_dict` with a state of the same epoch, its place stays.
        """
        self._give_up()
        before = self._cursor.state
        self._cursor.set_epoch(epoch)
        if self._cursor.state != before:
            self._end()

    def state_dict(self) -> dict[str, Any]:
        """The next global batch, as JSON-able numbers below 1 KiB: batches still on their way are not counted as had."""
        return self._cursor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state stands, on any number of ranks, with its global batches and a mix's weights.

        Raises
        ------
        InvalidInputError
            The state is damaged, or of another plan, seed or order.
        """
        self._give_up()
        self._end()
        self._cursor.load_state_dict(state)

    def set_weights(self, weights: Sequence[float]) -> None:
        """Change the weights of a mix's sources, between two epochs. The state keeps them.

        Raises
        ------
        InvalidInputError
            An epoch has begun, the weights make no sense, or nothing is mixed.
        """
        self._give_up()
        self._end()
        self._cursor.set_weights(weights)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The newest of the items left out so far, with ``FetchOptions(on_error="skip")``, one by one."""
        return self._reader.skipped

    def stats(self) -> LoaderStats:
        """Return the counts and times so far."""
        window = self._window
        return self._meter.stats(
            self._reader.stats,
            decode_s=self._reader.decode_s,
            skipped=self._reader.n_skipped,
            n_ahead=window.n_ahead if window else 0,
            inflight_bytes=window.inflight_bytes if window else 0,
        )

    def close(self) -> None:
        """End the running epoch, if any, drop what was read ahead and stop the threads; the state stays."""
        if self._running is not None:
            self._running.close()
        self._end()


class _Running(Iterator[Any]):
    """The batches of an epoch.

    One that was given up for another says so where more is asked of it: to end would look as if all batches had been had.
    """

    def __init__(self, batches: Generator[Any, None, None]) -> None:
        self._batches = batches
        self._is_given_up = False

    def __next__(self) -> Any:
        if self._is_given_up:
            raise InvalidInputError(
                "this epoch was given up, as iter(), set_epoch(), load_state_dict() or set_weights() of its loader came in "
                "between; take the batches of the newest iter(), and make a loader for each of two loops at once",
                kind=ErrorKind.GIVEN_UP,
            )
        return next(self._batches)

    def close(self) -> None:
        """Leave the epoch: there are no more batches."""
        self._batches.close()

    def give_up(self) -> None:
        """Leave the epoch for another."""
        self._is_given_up = inspect.getgeneratorstate(self._batches) != inspect.GEN_CLOSED
        self._batches.close()
