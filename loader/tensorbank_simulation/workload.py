"""A workload: what the batches of an epoch read and decode, from a plan or made up. Values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tensorbank.arguments import choice, number, whole_number
from tensorbank.errors import InvalidInputError
from tensorbank.fetch import FetchOptions
from tensorbank.reading import DEFAULT_PROFILE, PROFILES
from tensorbank.reading.read_plan import plan_reads

if TYPE_CHECKING:
    from tensorbank.plans import Plan
    from tensorbank_loader.order import Shuffle

__all__ = ["BatchShape", "Workload", "made_up_workload", "workload_of"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class BatchShape:
    """The reads of one batch of one process.

    Parameters
    ----------
    n_bytes, n_blocks
        (m,) int64: stored bytes and blocks of each read.
    decoded_bytes
        (m, k) int64: bytes of tensors that each read brings, by kind.
    tensor_bytes
        Bytes of the batch's tensors.
    n_samples, n_steps
        Samples of the batch, and steps that are cut out of it.
    """

    n_bytes: Int64
    n_blocks: Int64
    decoded_bytes: Int64
    tensor_bytes: int
    n_samples: int
    n_steps: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """The batches of an epoch, or some of them that stand for all.

    Parameters
    ----------
    kinds
        Names of what is decoded: modalities, or a codec profile.
    ranks
        Batches of some processes, in order. Where an epoch has more, they come again in turn.
    n_samples, n_ranks, batch_size
        Samples of the epoch, processes that share them, and samples of a batch of each.
    """

    kinds: tuple[str, ...]
    ranks: tuple[tuple[BatchShape, ...], ...]
    n_samples: int
    n_ranks: int
    batch_size: int

    @property
    def n_steps(self) -> int:
        """The number of steps of an epoch."""
        return -(-self.n_samples // (self.n_ranks * self.batch_size))

    @property
    def read_bytes(self) -> float:
        """The bytes that all processes read in an epoch, by the batches that stand for all."""
        return self._per_sample(lambda b: int(b.n_bytes.sum())) * self.n_samples

    @property
    def n_reads(self) -> float:
        """The number of reads of an epoch."""
        return self._per_sample(lambda b: len(b.n_bytes)) * self.n_samples

    @property
    def tensor_bytes(self) -> float:
        """The bytes of all tensors of an epoch."""
        return self._per_sample(lambda b: b.tensor_bytes) * self.n_samples

    def _per_sample(self, count: Callable[[BatchShape], int]) -> float:
        batches = [batch for rank in self.ranks for batch in rank]
        return sum(count(b) for b in batches) / sum(b.n_samples for b in batches)

    def of_rank(self, rank: int) -> Iterator[BatchShape]:
        """Yield the batches of a process of the simulation without end."""
        mine = self.ranks[rank % len(self.ranks)]
        first = rank // len(self.ranks)  # processes that share batches begin at others
        number_ = first
        while True:
            yield mine[number_ % len(mine)]
            number_ += 1


def workload_of(
    plan: Plan,
    *,
    batch_size: int,
    n_ranks: int = 1,
    simulated_ranks: int = 1,
    shuffle: Shuffle = True,
    seed: int = 0,
    options: FetchOptions | None = None,
    max_batches: int | None = None,
) -> Workload:
    """Return the batches of a plan as the loader makes them: the same samples, in the same order, by the same reads.

    Parameters
    ----------
    simulated_ranks
        Processes whose batches are worked out.
    max_batches
        Most batches of each that are worked out; None for all.

    Raises
    ------
    InvalidInputError
        The plan selects no sample or no tensor, or has fewer samples than the first batch of all processes.
    """
    from tensorbank_loader import StreamingDataset, World
    from tensorbank_loader.epochs import State

    if not len(plan) or not plan.handles:
        raise InvalidInputError(
            "the query selects no sample with a tensor, so that there is nothing to simulate"
        )
    given = options or FetchOptions()
    dataset = StreamingDataset(
        plan,
        global_batch_size=batch_size * n_ranks,
        seed=seed,
        shuffle=shuffle,
        world=World(rank=0, n_ranks=n_ranks),
        options=given,
        lease=False,
    )
    block_bytes = np.array([h.modality.block_bytes for h in plan.handles], np.int64)
    ranks = []
    for rank in range(min(simulated_ranks, n_ranks)):
        batches = []
        for steps, positions in dataset.epochs.shares(State(0), World(rank=rank, n_ranks=n_ranks)):
            if len(positions):
                batches.append(_shape(plan, positions, len(steps), given, block_bytes))
            if max_batches is not None and len(batches) >= max_batches:
                break
        ranks.append(tuple(batches))
    if not all(ranks):
        raise InvalidInputError(
            f"the query selects {len(plan)} samples, too few for {n_ranks} processes; ask for fewer"
        )
    return Workload(tuple(h.name for h in plan.handles), tuple(ranks), len(plan), n_ranks, batch_size)


def made_up_workload(
    *,
    n_samples: int,
    sample_bytes: float,
    batch_size: int,
    n_ranks: int = 1,
    reads_per_sample: int = 1,
    blocks_per_sample: int = 1,
    ratio: float = 2.5,
    profile: str = DEFAULT_PROFILE,
) -> Workload:
    """Return batches of samples that are all alike.

    Parameters
    ----------
    sample_bytes
        Bytes of a sample's tensors.
    reads_per_sample, blocks_per_sample
        Requests for a sample, one for each modality where samples are read in a random order, and blocks.
    ratio
        Bytes of tensors to stored ones.
    profile
        Codec profile.

    Raises
    ------
    InvalidInputError
        A number makes no sense; the message names it.
    """
    whole_number("samples", n_samples, at_least=1)
    number("sample-bytes", sample_bytes, at_least=1)
    whole_number("batch-size", batch_size, at_least=1)
    whole_number("reads-per-sample", reads_per_sample, at_least=1)
    whole_number("blocks-per-sample", blocks_per_sample, at_least=1)
    number("ratio", ratio, above=0)
    choice("codec", profile, tuple(PROFILES))
    n_reads = batch_size * reads_per_sample
    decoded = round(sample_bytes / reads_per_sample)
    batch = BatchShape(
        np.full(n_reads, max(round(decoded / ratio), 1), np.int64),
        np.full(n_reads, math.ceil(blocks_per_sample / reads_per_sample), np.int64),
        np.full((n_reads, 1), decoded, np.int64),
        round(sample_bytes) * batch_size,
        batch_size,
    )
    return Workload((profile,), ((batch,),), n_samples, n_ranks, batch_size)


def _shape(
    plan: Plan, positions: Int64, n_steps: int, options: FetchOptions, block_bytes: Int64
) -> BatchShape:
    """Return what the reads of some samples bring."""
    reads = plan_reads(plan.addresses, positions, options)
    handles = plan.handles
    longest = max(len(h.runs) for h in handles)
    in_run = np.zeros((len(handles), longest), np.int64)
    for place, handle in enumerate(handles):
        in_run[place, : len(handle.runs)] = [end - start for start, end in handle.runs]
    pieces = reads.pieces
    blocks = in_run[pieces["handle"], pieces["run"]]
    of_read = np.repeat(np.arange(len(reads)), np.diff(reads.edges))
    decoded = np.zeros((len(reads), len(handles)), np.int64)
    np.add.at(decoded, (of_read, pieces["handle"]), blocks * block_bytes[pieces["handle"]])
    n_blocks = np.bincount(of_read, weights=blocks, minlength=len(reads)).astype(np.int64)
    tensor_bytes = sum(h.n_bytes for h in handles) * len(positions)
    return BatchShape(
        reads.ends - reads.starts, n_blocks, decoded, int(tensor_bytes), len(positions), n_steps
    )
