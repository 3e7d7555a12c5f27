"""The setting of a forecast: machines, network, store, prices, and how fast the model is. A value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tensorbank.arguments import number, whole_number
from tensorbank.fetch import FetchOptions
from tensorbank_simulation.latency import Latency

__all__ = ["Setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A training on some nodes, each with some GPUs, and one process a GPU.

    Parameters
    ----------
    n_nodes, gpus_per_node
        Nodes, and GPUs of each.
    step_s
        Seconds of the model's step on one batch of each GPU.
    n_cores
        Cores of a node.
    bandwidth_bytes_s, connection_bytes_s
        Bytes a second of a node's network, and of one connection at most.
    store_bytes_s, requests_per_s
        Bytes and requests a second of the store for all nodes together. Requests beyond are refused, and asked again.
    latency
        Time to the first byte.
    refused_share
        Share of requests that the store refuses whatever their rate.
    price_per_1000_requests, price_per_gb
        Prices, in any one currency; a GB leaves the store.
    cache_bytes
        Bytes of a cache on the local disk of each node; 0 for none.
    epoch
        Number of the epoch, from 1 on: a cache knows what its node has read in those before.
    copy_bytes_s
        Bytes a second of copies to the device; infinite where the consumer is the host.
    steps_ahead
        Steps that the host is ahead of the device; 0 where the consumer is the host.
    options
        Options of the loader.
    is_local
        True if the bytes come from a local disk.
    seed
        Seed of all draws.
    simulated_nodes
        Most nodes that are simulated; they stand for all.
    max_reads
        Reads that are simulated, about; the epoch goes on as they end.

    Raises
    ------
    InvalidInputError
        A number makes no sense; the message names it.
    """

    n_nodes: int = 1
    gpus_per_node: int = 1
    step_s: float = 0.0
    n_cores: int = 2
    bandwidth_bytes_s: float = math.inf
    connection_bytes_s: float = math.inf
    store_bytes_s: float = math.inf
    requests_per_s: float = math.inf
    latency: Latency = field(default_factory=lambda: Latency.constant(0.02))
    refused_share: float = 0.0
    price_per_1000_requests: float = 0.0004
    price_per_gb: float = 0.0
    cache_bytes: float = 0.0
    epoch: int = 1
    copy_bytes_s: float = math.inf
    steps_ahead: int = 0
    options: FetchOptions = field(default_factory=FetchOptions)
    is_local: bool = False
    seed: int = 0
    simulated_nodes: int = 2
    max_reads: int = 30_000

    def __post_init__(self) -> None:
        for name in ("n_nodes", "gpus_per_node", "n_cores", "epoch", "simulated_nodes", "max_reads"):
            whole_number(name, getattr(self, name), at_least=1)
        whole_number("steps_ahead", self.steps_ahead, at_least=0)
        number("step_s", self.step_s, at_least=0)
        number("refused_share", self.refused_share, at_least=0, at_most=0.9)
        for name in (
            "bandwidth_bytes_s",
            "connection_bytes_s",
            "store_bytes_s",
            "requests_per_s",
            "copy_bytes_s",
        ):
            number(name, getattr(self, name), above=0, finite=False)
        for name in ("price_per_1000_requests", "price_per_gb", "cache_bytes"):
            number(name, getattr(self, name), at_least=0)

    @property
    def n_ranks(self) -> int:
        """The number of processes of all nodes."""
        return self.n_nodes * self.gpus_per_node

    def hit_share(self, stored_bytes: float) -> float:
        """Return the share of an epoch's bytes that a node's cache has.

        A node reads another random ``1 / n_nodes`` of all samples in each epoch, so after ``e`` of them it has seen
        ``1 - (1 - 1 / n_nodes) ** e``, and keeps what fits: what is there is not thrown out for what comes.
        """
        if not self.cache_bytes or not stored_bytes:
            return 0.0
        seen = 1 - (1 - 1 / self.n_nodes) ** (self.epoch - 1)
        return min(seen, self.cache_bytes / stored_bytes)
