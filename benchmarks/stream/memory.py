"""Measure whether memory stays within its budget:
peak over the budget, growth over a million samples, and what a worker takes. Linux.
"""

from __future__ import annotations

import gc
import multiprocessing
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np
import torch.utils.data

from stream.figure import Figure
from stream.fresh import fresh
from stream.runs import SEED, WORLD
from stream.serving import loopback
from stream.setup import Setup
from stream.small import write_small
from tensorbank import Plan
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank_loader import StreamingDataset

__all__ = ["measure"]

MIB = 1 << 20
BUDGET_BYTES = 256 * MIB
BATCH_SIZE = 8
"""The samples in a batch, 50 MB of tensors and stored bytes: the budget holds some."""
EPOCH_BYTES = 1.5e9
STEP_S = 0.02
"""A consumer slow enough that the window fills."""

N_SMALL = 1_000_000
N_SMALL_BATCHES = 1000
SMALL_BUDGET_BYTES = 8 * MIB
"""The budget in bytes that is full long before growth counts:
with more, the window itself would grow all the way."""
N_EPOCHS = 2
"""The number of epochs; growth counts in the last: in the first, pools and caches fill."""
N_LONG, N_SHORT = 1_000_000, 10_000
N_BATCHES, WORKER_BATCH = 5, 64


@dataclass(frozen=True, slots=True)
class Peak:
    """The bytes of resident memory: before, at most, and of the batch that the consumer holds."""

    before_bytes: int
    peak_bytes: int
    held_bytes: int

    @property
    def own_bytes(self) -> int:
        """The bytes that the loader took."""
        return self.peak_bytes - self.before_bytes - self.held_bytes


def measure(setup: Setup) -> Iterator[Figure]:
    """Measure peak, slope and workers, each in fresh processes."""
    with loopback(setup.folder) as origin:
        plan = origin.plan(setup.sized(setup.plan(), EPOCH_BYTES))
        for what, step_s in (("a slow consumer", STEP_S), ("a fast consumer", 0.0)):
            yield _budget(setup, what, partial(peak, plan, BUDGET_BYTES, step_s))
    small = write_small(setup.scratch / "small", n_samples=4096, side=8)
    with loopback(small.folder) as origin:
        yield _growth(origin.plan(small.repeated(setup.n(N_SMALL))))
    n_short = max(setup.n(N_SHORT), N_BATCHES * WORKER_BATCH)
    short, long = small.repeated(n_short), small.repeated(n_short * (N_LONG // N_SHORT))
    yield _workers(setup, long, short)


def _budget(setup: Setup, what: str, work: partial[Peak]) -> Figure:
    peaks = [fresh(work) for _ in range(min(setup.repeats, 3))]
    own = median(p.own_bytes for p in peaks)
    return Figure(
        "memory",
        f"peak above the start, {what}",
        own / MIB,
        "MiB",
        BUDGET_BYTES / MIB,
        own / BUDGET_BYTES,
        1.05,
        "<=",
        detail={
            "batch_mib": peaks[0].held_bytes / MIB,
            "all_mib": [p.own_bytes / MIB for p in peaks],
            "before_mib": [p.before_bytes / MIB for p in peaks],
        },
    )


def peak(plan: Plan, budget_bytes: int, step_s: float) -> Peak:
    """Return the peak of this process while it streams an epoch."""
    with plan.dataloader(batch_size=1, options=FetchOptions(max_inflight_bytes=0)) as loader:
        next(iter(loader))  # what the first use of libraries takes is not the window's
    options = FetchOptions(max_inflight_bytes=budget_bytes)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status_bytes("VmRSS")
    held = 0
    with plan.dataloader(batch_size=BATCH_SIZE, seed=SEED, world=WORLD, options=options) as loader:
        for batch in loader:
            held = max(held, sum(v.nbytes for v in batch.values() if isinstance(v, torch.Tensor)))
            time.sleep(step_s)
    return Peak(before, _status_bytes("VmHWM"), held)


def _growth(plan: Plan) -> Figure:
    seen, rss = fresh(resident, plan)
    begun = len(seen) // N_EPOCHS * (N_EPOCHS - 1)
    slope = float(np.polyfit(seen[begun:], rss[begun:], 1)[0])
    grown = slope * N_SMALL / MIB
    return Figure(
        "memory",
        "growth over 1,000,000 small samples, after as many",
        grown,
        "MiB",
        target=1.0,
        bound="<=",
        judged="value",
        detail={
            "samples": seen[-1],
            "first_mib": rss[0] / MIB,
            "second_epoch_mib": rss[begun] / MIB,
            "last_mib": rss[-1] / MIB,
        },
    )


def resident(plan: Plan) -> tuple[list[int], list[int]]:
    """Return the numbers of samples had, and the resident bytes of this process at those moments."""
    seen, rss, n = [], [], 0
    batch_size = -(-len(plan) // N_SMALL_BATCHES)
    options = FetchOptions(max_inflight_bytes=SMALL_BUDGET_BYTES)
    with plan.dataloader(batch_size=batch_size, seed=SEED, world=WORLD, options=options) as loader:
        for batch in chain.from_iterable(loader for _ in range(N_EPOCHS)):
            n += len(batch["number"])
            seen.append(n)
            rss.append(_status_bytes("VmRSS"))
    return seen, rss


def _workers(setup: Setup, long: Plan, short: Plan) -> Figure:
    rounds = [(fresh(worker_bytes, long), fresh(worker_bytes, short)) for _ in range(min(setup.repeats, 3))]
    grown = median(a - b for a, b in rounds)
    more_bytes = long.table.nbytes - short.table.nbytes
    return Figure(
        "memory",
        f"a worker's own memory, plan of {len(long):,} rows beside {len(short):,}",
        grown / MIB,
        "MiB",
        more_bytes / MIB,
        grown / more_bytes,
        0.1,
        "<=",
        detail={"worker_mib": median(b for _, b in rounds) / MIB},
    )


def worker_bytes(plan: Plan) -> int:
    """Return the memory of a spawned worker that it could share with no other, while it streams.

    Anonymous memory: what is mapped from a plan's shared memory counts as private, too, for as long as one process maps it.
    """
    dataset = StreamingDataset(plan, global_batch_size=WORKER_BATCH, seed=SEED, world=WORLD)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    batches = iter(loader)
    for _ in range(N_BATCHES):
        next(batches)
    (worker,) = multiprocessing.active_children()
    text = Path(f"/proc/{worker.pid}/smaps_rollup").read_text()
    found = re.search(r"^Anonymous:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise RuntimeError("this system does not tell anonymous memory; it is measured on Linux")
    return 1024 * int(found[1])


def _status_bytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"this system does not tell {name}; memory is measured on Linux")
    return 1024 * int(found[1])
