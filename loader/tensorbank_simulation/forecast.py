"""The forecast of an epoch: some nodes and steps are simulated, and stand for all of them.

What is not simulated follows from what is:

* Steps. ``max_reads`` decides how many are simulated, but no fewer than some windows of batches. The first third of them fills
  windows and finds depths; the others have the rate of the epoch's rest, though no more than the network carries and the cores
  do, and no faster than the model. Where all are simulated, nothing is extrapolated.
* Nodes. All are alike, so ``simulated_nodes`` of them, which take every step together, stand for all. Limits of the store are
  theirs by their share of the nodes. Stragglers are those among the simulated nodes: with more nodes, a step waits for a rarer
  one, so where the latency binds and batches are not ahead, more simulated nodes tell more.
* Requests, bytes and refusals are those of the simulated steps, for each step and process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from tensorbank_simulation.calibration import Calibration
from tensorbank_simulation.engine import BatchCost, NodesSetting, ReadCost, StoreSetting, Trace, train
from tensorbank_simulation.setting import Setting
from tensorbank_simulation.workload import BatchShape, Workload

__all__ = ["EpochForecast", "costs_of", "simulate"]

MIN_WINDOWS = 4
"""The fewest windows of batches that are simulated: the first fills what is empty in the beginning."""
WARM_SHARE = 1 / 3
BUSY = 0.85
"""The share of its time from which a resource is said to bind: queues before it are full then, and its rate is that of all."""
NO_WAIT = 0.02
"""The share of waiting below which the model's step is said to bind."""


