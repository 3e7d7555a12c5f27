"""The loader of ``query.dataloader()``: no worker processes, reads ahead, onto the device."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch

from tensorbank.arguments import flag, whole_number
from tensorbank.errors import InvalidInputError
from tensorbank.fetch import FetchOptions
from tensorbank.reading import Skipped
from tensorbank_loader.budgets import TokenBudget
from tensorbank_loader.device import device_of
from tensorbank_loader.epochs import Cursor, Epochs, OnIter, State, World
from tensorbank_loader.order import Even, OrderOptions, Shuffle, Times, as_numbers
from tensorbank_loader.pipeline import Pipeline
from tensorbank_loader.plan_lease import PlanLease
from tensorbank_loader.running_epoch import RunningEpoch
from tensorbank_loader.streamed import Streamed, epochs_of, one_size
from tensorbank_loader.telemetry import LoaderStats, Meter
from tensorbank_loader.transforms import Transform, checked, ready

__all__ = ["DataLoader"]


class DataLoader:
    """A loader of the samples of a plan or a mix, in batches as :class:`tensorbank_loader.batch.BatchForm` describes them.

    Each ``iter()`` runs an epoch, and the next one is shuffled anew. An epoch that was left begins anew, unless
    :meth:`load_state_dict` said where to go on. :class:`tensorbank_loader.epochs.Cursor` has the rules, and ``loader/README.md``
    the whole table, with every launcher and trainer.

    Threads read ahead, at the end of an epoch the first batches of the next one; there are no worker processes. A loader is
    for one consumer thread. :meth:`close` ends its threads, and so does ``with``. A copy (``copy.deepcopy``, ``pickle``) goes on
    where the loader stands, with threads of its own.

    Parameters
    ----------
    plan
        A plan to stream, or a mix of several.
    batch_size
        Samples of a rank: shorthand for a global batch of so many times the number of ranks.
    global_batch_size
        Samples of all ranks together, in place of ``batch_size``. It decides the order and is kept in the state, so that a run
        that goes on with another number of ranks keeps its batches. Ranks' shares differ by one sample at most.
    seed
        Seed of the order, the same on every rank. None: a mix's own, else 0.
    shuffle
        Kind of shuffling. ``"full"``: a fresh uniform permutation each epoch. ``"window"``: one that is as well mixed and reads
        runs of neighbours at once, for small samples and for tiles, whose blocks it decodes once a run; it takes memory, see
        :mod:`tensorbank_loader.order.window_order`. True: ``"window"`` for tiles that share their blocks with others
        of the plan, else ``"full"``. None or False: the plan's order.
    replacement
        True if an epoch may hold a sample several times. Only for plans with a column ``weight``, their sampling weights.
        None: True for those.
    n_draws
        Samples in an epoch of such a plan. None: as many as the plan has, or without replacement as many as have a weight
        above 0.
    drop_last
        True to leave out the last global batch if it is shorter.
    even
        Treatment of a global batch that ranks cannot share equally. ``"exact"``: every sample comes once, and
        some ranks get one more than others. If the last batch has fewer samples than there are ranks, some
        get a batch of none, whose mean is NaN, and a warning says so. ``"pad"``: ranks get equally many, some
        of them repeated, which ``batch["padding"]`` marks. ``"drop"``: the remainder is left out. With each,
        ranks make equal numbers of steps.
    times
        Dates that are read of samples with several: a number, drawn anew each epoch, or a list, counted from 0. None: all. They
        are the same for all modalities of a sample, and ``batch["time_index"]`` tells them. Needs a plan that addresses
        each date alone, as ``query.plan(by_date=True)`` makes it; ``query.dataloader(times=...)`` does so itself.
    budget
        Budget of tokens of each sample, drawn before it is read: modalities that a sample has none of are not requested. None:
        all modalities are read.
    on_iter
        Treatment by ``iter()`` of an epoch that was left: ``"restart"`` begins it anew, ``"continue"`` goes
        on with it.
    device
        Device where tensors end up; None: the CPU. For a GPU, buffers are page-locked and copied on a
        stream of their own.
    world
        Rank and number of ranks. None: :meth:`World.detect` finds them when the first epoch begins.
    options
        Options of reading.
    transform
        Function of a batch, applied on the device and without gradients. A module is moved there.
    transform_ahead
        Batches that are transformed ahead of the consumer, in a thread beside it; 0: each when it is asked for. For transforms
        that take long on the processor and draw by key, as :class:`tensorbank_loader.terramind.ModDict` does: one that draws from
        torch's own generator would draw in turn with the model's dropout as it happens. On a GPU transforms are the device's
        work in any case, and this changes nothing.
    lease
        True to leave a note in the bank, from the first batch to :meth:`close`, so that maintenance keeps what is read; False for
        credentials that cannot write. None: True unless the environment has ``TENSORBANK_LEASES=off``. What goes wrong with the
        note stops nothing: it is logged once.

    Raises
    ------
    InvalidInputError
        The plan selects no modality, a size is not positive, options do not go together, or torch lacks a dtype.
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
        budget: TokenBudget | None = None,
        on_iter: OnIter = "restart",
        device: str | torch.device | None = None,
        world: World | None = None,
        options: FetchOptions | None = None,
        transform: Transform | None = None,
        transform_ahead: int = 0,
        lease: bool | None = None,
    ) -> None:
        self.plan = plan
        self.transform_ahead = whole_number("transform_ahead", transform_ahead, at_least=0)
        self.lease = None if lease is None else flag("lease", lease)
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
        epochs = epochs_of(plan, order, one_size(batch_size, global_batch_size), budget)
        self._cursor = Cursor(epochs, batch_size=batch_size, world=world, on_iter=on_iter)
        self._pipeline = Pipeline(plan, epochs, self.device, options, self.transform_ahead)
        self._lease = PlanLease(plan, self.lease)
        self._running: RunningEpoch | None = None
        self._meter = Meter()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of: arguments and position, without threads and what they have read."""
        return {
            "plan": self.plan,
            "device": self.device,
            "transform": self.transform,
            "transform_ahead": self.transform_ahead,
            "lease": self.lease,
            "_cursor": self._cursor,
            "options": self._pipeline.options,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        options = state.pop("options")
        self.__dict__.update(state)
        self._pipeline = Pipeline(self.plan, self._cursor.unsized, self.device, options, self.transform_ahead)
        self._lease = PlanLease(self.plan, self.lease)
        self._running = None
        self._meter = Meter()

    @property
    def world(self) -> World:
        """The rank and number of ranks: those given, those found when the first epoch began, or those that would be found now."""
        return self._cursor.world

    @property
    def epochs(self) -> Epochs:
        """The epochs, which decide the order."""
        return self._cursor.epochs

    def __len__(self) -> int:
        """Return the number of batches of this rank in an epoch."""
        return self.epochs.n_steps(self.world)

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator of the batches of one epoch, which begins when the first is asked for.

        An epoch that still runs is given up: its iterator raises an InvalidInputError of kind ``given-up`` if it is asked for
        more.
        """
        self._give_up()
        self._running = running = RunningEpoch(self._epoch())
        return running

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _epoch(self) -> Generator[Any, None, None]:
        cursor, meter, pipeline = self._cursor, self._meter, self._pipeline
        pipeline.check_process()
        before = cursor.state
        epochs, world = cursor.begin()
        state = cursor.state
        if state != before:
            pipeline.close()
        pipeline.open(epochs, world, state, ready(self.transform, self.device))
        for _ in range(state.position, epochs.n_steps(world)):
            asked = time.perf_counter()
            batch = next(pipeline)
            came = time.perf_counter()
            self._lease.take()  # with a batch in hand: nothing waits for it
            meter.waited(came - asked - batch.transform_s)
            meter.handed(batch.n_samples, batch.n_bytes, batch.transform_s)
            cursor.state = epochs.after(batch.step, world)
            item = batch.item
            del batch  # the consumer's alone from here: what it lets go of is free
            yield item
            del item
            meter.stepped(time.perf_counter() - came)
        cursor.state = State(state.epoch + 1)

    def _give_up(self) -> None:
        """Leave the running epoch for another one; what was read ahead stays."""
        if self._running is not None:
            self._running.give_up()
            self._running = None

    def set_epoch(self, epoch: int) -> None:
        """Make the next ``iter()`` run this epoch from its start.

        After :meth:`load_state_dict` with a state of the same epoch, the position of the state stays.
        """
        self._give_up()
        before = self._cursor.state
        self._cursor.set_epoch(epoch)
        if self._cursor.state != before:
            self._pipeline.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the run as JSON-able values, below 1 KiB but for a long statement.

        Batches that are on their way do not count as had.
        """
        return self._cursor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state stands, on any number of ranks. Its global batches are kept, and the weights of a mix.

        Raises
        ------
        InvalidInputError
            The state is damaged, or of another plan, seed or order.
        """
        self._give_up()
        self._pipeline.close()
        self._cursor.load_state_dict(state)

    def set_weights(self, weights: Sequence[float]) -> None:
        """Change the weights of a mix's sources, between two epochs. The state keeps them.

        Raises
        ------
        InvalidInputError
            An epoch has begun, the weights make no sense, or nothing is mixed.
        """
        self._give_up()
        self._pipeline.close()
        self._cursor.set_weights(weights)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The newest of the modalities of samples that were left out, with ``FetchOptions(on_error="skip")``."""
        return self._pipeline.skipped

    def stats(self) -> LoaderStats:
        """Return the counts and times so far. May be called by any thread."""
        return self._pipeline.stats(self._meter)

    def close(self) -> None:
        """End the running epoch, if any, drop what was read ahead and stop the threads. The state stays."""
        if self._running is not None:
            self._running.close()
        self._pipeline.close()
        self._lease.release()
