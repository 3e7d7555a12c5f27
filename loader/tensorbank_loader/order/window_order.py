"""An order that is as well mixed as a permutation and reads larger pieces.

Samples that lie side by side in a shard can come with one request if they are wanted at about the same time. Wanted in one
batch, they would make it monotonous. So the samples, in the order of their addresses, are cut into runs of ``run`` neighbours.
``global_batch_size`` runs, drawn from everywhere by a permutation, are the columns of a *group*, and the rows of a group are
global batches::

                 run 17   run 4   run 92  ...        each column: one request
    batch 0        #2       #0      #1
    batch 1        #0       #1      #2
    batch 2        #1       #2      #0               each row: one sample of each of many runs

A row has at most one sample of a run, and runs are drawn uniformly, so that a batch has samples of as many shards as a batch of
a uniform permutation. A rank's share is some of the columns, so that any number of ranks reads whole runs.

The price is memory: the batches of a group are read together. Therefore runs are shorter where global batches are large.
Neighbours come within ``run`` batches of each other.
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
from tensorbank_loader.order.sample_order import Int64, PlanOrder

__all__ = ["MAX_GROUP_BYTES", "MAX_RUN", "RUN_BYTES", "Windowed", "address_order", "run_of", "shares_blocks"]

RUN_BYTES = 1 << 20
"""The stored bytes of a run. Larger requests are no faster, and the first batch waits for a whole group of runs."""
MAX_RUN = 64
"""The most samples of a run, of however few bytes: neighbours come within so many batches of each other."""
MAX_GROUP_BYTES = 1 << 30
"""The most bytes of the tensors of a group. All ranks together have them: the order must not depend on how many ranks there
are."""


@dataclass(frozen=True, eq=False)
class Windowed(PlanOrder):
    """An order by windows: groups of runs of neighbours, with the runs as columns and global batches as rows.

    Parameters
    ----------
    n_places
        Samples of the plan.
    longest_run
        Samples of a run, unless a group of so many rows is too large.
    global_batch_size
        Columns of a group.
    at
        Positions in the plan by address, (n,) integers; None where the plan has that order.
    max_group
        Most samples of a group, where that is more than one row; None: any number.

    Examples
    --------
    Twelve samples in runs of three, in batches of four, which are the rows. The columns are runs of neighbours, from a random
    one on; samples 11 and 0 count as neighbours, too.

    >>> Windowed(12, 3, 4).positions(np.arange(12), seed=5, epoch=0).reshape(3, 4)
    array([[11,  5,  9,  4],
           [ 0,  6, 10,  2],
           [ 1,  7,  8,  3]])
    """

    n_places: int
    longest_run: int
    global_batch_size: int
    at: npt.NDArray[np.integer[Any]] | None = field(default=None, repr=False)
    max_group: int | None = None

    @classmethod
    def of(cls, plan: Plan, global_batch_size: int) -> Windowed:
        """Return the order of a plan, whose runs depend on where its bytes lie."""
        max_group = MAX_GROUP_BYTES // max(_tensor_bytes(plan), 1)
        return cls(len(plan), run_of(plan), global_batch_size, address_order(plan), max_group)

    @property
    def run(self) -> int:
        """The number of neighbours that are read together, which is the number of rows of a group."""
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

    # Three steps lead from a place of the epoch to a sample. Here n = 18, batches have 4 samples and runs 3:
    #
    # 1. _in_line: the places are rows of groups; the samples of the groups' columns, one column after the other, are a line.
    #    Each column is turned by a random number of rows, so that a batch has no fixed place in its runs.
    #
    #                   group 0           group 1            the line, with | between columns
    #      batch 0     1  3  8 10                            0 1 2 | 3 4 5 | 6 7 8 | 9 10 11 || 12 13 | 14 15 | 16 | 17
    #      batch 1     2  4  6 11
    #      batch 2     0  5  7  9         `longer` = 2 columns of the last group have 2 rows, the others 1:
    #      batch 3                      13 14 16 17          its samples, 18 - 12 = 6, do not fill 3 rows of 4
    #      batch 4                      12 15
    #
    # 2. _by_address: the line is cut into runs of 3, which are the columns of whole groups, and the runs change places by a
    #    permutation. The n % run samples behind the last whole run stay there.
    # 3. The samples by address begin at a random one in each epoch, so that other neighbours make a run each time.

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:
        found = self._by_address(self._in_line(places, seed=seed, epoch=epoch), seed=seed, epoch=epoch)
        return found if self.at is None else self.at[found].astype(np.int64)

    def _in_line(self, places: Int64, *, seed: int, epoch: int) -> Int64:
        """Return the places in the line of columns, (m,) int64 in ``[0, n_places)``, of places of the epoch, (m,)."""
        width, group_size = self.global_batch_size, self.run * self.global_batch_size
        group, within = np.divmod(places, group_size)
        row, column = np.divmod(within, width)
        start = group * group_size
        size = np.minimum(self.n_places - start, group_size)
        n_rows = -(-size // width)
        longer = size - (n_rows - 1) * width
        length = n_rows - (column >= longer)
        first = column * n_rows - np.maximum(column - longer, 0)
        turn = (uniform(group * width + column, seed=seed, epoch=epoch) * length).astype(np.int64)
        line: Int64 = start + first + (row + turn) % length
        return line

    def _by_address(self, line: Int64, *, seed: int, epoch: int) -> Int64:
        """Return the numbers by address, (m,) int64 in ``[0, n_places)``, of samples in the line of columns, (m,)."""
        n, run = self.n_places, self.run
        n_runs = n // run
        number, inside = np.divmod(line, run)
        whole = number < n_runs
        number[whole] = permute(number[whole], n_runs, seed=seed, epoch=epoch)
        start = int(permute(np.zeros(1, np.int64), n, seed=seed, epoch=epoch)[0]) if n else 0
        found: Int64 = (number * run + inside + start) % max(n, 1)
        return found


def run_of(plan: Plan) -> int:
    """Return the number of neighbours that make a run: as many samples as have ``RUN_BYTES`` stored bytes, at most ``MAX_RUN``.

    Windows of one sample share its bytes.
    """
    return int(np.clip(-(-RUN_BYTES * max(len(plan), 1) // max(_distinct_bytes(plan), 1)), 1, MAX_RUN))


def shares_blocks(plan: Plan) -> bool:
    """Return True if samples of a plan share blocks, as tiles do, so that reading each alone brings most bytes twice."""
    return any(handle.window for handle in plan.handles) and 2 * _distinct_bytes(plan) <= plan.read_bytes


def _tensor_bytes(plan: Plan) -> int:
    """Return the number of bytes of one sample's tensors, as they are handed out."""
    return sum(math.prod(h.shape) * np.dtype(h.modality.dtype).itemsize for h in plan.handles)


