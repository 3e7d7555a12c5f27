"""A plan or a mix as a ``torch.utils.data.IterableDataset``, for people who bring their own loader."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch.utils.data

from tensorbank.arguments import flag, instance
from tensorbank.errors import InvalidInputError
from tensorbank.fetch import FetchOptions
from tensorbank_loader.batch import Batch, Batches, Window, forked, samples_of
from tensorbank_loader.budgets import TokenBudget
from tensorbank_loader.callers import calling_loader, calling_sharder
from tensorbank_loader.dataset_workers import DatasetWorkers
from tensorbank_loader.epochs import Cursor, Epochs, Iteration, OnIter, State, Step, World
from tensorbank_loader.order import Even, OrderOptions, Shuffle, Times, as_numbers
from tensorbank_loader.plan_lease import PlanLease
from tensorbank_loader.streamed import Streamed, epochs_of, form_of, one_size, reader_of
from tensorbank_loader.transforms import Transform, checked

__all__ = ["StreamingDataset"]

SAMPLES_PER_READ = 32
"""The number of samples of a rank that are read together where single samples are handed out."""


class StreamingDataset(torch.utils.data.IterableDataset[Any]):
    """A dataset of the samples of a plan or a mix, in an order that hardware cannot change.

    Each sample of a plan comes exactly once an epoch. With ``global_batch_size`` the dataset yields this rank's share of each
    global batch, for ``DataLoader(dataset, batch_size=None)``. Without, it yields single samples, for a DataLoader that collates.

    Each ``iter()`` runs an epoch, and the next one is shuffled anew. :class:`tensorbank_loader.epochs.Cursor` says which epoch it
    is, and ``loader/README.md`` has the whole table.

    The dataset works in worker processes that were started by ``spawn`` or ``forkserver``. After a fork, which is torch's default
    on Linux before Python 3.14, it raises an error. In workers each ``iter()`` is the next epoch, however much of the last was
    had, since a worker cannot know. All workers agree on it, fresh ones and persistent ones, and follow :meth:`set_epoch`. With
    ``global_batch_size`` torch's DataLoader hands batches out in one order, whatever the number of workers.

    Parameters
    ----------
    plan
        A plan to stream, or a mix of several.
    global_batch_size
        Samples of all ranks together, or None for single samples.
    seed, replacement, n_draws, drop_last, even
        Options of the order, as in :class:`tensorbank_loader.DataLoader`. ``drop_last`` and ``even`` need ``global_batch_size``.
    shuffle
        Kind of shuffling, as there. Workers have every k-th batch each, so that with workers ``"window"`` reads smaller
        pieces, and blocks of tiles several times.
    times
        Dates that are read of each sample, as there. Needs a plan that addresses each date alone, as
        ``query.plan(by_date=True)`` makes it.
    budget
        Budget of tokens of each sample, drawn before it is read: modalities that a sample has none of are not requested. None:
        all modalities are read.
    on_iter
        Treatment by ``iter()`` of an epoch that was left, outside of workers: ``"restart"`` begins it anew,
        ``"continue"`` goes on with it.
    world
        Rank and number of ranks. None: :meth:`World.detect` finds them when the first epoch begins. Workers are found in the
        worker.
    options
        Options of reading.
    transform
        Function of a batch or a sample, applied on the CPU and without gradients.
    lease
        Note in the bank that this rank reads it, as there; of workers the first leaves it, and it stays after the last batch
        until it expires, within 15 minutes.

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
        budget: TokenBudget | None = None,
        on_iter: OnIter = "restart",
        world: World | None = None,
        options: FetchOptions | None = None,
        transform: Transform | None = None,
        lease: bool | None = None,
    ) -> None:
        if global_batch_size is None and (drop_last or even != "exact"):
            raise InvalidInputError("drop_last and even apply to batches; give global_batch_size as well")
        self.plan = plan
        self.options = FetchOptions() if options is None else options
        instance("options", self.options, FetchOptions, "give FetchOptions(...), or leave it out")
        self.transform = checked(transform)
        self.lease = None if lease is None else flag("lease", lease)
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
        size = SAMPLES_PER_READ if self.single else one_size(None, global_batch_size)
        epochs = epochs_of(plan, order, size, budget)
        per_rank = SAMPLES_PER_READ if self.single else None
        self._cursor = Cursor(epochs, batch_size=per_rank, world=world, on_iter=on_iter, single=self.single)
        self._form = form_of(plan, epochs, skipping=self.options.on_error == "skip")
        self._pid = os.getpid()
        self._n_iterations = 0
        self._workers = DatasetWorkers(self._cursor)
        self._lease_id = uuid.uuid4().hex
        self._lease: PlanLease | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process. What follows from the plan is made there again."""
        workers = self._workers.for_copy()  # first: it moves the cursor
        state = {**self.__dict__, "_workers": workers, "_n_iterations": 0, "_lease": None}
        del state["_form"], state["_pid"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._form = form_of(self.plan, self._cursor.unsized, skipping=self.options.on_error == "skip")
        self._pid = os.getpid()

    @property
    def world(self) -> World:
        """The rank and number of ranks: those given, those found when the first epoch began, or those that would be found now."""
        return self._cursor.world

    @property
    def epochs(self) -> Epochs:
        """The epochs, which decide the order."""
        return self._cursor.epochs

    def __len__(self) -> int:
        """Return the number of batches of this rank in an epoch, or of its samples if single samples are handed out.

        Raises
        ------
        TypeError
            A DataLoader of torch's with several workers asks, and single samples are handed out: their number of batches is not
            known, since each worker's last one may be short.
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
        sent = self._workers.sent
        sharder = calling_sharder() or sent.sharder
        info = torch.utils.data.get_worker_info()
        if info is None:
            return self._alone(sharder)
        if sent.world is not None:
            self._cursor.found(sent.world)
        self._leave_sharing_to(sharder)
        self._n_iterations += 1
        iteration = Iteration(info.seed - info.id, self._n_iterations, info.num_workers)
        epochs, rank = self._cursor.begin(
            tell=info.id == 0,
            at=lambda epochs, rank: self._workers.begin(iteration, epochs, rank.in_worker()),
        )
        return self._in_worker(iteration, epochs, rank.in_worker())

    def _in_worker(self, iteration: Iteration, epochs: Epochs, world: World) -> Iterator[Any]:
        n_asked = 1
        for item in self._stream(epochs, world):
            yield item
            n_asked += 1
        self._workers.end(iteration, n_asked)

    def _alone(self, sharder: str | None) -> Iterator[Any]:
        """Yield an epoch outside of workers. It begins with the first sample or batch that is asked for."""
        self._workers.synchronized()
        self._leave_sharing_to(sharder)
        epochs, world = self._cursor.begin()
        self._n_iterations += 1
        self._workers.moved_here()
        yield from self._stream(epochs, world)

    def _leave_sharing_to(self, sharder: str | None) -> None:
        """Read everything, with a warning, if accelerate shares out what this dataset yields."""
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
                self._take_lease(world)
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

    def _take_lease(self, world: World) -> None:
        """Protect what is read, once a rank: workers leave it to the first of them."""
        if self._lease is not None or world.worker:
            return
        self._lease = PlanLease(self.plan, self.lease, lease_id=f"{self._lease_id}-{world.rank}")
        self._lease.take()

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
        """Set the state of the dataset, if the newest of its iterations asks for it."""
        if number == self._n_iterations:
            self._cursor.state = state

    def _transformed(self, batch: Batch) -> Any:
        if self.transform is None:
            return batch
        with torch.no_grad():
            return self.transform(batch)

    def set_epoch(self, epoch: int) -> None:
        """Make the next ``iter()`` run this epoch from its start, in workers too.

        After :meth:`load_state_dict` with a state of the same epoch, the position of the state stays.
        """
        shared = self._workers.synchronized()
        self._cursor.set_epoch(epoch)
        self._workers.tell(shared)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the run, as JSON-able numbers, exact after each batch or sample.

        In a worker process it is the worker's, as torchdata's StatefulDataLoader wants it. In the process that started workers
        it is the next epoch, and exact between epochs only: workers do not tell what the consumer has had.
        """
        if torch.utils.data.get_worker_info() is not None:
            return self._cursor.state_dict(self._cursor.world.in_worker())
        self._workers.synchronized()
        return self._cursor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state stands, on any number of ranks and, outside of workers, of workers.

        Its global batches are kept, and the weights of a mix.

        Raises
        ------
        InvalidInputError
            The state is damaged, or of another plan, seed or order.
        """
        if torch.utils.data.get_worker_info() is not None:
            world = self._workers.sent.world or self._cursor.world
            self._cursor.load_state_dict(state, worker=world.in_worker())
            self._workers.go_on_with(self._cursor.state)
            return
        shared = self._workers.synchronized()
        self._cursor.load_state_dict(state)
        self._workers.tell(shared)

    def set_weights(self, weights: Sequence[float]) -> None:
        """Change the weights of a mix's sources, between two epochs. The state keeps them; workers learn of them at their start.

        Raises
        ------
        InvalidInputError
            An epoch has begun, the weights make no sense, or nothing is mixed.
        """
        self._workers.synchronized()
        self._cursor.set_weights(weights)
