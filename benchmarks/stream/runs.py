"""Time the loader, and the same ranges fetched and dropped."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tensorbank import Plan
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.reading.raw import fetch_raw, ranges_of
from tensorbank_loader import LoaderStats, StreamingDataset, World
from tensorbank_loader.epochs import Epochs, State
from tensorbank_loader.order import Shuffle

__all__ = ["Run", "Streamed", "batches_of", "epoch_order", "fetched", "interleaved", "medians", "stream"]

T = TypeVar("T")
SEED = 1
WORLD = World()


@dataclass(frozen=True, slots=True)
class Run:
    """The bytes that came over the network, in which time, by how much work of this process."""

    wall_s: float
    cpu_s: float
    n_bytes: int

    @property
    def mb_s(self) -> float:
        return self.n_bytes / self.wall_s / 1e6

    @property
    def cpu_s_gb(self) -> float:
        """The CPU seconds a GB: steadier than time where others use the machine, too."""
        return self.cpu_s / self.n_bytes * 1e9


@dataclass(frozen=True, slots=True)
class Streamed:
    """A run of a loader.

    Parameters
    ----------
    last
        The last epoch, from the end of the one before if there is one: what was read ahead at its beginning is there again at
        its end.
    first_s, total_s
        Seconds from the plan in hand to the first batch, and to the last one.
    intervals_s
        Seconds by epoch, from one batch to the next; the first from the last of the epoch before.
    """

    last: Run
    first_s: float
    total_s: float
    intervals_s: tuple[tuple[float, ...], ...]
    stats: LoaderStats


def epoch_order(plan: Plan, batch_size: int, shuffle: Shuffle = "full") -> Epochs:
    """Return the order that a loader of this process alone has."""
    dataset = StreamingDataset(plan, global_batch_size=batch_size, seed=SEED, shuffle=shuffle, world=WORLD)
    return dataset.epochs


def batches_of(
    plan: Plan, batch_size: int, *, epoch: int, shuffle: Shuffle = "full"
) -> list[npt.NDArray[np.int64]]:
    """Return the positions that are read together, in the order of an epoch."""
    return [at for _, at in epoch_order(plan, batch_size, shuffle).shares(State(epoch), WORLD)]


def stream(
    plan: Plan,
    batch_size: int,
    *,
    shuffle: Shuffle = "full",
    options: FetchOptions | None = None,
    n_epochs: int = 2,
    n_bytes: int | None = None,
    step_s: float = 0.0,
) -> Streamed:
    """Run epochs for a consumer that does nothing, or sleeps.

    Parameters
    ----------
    n_bytes
        Bytes of the last epoch's reads; computed if None.
    step_s
        Seconds that the consumer sleeps with each batch.
    """
    options = options or FetchOptions()
    if n_bytes is None:
        n_bytes = read_bytes(plan, batch_size, epoch=n_epochs - 1, shuffle=shuffle, options=options)
    gc.collect()
    intervals: list[tuple[float, ...]] = []
    started = begun = time.perf_counter()
    begun_cpu = cpu_s()
    with plan.dataloader(
        batch_size=batch_size, seed=SEED, shuffle=shuffle, options=options, world=WORLD
    ) as loader:
        for epoch in range(n_epochs):
            if epoch == n_epochs - 1:
                begun, begun_cpu = time.perf_counter(), cpu_s()
            came = [time.perf_counter()]
            for _ in loader:
                came.append(time.perf_counter())
                if step_s:
                    time.sleep(step_s)
            intervals.append(tuple(np.diff(came).tolist()))
        ended, used = time.perf_counter(), cpu_s() - begun_cpu
        stats = loader.stats()
    first_s = intervals[0][0]
    return Streamed(Run(ended - begun, used, n_bytes), first_s, ended - started, tuple(intervals), stats)


def read_bytes(plan: Plan, batch_size: int, *, epoch: int, shuffle: Shuffle, options: FetchOptions) -> int:
    """Return the bytes of the reads of an epoch."""
    batches = batches_of(plan, batch_size, epoch=epoch, shuffle=shuffle)
    return sum(r.n_bytes for r in ranges_of(plan.addresses, batches, options))


def fetched(plan: Plan, batch_size: int, *, epoch: int = 1, shuffle: Shuffle = "full") -> Callable[[], Run]:
    """Return a function that fetches the ranges of an epoch as the loader asks for them,
    and drops what comes.
    """
    ranges = ranges_of(
        plan.addresses, batches_of(plan, batch_size, epoch=epoch, shuffle=shuffle), FetchOptions()
    )

    def work() -> Run:
        before = cpu_s()
        raw = fetch_raw(plan.origin.open(), ranges)
        return Run(raw.seconds, cpu_s() - before, raw.n_bytes)

    return work


def cpu_s() -> float:
    """Return the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def interleaved(works: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """Run each work once a round, in turn; the first of all runs is thrown away."""
    next(iter(works.values()))()
    found: dict[str, list[T]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            found[name].append(work())
    return found


def medians(runs: Sequence[Run]) -> dict[str, float]:
    """Return the medians of rates and of work, for the details of a figure."""
    return {
        "mb_s": median(r.mb_s for r in runs),
        "cpu_s_gb": median(r.cpu_s_gb for r in runs),
        "wall_s": median(r.wall_s for r in runs),
    }