@dataclass(frozen=True, slots=True)
class EpochForecast:
    """The time, the cost and the needs of an epoch.

    Parameters
    ----------
    epoch_s, first_batch_s
        Seconds of the epoch, and until its first step begins.
    wait_s, wait_share
        Seconds of the epoch in which GPUs wait, and their share of it.
    samples_per_s
        Samples a second of all GPUs.
    egress_bytes
        Bytes that leave the store, second requests included.
    n_requests, n_refused, n_hedges
        Requests, those that the store refused, and those for reads that were late.
    cost
        Requests and egress, at the prices of the setting.
    hit_share
        Share of the reads that the cache has.
    core_s
        CPU seconds of reading and decoding, of all nodes.
    window_bytes
        Memory of batches of a process at most, tensors and stored bytes.
    depth
        Reads that a process has under way at most, in the end.
    bound_by
        What decides the time: ``step``, ``network``, ``cores``, ``interpreter``, ``requests`` (the store refuses more) or
        ``latency``.
    busy
        Shares of the time in which the network, the cores and the interpreter's lock work.
    n_steps, n_simulated_steps, n_simulated_nodes
        Steps of the epoch, and what was simulated of it.
    """

    epoch_s: float
    first_batch_s: float
    wait_s: float
    wait_share: float
    samples_per_s: float
    egress_bytes: float
    n_requests: float
    n_refused: float
    n_hedges: float
    cost: float
    hit_share: float
    core_s: float
    window_bytes: int
    depth: int
    bound_by: str
    busy: dict[str, float]
    n_steps: int
    n_simulated_steps: int
    n_simulated_nodes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as JSON-able values."""
        return asdict(self)


def simulate(workload: Workload, setting: Setting, calibration: Calibration) -> EpochForecast:
    """Simulate an epoch. Pure: the same values give the same forecast."""
    n_nodes = min(setting.simulated_nodes, setting.n_nodes)
    n_ranks = n_nodes * setting.gpus_per_node
    per_step = max(workload.n_reads / workload.n_steps / workload.n_ranks, 1e-9)
    affordable = math.ceil(setting.max_reads / per_step / n_ranks)
    n_steps = min(workload.n_steps, max(affordable, _windows(workload, setting)))
    nodes = _nodes(workload, setting, n_nodes)
    # At the end of an epoch nothing is read ahead that slows its last batches; elsewhere something always is.
    n_batches = n_steps if n_steps == workload.n_steps else None
    batches = [islice(_costs(workload, rank, calibration), n_batches) for rank in range(n_ranks)]
    trace = train(nodes, n_steps, batches)
    return _forecast(trace, workload, setting, nodes)


def _windows(workload: Workload, setting: Setting) -> int:
    """Return the number of steps in which a window is filled and emptied several times."""
    in_flight = (workload.tensor_bytes + workload.read_bytes) / workload.n_samples * workload.batch_size
    return MIN_WINDOWS * (math.ceil(setting.options.max_inflight_bytes / in_flight) + 2)


def costs_of(batch: BatchShape, kinds: tuple[str, ...], calibration: Calibration) -> BatchCost:
    """Return what a batch costs on a machine."""
    c = calibration
    gb = batch.n_bytes / 1e9
    beside_s = c.read_s + c.block_s * batch.n_blocks
    decode_s = batch.decoded_bytes @ np.array([c.decode_s(kind) for kind in kinds]) / 1e9
    columns = (
        batch.n_bytes,
        c.request_s + c.request_s_per_gb * gb,
        decode_s + beside_s,
        beside_s,
        c.hit_s + c.hit_s_per_gb * gb,
        c.miss_s + c.miss_s_per_gb * gb,
    )
    reads = [ReadCost(*values) for values in zip(*(c.tolist() for c in columns), strict=True)]
    n_bytes = batch.tensor_bytes + int(batch.n_bytes.sum())
    return BatchCost(
        reads,
        n_bytes,
        batch.tensor_bytes,
        plan_s=c.batch_s / 2,
        form_s=c.batch_s / 2,
        n_steps=batch.n_steps,
        fresh_s_per_byte=c.fresh_s_per_gb / 1e9,
    )


def _costs(workload: Workload, rank: int, calibration: Calibration) -> Iterator[BatchCost]:
    known: dict[BatchShape, BatchCost] = {}  # by identity: batches come again in turn
    for batch in workload.of_rank(rank):
        found = known.get(batch)
        if found is None:
            found = known[batch] = costs_of(batch, workload.kinds, calibration)
        yield found


def _nodes(workload: Workload, setting: Setting, n_nodes: int) -> NodesSetting:
    """Return the simulated nodes, with their share of what all nodes share."""
    share = n_nodes / setting.n_nodes
    batch_bytes = workload.tensor_bytes / workload.n_samples * workload.batch_size
    hit_share = setting.hit_share(workload.read_bytes)
    options = setting.options
    if setting.cache_bytes and options.cache_dir is None:
        options = replace(options, cache_dir="cache")
    return NodesSetting(
        n_nodes=n_nodes,
        ranks_per_node=setting.gpus_per_node,
        n_cores=setting.n_cores,
        store=StoreSetting(setting.latency, setting.requests_per_s * share, setting.refused_share),
        options=options,
        bandwidth_bytes_s=min(setting.bandwidth_bytes_s, setting.store_bytes_s / setting.n_nodes),
        connection_bytes_s=setting.connection_bytes_s,
        step_s=setting.step_s,
        copy_s=batch_bytes / setting.copy_bytes_s,
        steps_ahead=setting.steps_ahead,
        hit_share=hit_share,
        is_local=setting.is_local,
        seed=setting.seed,
    )


def _forecast(trace: Trace, workload: Workload, setting: Setting, nodes: NodesSetting) -> EpochForecast:
    ended_s = trace.ended_s
    n_ranks = nodes.n_nodes * nodes.ranks_per_node
    n, n_epoch = len(ended_s), workload.n_steps
    warm = 0 if n == n_epoch else min(int(n * WARM_SHARE), n - 2)
    missed = 1 - (trace.n_hits / trace.n_reads if trace.n_reads else 0.0)
    core_s = trace.core_s / max(trace.n_reads, 1) * workload.n_reads
    network_s = workload.read_bytes * missed / nodes.bandwidth_bytes_s / setting.n_nodes
    least_s = max(network_s, core_s / setting.n_cores / setting.n_nodes) / n_epoch
    epoch_s = ended_s[-1]
    if n < n_epoch:
        # Windows may still grow or shrink: what lasts is the rate at which reads come, but for the model's own.
        n_reads = max(trace.n_done[-1] - trace.n_done[warm], 1) / n_ranks
        each_s = (ended_s[-1] - ended_s[warm]) / n_reads * (workload.n_reads / n_epoch / workload.n_ranks)
        epoch_s += (n_epoch - n) * max(each_s, least_s, setting.step_s)
    wait_s = max(epoch_s - n_epoch * setting.step_s, 0.0)
    again = trace.n_requests / max(trace.n_reads - trace.n_hits, 1)
    hedged = 1 + trace.n_hedges / max(trace.n_reads - trace.n_hits, 1)
    n_requests = workload.n_reads * missed * again
    egress_bytes = workload.read_bytes * missed * hedged
    busy = _busy(trace, nodes)
    return EpochForecast(
        epoch_s=epoch_s,
        first_batch_s=trace.began_s[0],
        wait_s=wait_s,
        wait_share=wait_s / epoch_s if epoch_s else 0.0,
        samples_per_s=workload.n_samples / epoch_s if epoch_s else math.inf,
        egress_bytes=egress_bytes,
        n_requests=n_requests,
        n_refused=trace.n_refused / max(trace.n_requests, 1) * n_requests,
        n_hedges=trace.n_hedges / max(trace.n_requests, 1) * n_requests,
        cost=n_requests / 1000 * setting.price_per_1000_requests + egress_bytes / 1e9 * setting.price_per_gb,
        hit_share=1 - missed,
        core_s=core_s,
        window_bytes=trace.peak_bytes,
        depth=trace.depth,
        bound_by=_bound_by(wait_s / epoch_s if epoch_s else 0.0, busy, trace),
        busy=busy,
        n_steps=n_epoch,
        n_simulated_steps=n,
        n_simulated_nodes=nodes.n_nodes,
    )


def _busy(trace: Trace, nodes: NodesSetting) -> dict[str, float]:
    total_s = trace.ended_s[-1] or math.inf
    return {
        "network": min(trace.read_bytes / nodes.bandwidth_bytes_s / nodes.n_nodes / total_s, 1.0),
        "cores": min(trace.core_s / nodes.n_cores / nodes.n_nodes / total_s, 1.0),
        "interpreter": min(trace.lock_s / total_s, 1.0),
    }


def _bound_by(wait_share: float, busy: dict[str, float], trace: Trace) -> str:
    if wait_share < NO_WAIT:
        return "step"
    most = max(busy, key=lambda name: busy[name])
    if busy[most] >= BUSY:
        return most
    return "requests" if trace.n_refused > 0.01 * trace.n_requests else "latency"
