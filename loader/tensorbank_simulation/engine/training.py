"""Training on some nodes: every process consumes its batches step by step, and all processes take each step together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from tensorbank.fetch.fetcher import FetchOptions
from tensorbank_simulation.engine.clock import Clock
from tensorbank_simulation.engine.rank import BatchCost, Rank, WindowSetting
from tensorbank_simulation.engine.reading import NodeResources, Reading
from tensorbank_simulation.engine.shared import SharedResource, Wire
from tensorbank_simulation.engine.store import Requests, StoreSetting

__all__ = ["NodesSetting", "Trace", "train"]

MIN_BATCHES_AHEAD, RAMP = 2, 4
"""The bounds of :mod:`tensorbank_loader.batch.read_window`, which needs torch; a test compares them."""


@dataclass(frozen=True, slots=True)
class NodesSetting:
    """The nodes that are simulated, which are all alike.

    Parameters
    ----------
    n_nodes, ranks_per_node
        Nodes, and processes on each.
    n_cores
        Cores of a node.
    bandwidth_bytes_s, connection_bytes_s
        Bytes a second of a node's network, and of one connection at most.
    step_s
        Seconds of a step on one batch of each process.
    copy_s
        Seconds until a batch that was handed out is on the device.
    steps_ahead
        Steps that the host is ahead of the device: 0 where the consumer is the host itself.
    hit_share
        Share of the reads that the cache has.
    is_local
        True if the bytes come from a disk.
    seed
        Seed of all draws.
    """

    n_nodes: int
    ranks_per_node: int
    n_cores: float
    store: StoreSetting
    options: FetchOptions
    bandwidth_bytes_s: float = math.inf
    connection_bytes_s: float = math.inf
    step_s: float = 0.0
    copy_s: float = 0.0
    steps_ahead: int = 0
    hit_share: float = 0.0
    is_local: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """The record of what happened: times in seconds from the first demand on, and sums over all processes.

    Parameters
    ----------
    began_s, ended_s
        (n,) times at which each step began and ended.
    n_done
        (n,) reads of all processes that were decoded when each step ended.
    read_bytes, hit_bytes
        Bytes that crossed the network, those of hedges included, and bytes from the cache.
    n_requests, n_refused, n_hedges, n_reads, n_hits
        Requests to the store, those it refused, second requests for late reads, reads, and those that the cache had.
    core_s, lock_s
        CPU seconds of all nodes, and the longest time that one interpreter's lock was held.
    peak_bytes
        The most bytes in the window of a process.
    depth
        Reads that may be under way in a process, at the end.
    """

    began_s: tuple[float, ...]
    ended_s: tuple[float, ...]
    n_done: tuple[int, ...]
    read_bytes: int
    hit_bytes: int
    n_requests: int
    n_refused: int
    n_hedges: int
    n_reads: int
    n_hits: int
    core_s: float
    lock_s: float
    peak_bytes: int
    depth: int


@dataclass(slots=True)
class _Steps:
    """The steps of all processes: each begins when the one before has ended and every process has its batch."""

    clock: Clock
    setting: NodesSetting
    n_steps: int
    demands: list[Callable[[], None]]
    n_handed: dict[int, int] = field(default_factory=dict)
    handed: dict[int, list[int]] = field(default_factory=dict)
    began_s: list[float] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)
    n_done: list[int] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)

    def hand(self, rank: int, number: int) -> None:
        """Note that a process has a batch; its host goes on, unless it is too far ahead."""
        self.handed.setdefault(number, []).append(rank)
        if self.setting.copy_s:
            self.clock.after(self.setting.copy_s, lambda: self._there(number))
        else:
            self._there(number)
        if len(self.ended_s) >= number + 1 - self.setting.steps_ahead:
            self.demands[rank]()

    def _there(self, number: int) -> None:
        self.n_handed[number] = self.n_handed.get(number, 0) + 1
        self._begin()

    def _begin(self) -> None:
        number = len(self.began_s)
        if len(self.ended_s) < number or self.n_handed.get(number, 0) < len(self.demands):
            return
        self.began_s.append(self.clock.now_s)
        self.clock.after(self.setting.step_s, self._end)

    def _end(self) -> None:
        self.ended_s.append(self.clock.now_s)
        self.n_done.append(sum(reading.n_done for reading in self.readings))
        # Those that handed the batch which this step lets them go on behind, and wait since.
        freed = self.handed.pop(len(self.ended_s) - 1 + self.setting.steps_ahead, [])
        self._begin()
        for rank in freed:
            self.demands[rank]()


def train(setting: NodesSetting, n_steps: int, batches: Sequence[Iterator[BatchCost]]) -> Trace:
    """Simulate some steps.

    Parameters
    ----------
    batches
        Batches of each process, node by node; at least ``n_steps`` each.
    """
    clock = Clock()
    requests = Requests(clock, setting.store, setting.seed)
    nodes = [
        NodeResources(
            Wire(clock, setting.bandwidth_bytes_s, setting.connection_bytes_s),
            SharedResource(clock, setting.n_cores, 1.0),
        )
        for _ in range(setting.n_nodes)
    ]
    window = WindowSetting(setting.options.max_inflight_bytes, MIN_BATCHES_AHEAD, RAMP)
    demands: list[Callable[[], None]] = []
    steps = _Steps(clock, setting, n_steps, demands)
    ranks: list[Rank] = []
    for number, mine in enumerate(batches):
        reading = Reading(
            clock,
            nodes[number // setting.ranks_per_node],
            requests,
            rank=number,
            seed=setting.seed,
            options=setting.options,
            hit_share=setting.hit_share,
            is_local=setting.is_local,
        )
        steps.readings.append(reading)
        ranks.append(Rank(clock, reading, window, mine, partial(steps.hand, number)))
        demands.append(ranks[-1].demand)
    for demand in demands:
        demand()
    if not clock.run(lambda: len(steps.ended_s) >= n_steps):
        raise ValueError(f"there are fewer batches than {n_steps} steps")
    readings = [rank.reading for rank in ranks]
    return Trace(
        began_s=tuple(steps.began_s[:n_steps]),
        ended_s=tuple(steps.ended_s[:n_steps]),
        n_done=tuple(steps.n_done[:n_steps]),
        read_bytes=sum(r.read_bytes for r in readings),
        hit_bytes=sum(r.hit_bytes for r in readings),
        n_requests=requests.n_asked,
        n_refused=requests.n_refused,
        n_hedges=sum(r.n_hedges + r.n_stalls for r in readings),
        n_reads=sum(r.n_reads for r in readings),
        n_hits=sum(r.n_hits for r in readings),
        core_s=sum(node.cores.done for node in nodes),
        lock_s=max(r.lock.done for r in readings),
        peak_bytes=max(rank.peak_bytes for rank in ranks),
        depth=max(r.depth for r in readings),
    )
