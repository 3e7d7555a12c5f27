"""Check that the order is independent of the hardware:
one hash of the global batches for every number of ranks and workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import torch.utils.data

from stream.figure import Figure
from stream.runs import SEED, epoch_order
from stream.setup import Setup
from stream.small import write_small
from tensorbank import Plan
from tensorbank_loader import StreamingDataset, World
from tensorbank_loader.epochs import Epochs, State
from tensorbank_loader.order import Shuffle

__all__ = ["measure"]

RANKS = (1, 2, 3, 5, 7, 8, 16)
WORKERS = (0, 1, 2, 3)
READ = ((1, 0), (3, 0), (8, 0), (1, 2), (2, 2))
"""The numbers of ranks and workers whose loaders really read."""
SHUFFLES: tuple[Shuffle, ...] = ("full", "window", None)
N, GLOBAL_BATCH_SIZE = 10_007, 96
N_READ = 2_003
N_EPOCHS = 2

Batches = Iterable[list[int]]


def sha256(batches: Batches) -> str:
    """Return the hash of a sequence of global batches."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(f"{batch}\n".encode())
    return digest.hexdigest()


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield the number of hashes of each order: by arithmetic for all worlds, by reading for some."""
    small = write_small(setup.scratch / "elastic", n_samples=N, side=8)
    for shuffle in SHUFFLES:
        order = epoch_order(small.plan, GLOBAL_BATCH_SIZE, shuffle)
        hashes = {sha256(_computed(order, n, k)) for n in RANKS for k in WORKERS}
        worlds = f"{len(RANKS)} x {len(WORKERS)} worlds"
        yield _figure(f"shuffle={shuffle!r}, {worlds}, computed", hashes)
    plan = small.repeated(setup.n(N_READ))
    expected = sha256(_computed(epoch_order(plan, GLOBAL_BATCH_SIZE), 1, 0))
    hashes = {sha256(_read(plan, n, k)) for n, k in READ}
    yield _figure(f"{len(READ)} worlds that read, and what is computed", hashes | {expected})


def _figure(what: str, hashes: set[str]) -> Figure:
    return Figure(
        "elastic",
        what,
        float(len(hashes)),
        "hashes",
        target=1.0,
        bound="<=",
        judged="value",
        detail={"sha256": sorted(hashes)},
    )


def _computed(order: Epochs, n_ranks: int, n_workers: int) -> Batches:
    """Return the global batches as ranks see them together, each taking from its workers in turn."""
    for epoch in range(N_EPOCHS):
        ranks = []
        for rank in range(n_ranks):
            turns = [
                _steps(order, epoch, World(rank, n_ranks, worker, max(n_workers, 1)))
                for worker in range(max(n_workers, 1))
            ]
            ranks.append([next(turns[i % len(turns)]) for i in range(order.n_batches)])
        yield from _together(ranks)


def _steps(order: Epochs, epoch: int, world: World) -> Iterator[list[int]]:
    for steps, positions in order.shares(State(epoch), world):
        left = iter(positions.tolist())
        for step in steps:
            yield list(islice(left, step.n_samples))


def _together(ranks: list[list[list[int]]]) -> Batches:
    for shares in zip(*ranks, strict=True):
        yield list(chain.from_iterable(shares))


def _read(plan: Plan, n_ranks: int, n_workers: int) -> Batches:
    """Return the same batches as real loaders give them, from the numbers that came with the tensors."""
    ranks = []
    for rank in range(n_ranks):
        dataset = StreamingDataset(
            plan, global_batch_size=GLOBAL_BATCH_SIZE, seed=SEED, world=World(rank, n_ranks)
        )
        loader = _loader(dataset, n_workers)
        ranks.append([batch["number"].tolist() for _ in range(N_EPOCHS) for batch in loader])
    return _together(ranks)


def _loader(
    dataset: StreamingDataset, n_workers: int
) -> torch.utils.data.DataLoader[dict[str, torch.Tensor]]:
    """Return a loader whose workers stay and count epochs on, as the dataset itself does without workers."""
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=n_workers,
        multiprocessing_context="forkserver" if n_workers else None,
        persistent_workers=n_workers > 0,
    )
