"""An order that is as well mixed as a permutation and is read in larger pieces.

Samples that lie side by side in a shard can come with one request, if they are wanted at about the same time. Wanted in one
batch they would make it monotonous. So the samples, in the order of their addresses, are cut into runs of ``run`` neighbours;
``global_batch_size`` runs, drawn from everywhere by a keyed permutation, are the columns of a *group*; and its rows are the
global batches::

                 run 17   run 4   run 92  ...        each column: one request
    batch 0        #2       #0      #1
    batch 1        #0       #1      #2
    batch 2        #1       #2      #0               each row: one sample of each of many shards

A row has at most one sample of a run, and runs are drawn uniformly, so that a batch comes from as many shards as one of a
uniform permutation does. A rank's share is some of the columns, so that any number of ranks reads whole runs. What it costs is
memory: the batches of a group are read together, so that runs are shorter where global batches are large; and neighbours come
within ``run`` batches of each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.plans import Plan
from tensorbank_loader.order.permutation import permute, uniform

__all__ = ["MAX_GROUP_BYTES", "MAX_RUN", "RUN_BYTES", "Windowed", "address_order", "run_of", "shares_blocks"]

Int64 = npt.NDArray[np.int64]

RUN_BYTES = 1 << 20
"""The stored bytes of a run: requests of this size carry as much as larger ones,
and the first batch waits for a group of them."""
MAX_RUN = 64
MAX_GROUP_BYTES = 1 << 30
"""The bytes of tensors of a group, of all ranks together:
which rank holds how much of them must not decide the order."""


@dataclass(frozen=True, eq=False)
class Windowed:
    """An order by windows: a table with runs of neighbours as columns and batches as rows,
    as the module describes it.

    Parameters
    ----------
    n_places
        Samples of the plan.
    longest_run
        Neighbours that are read together, if a group of so many rows is not too large.
    global_batch_size
        Columns of a group.
    at
        Positions in the plan by address, (n,) integers; None where that is the plan's order.
    max_group
        Samples of a group at most, where that is more than one row; None: any number.
    """

    n_places: int
    longest_run: int
    global_batch_size: int
    at: npt.NDArray[np.integer[Any]] | None = field(default=None, repr=False)
    max_group: int | None = None

    @classmethod
    def of(cls, plan: Plan, global_batch_size: int) -> Windowed:
        """The order of a plan, from where its bytes lie."""
        max_group = MAX_GROUP_BYTES // max(_tensor_bytes(plan), 1)
        return cls(len(plan), run_of(plan), global_batch_size, address_order(plan), max_group)

    @property
    def run(self) -> int:
        """The number of neighbours that are read together: the rows of a group."""
        if self.max_group is None:
            return self.longest_run
        return min(max(self.max_group // self.global_batch_size, 1), self.longest_run)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"shuffle": "window", "run": self.longest_run}

    @property
    def n_together(self) -> int:
        return self.run

    def of_batches(self, global_batch_size: int) -> Windowed:
        return replace(self, global_batch_size=global_batch_size)

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:
        n, width, run = self.n_places, self.global_batch_size, self.run
        group, within = np.divmod(places, run * width)
        row, column = np.divmod(within, width)
        size = np.minimum(n - group * run * width, run * width)
        # The last group is shorter: of its columns, the first `longer` reach into its last row.
        n_rows = -(-size // width)
        longer = size - (n_rows - 1) * width
        length = n_rows - (column >= longer)
        first = column * n_rows - np.maximum(column - longer, 0)
        turn = (uniform(group * width + column, seed=seed, epoch=epoch) * length).astype(np.int64)
        placed = group * run * width + first + (row + turn) % length
        # Runs are permuted; what is left when all are cut off stays behind them. They start elsewhere each epoch.
        n_runs = n // run
        number, inside = np.divmod(placed, run)
        whole = number < n_runs
        number[whole] = permute(number[whole], n_runs, seed=seed, epoch=epoch)
        start = int(permute(np.zeros(1, np.int64), n, seed=seed, epoch=epoch)[0]) if n else 0
        found: Int64 = (number * run + inside + start) % max(n, 1)
        return found if self.at is None else self.at[found].astype(np.int64)


def run_of(plan: Plan) -> int:
    """Return the number of neighbours that make a run, by the stored bytes of a sample;
    windows of one sample share its bytes."""
    return int(np.clip(-(-RUN_BYTES * max(len(plan), 1) // max(_distinct_bytes(plan), 1)), 1, MAX_RUN))


def shares_blocks(plan: Plan) -> bool:
    """Tell whether samples of a plan lie in the same blocks, as tiles do,
    so that reading each alone brings most bytes twice."""
    return any(handle.window for handle in plan.handles) and 2 * _distinct_bytes(plan) <= plan.read_bytes


def _tensor_bytes(plan: Plan) -> int:
    """Return the number of bytes of one sample's tensors, as they are handed out."""
    return sum(math.prod(h.shape) * np.dtype(h.modality.dtype).itemsize for h in plan.handles)


def _distinct_bytes(plan: Plan) -> int:
    """Return the number of stored bytes of a plan; those that its windows share count once."""
    if not any(handle.window for handle in plan.handles):
        return plan.read_bytes
    total = 0
    for a in plan.addresses.values():
        there = np.flatnonzero(a.key >= 0)
        there = there[np.lexsort((a.starts[there, 0], a.key[there]))]
        key, start = a.key[there], a.starts[there, 0]
        first = np.append(True, (key[1:] != key[:-1]) | (start[1:] != start[:-1]))[: len(there)]
        total += int(a.lengths[there[first]].sum())
    return total


def address_order(plan: Plan) -> npt.NDArray[np.integer[Any]] | None:
    """Return the positions by shard and place of the largest handle, (n,) integers;
    None where the plan has that order."""
    if not plan.handles or not len(plan):
        return None
    a = max(plan.addresses.values(), key=lambda a: int(a.lengths.sum()))
    shard, start = a.key, a.starts[:, 0]
    ahead = (shard[1:] > shard[:-1]) | ((shard[1:] == shard[:-1]) & (start[1:] >= start[:-1]))
    if ahead.all():
        return None
    by_address = np.lexsort((start, shard))
    return by_address.astype(np.int32) if len(plan) < 2**31 else by_address
