"""A plan as a ``torch.utils.data.IterableDataset``, for people who bring their own loader."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.context import get_spawning_popen
from typing import Any

import torch.utils.data

from tensorbank.arguments import instance
from tensorbank.errors import InvalidInputError
from tensorbank.fetch import FetchOptions
from tensorbank_loader.batch import Batch, Batches, Window, forked, samples_of
from tensorbank_loader.callers import calling_loader, calling_sharder
from tensorbank_loader.epochs import Cursor, Epochs, Iteration, OnIter, State, Step, WorkerEpochs, World
from tensorbank_loader.order import Even, OrderOptions, Shuffle, Times, as_numbers
from tensorbank_loader.streamed import Streamed, epochs_of, form_of, one_size, reader_of
from tensorbank_loader.transforms import Transform, checked

__all__ = ["StreamingDataset"]

SAMPLES_PER_READ = 32
"""The number of samples of a rank that are read together where single samples are handed out."""


N_AHEAD = 2
"""The number of batches that torch's DataLoader asks each worker for before any is consumed,
if not told otherwise."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The facts that a process sends to workers it starts:
    its world, who shares out what they yield, and what is asked for ahead."""

    world: World | None = None
    sharder: str | None = None
    n_ahead: int = N_AHEAD


class StreamingDataset(torch.utils.data.IterableDataset[Any]):
    """A dataset that streams the samples of a plan or a mix;
    of a plan, each exactly once an epoch, in an order that hardware cannot change.

    With ``global_batch_size`` it yields this rank's share of each global batch, for ``DataLoader(dataset, batch_size=None)``;
    without, single samples, for a DataLoader that collates.

    Works in worker processes started by ``spawn`` or ``forkserver``; after a fork, which is torch's default on Linux before
    Python 3.14, it refuses to. With ``global_batch_size`` torch's DataLoader hands batches out in one order, whatever the
    number of workers.

    Each ``iter()`` runs an epoch, and the next one is shuffled anew. :class:`tensorbank_loader.epochs.cursor.Cursor`
    says which epoch it is; ``loader/README.md`` has the whole table. In workers each ``iter()`` is the next epoch,
    however much of the last was had: a worker cannot know. All workers agree on it, fresh ones and persistent ones,
    and see :meth:`set_epoch`.

    Parameters
    ----------
    plan
        A plan to stream, or a mix of several.
    global_batch_size
        Samples of all ranks together, or None for single samples.
    seed
        Seed of the order. None: a mix's own, else 0.
    shuffle
        Kind of order, as in :class:`tensorbank_loader.DataLoader`. Workers have every k-th batch each, so
        that ``"window"`` reads smaller pieces with them, and tiles' blocks several times.
    replacement, n_draws
        Of a plan with a column ``weight``, its sampling weights: whether an epoch may hold a sample several times (yes if None),
        and how many samples it holds (the plan's number if None).
    drop_last
        Leave the last batch out if it is shorter.
    even
        Treatment of a global batch that ranks cannot share equally, as in
        :class:`tensorbank_loader.DataLoader`.
    times
        Of samples with several dates, how many to read, drawn anew each epoch, or a list of which, counted from 0; None: all. The
        dates are the same for all modalities of a sample, and ``batch["time_index"]`` tells them. Needs a plan that addresses
        each date alone, as ``query.plan(by_date=True)`` makes it.
    on_iter
        Treatment by ``iter()`` of an epoch that was left, outside of workers: ``"restart"`` begins it anew,
        ``"continue"`` goes on with it.
    world
        Rank and number of ranks; found out when the first epoch begins if None, see :meth:`World.detect`. Workers are found out
        in the worker.
    options
        Options of reading.
    transform
        Applied to each batch or sample, on the CPU and without gradients.

    Raises
    ------
    InvalidInputError
        The plan selects no modality, a size is not positive, or torch lacks a dtype.
    """

    def __init__(
        self,
        plan: Streamed,
        *,
        global_batch_size: int | None = None,
        seed: int | None = None,
        shuffle: Shuffle = True,
        replacement: bool | None = None,
        n_draws: int | None = None,
        drop_last: bool = False,
        even: Even = "exact",
        times: Times | None = None,
        on_iter: OnIter = "restart",
        world: World | None = None,
        options: FetchOptions | None = None,
        transform: Transform | None = None,
    ) -> None:
        if global_batch_size is None and (drop_last or even != "exact"):
            raise InvalidInputError("drop_last and even are of batches and need global_batch_size")
        self.plan = plan
        self.options = FetchOptions() if options is None else options
        instance("options", self.options, FetchOptions, "give FetchOptions(...), or leave it out")
        self.transform = checked(transform)
        self.single = global_batch_size is None
        order = OrderOptions(
            seed=seed,
            shuffle=shuffle,
            replacement=replacement,
            n_draws=n_draws,
            drop_last=drop_last,
            even=even,
            times=as_numbers(times),
        )
        epochs = epochs_of(
            plan, order, SAMPLES_PER_READ if self.single else one_size(None, global_batch_size)
        )
        per_rank = SAMPLES_PER_READ if self.single else None
        self._cursor = Cursor(epochs, batch_size=per_rank, world=world, on_iter=on_iter, single=self.single)
        self._form = form_of(plan, epochs, skipping=self.options.on_error == "skip")
        self._pid = os.getpid()
        self._n_iterations = 0
        self._shared: WorkerEpochs | None = None
        self._is_ahead = False
        self._own: State | None = None
        self._sent = Sent()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process: what follows from the plan is made there again.

        A worker of torch's DataLoader, which may be what is being started, is sent the world of this process, and shares its
        epochs.
        """
        shared = self._next_of_workers()
        if get_spawning_popen() is not None:
            if shared is None:
                self._shared = shared = WorkerEpochs(self._cursor.first)
            elif self._is_ahead:
                shared.coming = self._cursor.first
            self._is_ahead = False
            loader = calling_loader(torch.utils.data.DataLoader)
            n_ahead = N_AHEAD if loader is None else loader.prefetch_factor or N_AHEAD
            sent = Sent(self._world_for_workers(), calling_sharder(), n_ahead)
        else:
            shared, sent = None, Sent()
        state = {**self.__dict__, "_shared": shared, "_sent": sent, "_n_iterations": 0}
        del state["_form"], state["_pid"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._form = form_of(self.plan, self._cursor.unsized, skipping=self.options.on_error == "skip")
        self._pid = os.getpid()

    def _world_for_workers(self) -> World | None:
        try:
            self._cursor.world.check_group()
            return self._cursor.world
        except InvalidInputError:  # which the worker finds again, and says so where it is asked for samples
            return None

    @property
    def world(self) -> World:
        """Rank and number of ranks: those given, or found when the first epoch began, or what would be found now."""
        return self._cursor.world

    @property
    def epochs(self) -> Epochs:
        """The epochs, which decide the order."""
        return self._cursor.epochs

    def __len__(self) -> int:
        """Return the number of batches of this rank, or of its samples where single samples are handed out.

        Raises
        ------
        TypeError
            A DataLoader of torch's asks for it to know its number of batches, which single samples in workers do not have:
            each worker's last batch may be short.
        """
        if not self.single:
            return self.epochs.n_steps(self.world)
        loader = calling_loader(torch.utils.data.DataLoader)
        if loader is not None and loader.num_workers > 1 and loader.batch_size is not None:
            raise TypeError(
                "how many batches workers make of single samples is not known, as each worker's last one may be short; "
                "give StreamingDataset a global_batch_size, and the DataLoader batch_size=None"
            )
        return self.epochs.n_samples_of(self.world)

    def __iter__(self) -> Iterator[Any]:
        """Yield one epoch.

        Raises
        ------
        InvalidInputError
            This process was forked off the one that made the dataset.
        """
        if self._pid != os.getpid():
            raise forked()
        sharder = calling_sharder() or self._sent.sharder
        info = torch.utils.data.get_worker_info()
        if info is None:
            return self._alone(sharder)
        if self._sent.world is not None:
            self._cursor.found(self._sent.world)
        self._leave_sharing_to(sharder)
        epochs, rank = self._cursor.begin(tell=info.id == 0)
        world = rank.in_worker()
        self._n_iterations += 1
        turn = Iteration(info.seed - info.id, self._n_iterations, info.num_workers)
        self._cursor.state = self._first_in_worker(turn, epochs, world)
        return self._in_worker(turn, epochs, world)

    def _in_worker(self, turn: Iteration, epochs: Epochs, world: World) -> Iterator[Any]:
        n_asked = 1
        for item in self._stream(epochs, world):
            yield item
            n_asked += 1
        if self._shared is not None:
            self._shared.end(turn, was_consumed=n_asked > self._sent.n_ahead)

    def _alone(self, sharder: str | None) -> Iterator[Any]:
        """An epoch outside of workers. It begins with the first sample or batch that is asked for."""
        self._next_of_workers()
        self._leave_sharing_to(sharder)
        epochs, world = self._cursor.begin()
        self._n_iterations += 1
        self._is_ahead = True
        yield from self._stream(epochs, world)

    def _first_in_worker(self, turn: Iteration, epochs: Epochs, world: World) -> State:
        """Return the state at which this worker begins, in agreement with the others."""
        own, self._own = self._own, None
        if self._shared is None:  # something else than multiprocessing has brought the dataset here
            return own or State(self._cursor.state.epoch + (turn.turn > 1))
        if own is None:
            return self._shared.begin(turn)
        at_end = epochs.at_end(own, world)
        return epochs.following(own, world) if self._shared.go_on(turn, own, at_end=at_end) else own

    def _next_of_workers(self) -> WorkerEpochs | None:
        """Move to where workers that this process has started will begin next, and return what they share."""
        shared = self._shared
        if shared is None or shared.pid != os.getpid():
            return None
        if not self._is_ahead:
            self._cursor.go_to(shared.coming)
        return shared

    def _leave_sharing_to(self, sharder: str | None) -> None:
        """Read everything where somebody else shares it out."""
        if sharder is None or self._cursor.was_given_a_world or self.world.n_ranks == 1:
            return
        warnings.warn(
            f"accelerate's {sharder} shares out what this dataset yields, which is a rank's share already; so every process "
            "reads all samples now. Leave the DataLoader out of accelerator.prepare(), or give StreamingDataset "
            "world=World(subgroup=True) if that is meant",
            stacklevel=3,
        )
        self._cursor.found(World(subgroup=True))

    def _stream(self, epochs: Epochs, world: World) -> Iterator[Any]:
        number, state = self._n_iterations, self._cursor.state
        in_worker = torch.utils.data.get_worker_info() is not None
        shares = epochs.shares(state, world)
        window = Window(reader_of(self.plan, self.options), self._form, shares)
        with closing(Batches(window, padded=epochs.even == "pad")) as batches:
            for step, batch in batches:
                # A worker stays in its epoch until it is asked for more.
                inside = State(step.epoch, step.batch + 1, 0, state.origin)
                following = inside if in_worker else epochs.after(step, world)
                if self.single:
                    yield from self._one_by_one(batch, state, step, following, number)
                else:
                    item = self._transformed(batch)
                    self._move(number, following)
                    yield item
        ended = State(state.epoch, epochs.n_steps(world), 0, state.origin)
        self._move(number, ended if in_worker else State(state.epoch + 1))

    def _one_by_one(
        self, batch: Batch, state: State, step: Step, following: State, number: int
    ) -> Iterator[Any]:
        skip = state.skip if step.batch == state.position else 0
        samples = samples_of(batch, skip)
        for had, sample in enumerate(samples, start=skip + 1):
            item = self._transformed(sample)
            inside = State(step.epoch, step.batch, had, min(following.origin, step.batch))
            self._move(number, following if had == skip + len(samples) else inside)
            yield item

    def _move(self, number: int, state: State) -> None:
        """Say where the dataset stands, as the newest of its iterations has it."""
        if number == self._n_iterations:
            self._cursor.state = state

    def _transformed(self, batch: Batch) -> Any:
        if self.transform is None:
            return batch
        with torch.no_grad():
            return self.transform(batch)

    def set_epoch(self, epoch: int) -> None:
        """Make the next ``iter()`` run this epoch from its start, in workers too.

        After :meth:`load_state_dict` with a state of the same epoch, its place stays.
        """
        shared = self._next_of_workers()
        self._cursor.set_epoch(epoch)
        self._tell(shared)

    def _tell(self, shared: WorkerEpochs | None) -> None:
        """Let workers begin where this process stands."""
        if shared is not None:
            shared.coming = self._cursor.first
            self._is_ahead = False

    def state_dict(self) -> dict[str, Any]:
        """Return what comes next, as JSON-able numbers: exact after each batch or sample.

        In a worker process it is that worker's, as torchdata's StatefulDataLoader wants it. Outside of workers that a DataLoader
        of torch's has started it is the next epoch: exact between epochs, as workers do not tell what the consumer has had.
        """
        if torch.utils.data.get_worker_info() is not None:
            return self._cursor.state_dict(self._cursor.world.in_worker())
        self._next_of_workers()
        return self._cursor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state stands, on any number of ranks and, outside of workers,
        any number of workers.

        Its global batches are kept, and a mix's weights.

        Raises
        ------
        InvalidInputError
            The state is damaged, or of another plan, seed or order.
        """
        if torch.utils.data.get_worker_info() is not None:
            world = self._sent.world or self._cursor.world
            self._cursor.load_state_dict(state, worker=world.in_worker())
            self._own = self._cursor.state
            return
        shared = self._next_of_workers()
        self._cursor.load_state_dict(state)
        self._tell(shared)

    def set_weights(self, weights: Sequence[float]) -> None:
        """Change the weights of a mix's sources, between two epochs; workers learn of it when they are started.

        The state keeps them.

        Raises
        ------
        InvalidInputError
            An epoch has begun, the weights make no sense, or nothing is mixed.
        """
        self._next_of_workers()
        self._cursor.set_weights(weights)