def _distinct_bytes(plan: Plan) -> int:
    """Return the number of stored bytes of a plan. Bytes that several windows share count once."""
    if not any(handle.window for handle in plan.handles):
        return plan.read_bytes
    total = 0
    for a in plan.addresses.values():
        there = np.flatnonzero(a.present)
        there = there[np.lexsort((a.starts[there, 0], a.shard_of[there]))]
        shard, start = a.shard_of[there], a.starts[there, 0]
        first = np.append(True, (shard[1:] != shard[:-1]) | (start[1:] != start[:-1]))[: len(there)]
        total += int(a.lengths[there[first]].sum())
    return total


def address_order(plan: Plan) -> npt.NDArray[np.integer[Any]] | None:
    """Return the positions of a plan sorted by the address of its largest handle, (n,) integers; None if they are sorted."""
    if not plan.handles or not len(plan):
        return None
    a = max(plan.addresses.values(), key=lambda a: int(a.lengths.sum()))
    shard, start = a.shard_of, a.starts[:, 0]
    ahead = (shard[1:] > shard[:-1]) | ((shard[1:] == shard[:-1]) & (start[1:] >= start[:-1]))
    if ahead.all():
        return None
    by_address = np.lexsort((start, shard))
    return by_address.astype(np.int32) if len(plan) < 2**31 else by_address
