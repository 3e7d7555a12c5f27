"""The ceiling of a CPU: fetch and decode the loader's reads into buffers that are there, and do nothing else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from stream.runs import Run, cpu_s
from tensorbank import Plan
from tensorbank.fetch import FetchOptions, RangeReader
from tensorbank.reading.codec import CRC_BYTES, decode_run
from tensorbank.reading.read_plan import Read, plan_reads

__all__ = ["Reference"]

N_BUFFERS = 3
"""The number of batches' buffers, used in turn: what a loader that reads ahead writes to."""

Buffers = dict[str, npt.NDArray[np.generic]]


class Reference:
    """The reads of some batches. All that does not depend on bytes is done here, outside of the clock.

    Parameters
    ----------
    batches
        Positions in the plan, (n,) int64 each.
    """

    def __init__(self, plan: Plan, batches: Sequence[npt.NDArray[np.int64]], options: FetchOptions) -> None:
        self.plan = plan
        most = max(map(len, batches))
        ring: list[Buffers] = [
            {h.name: np.zeros((most, *h.shape), h.modality.dtype) for h in plan.handles}
            for _ in range(N_BUFFERS)
        ]
        self._jobs: list[tuple[Read, Buffers]] = [
            (read, ring[number % N_BUFFERS])
            for number, positions in enumerate(batches)
            for read in plan_reads(plan.addresses, positions, options)
        ]
        self._places = [(h.name, [[h.slot(b) for b in range(*run)] for run in h.runs]) for h in plan.handles]

    def run(self, n_threads: int, *, verify: bool = False) -> Run:
        """Run all of it once, by threads that fetch and decode in turn.

        Parameters
        ----------
        verify
            Check each block's checksum, as the loader always does.
        """
        store = self.plan.origin.open()
        before, started = cpu_s(), time.perf_counter()
        with ThreadPoolExecutor(n_threads) as pool:
            n_bytes = sum(pool.map(lambda job: self._one(store, *job, verify=verify), self._jobs))
        return Run(time.perf_counter() - started, cpu_s() - before, n_bytes)

    def _one(self, store: RangeReader, read: Read, buffers: Buffers, *, verify: bool) -> int:
        data = store.get_range(read.range.key, read.range.start, read.range.end)
        for piece in read.pieces:
            name, runs = self._places[piece.handle]
            target = buffers[name][piece.slot]
            places = runs[piece.run]
            start = piece.start - read.range.start
            run = data[start : start + piece.end - piece.start]
            outs = [target[place] for place in places]
            if verify:
                decode_run(run, outs)
            else:
                decode_only(run, outs)
        return len(data)


def decode_only(data: memoryview, outs: Sequence[npt.NDArray[np.generic]]) -> None:
    """Decode blocks that lie side by side, and check nothing: each header tells its block's length."""
    at = 0
    for out in outs:
        end = at + int.from_bytes(data[at + 12 : at + 16], "little")
        blosc.decompress(data[at:end], out)
        at = end + CRC_BYTES
