"""Forecast the time and cost of streaming a plan on a given machine: a model, written down. Pure.

* network: ``read_bytes / bandwidth``, the pipe being full;
* latency: ``n_requests * round trip / requests in flight``, each connection waiting for its first byte;
* decoding: ``tensor_bytes / (cores * decode rate)``; one core decodes 2,000 MB/s of the codec profile
  ``balanced``, less than half as much of ``small``, and 1.6 times as much of ``hot``.

The three run side by side, so the longest decides. Cost is requests and egress at the given prices.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorbank.errors import InvalidInputError

__all__ = ["DECODE_MB_PER_S", "Forecast", "Price", "forecast"]

DECODE_MB_PER_S = 2000.0
"""The decoded MB/s of one core for profile ``balanced``."""


@dataclass(frozen=True, slots=True)
class Price:
    """The prices of a store, in any one currency.
    The defaults are those of a bucket read in its own region.
    """

    per_1000_requests: float = 0.0004
    per_gb: float = 0.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast of one epoch: bytes, requests, seconds by cause, and cost.
    ``seconds`` is the longest of the three causes.
    """

    read_bytes: int
    n_requests: int
    network_s: float
    latency_s: float
    decode_s: float
    cost: float

    @property
    def seconds(self) -> float:
        return max(self.network_s, self.latency_s, self.decode_s)

    @property
    def bound_by(self) -> str:
        """The slowest of ``network``, ``latency`` and ``decode``, which decides the time."""
        causes = {"network": self.network_s, "latency": self.latency_s, "decode": self.decode_s}
        return max(causes, key=lambda name: causes[name])

    def __str__(self) -> str:
        return (
            f"{self.read_bytes / 1e9:,.2f} GB in {self.n_requests:,} requests: {self.seconds:,.1f} s, bound by {self.bound_by} "
            f"(network {self.network_s:,.1f}, latency {self.latency_s:,.1f}, decode {self.decode_s:,.1f}), cost {self.cost:,.4f}"
        )


def forecast(
    *,
    read_bytes: int,
    tensor_bytes: int,
    n_requests: int,
    network_gbps: float,
    rtt_ms: float,
    cores: int,
    n_inflight: int,
    price: Price,
) -> Forecast:
    """Apply the model.

    Parameters
    ----------
    network_gbps
        Bandwidth of the reading machine, gigabits a second.
    rtt_ms
        Time to first byte of one request.
    n_inflight
        Requests that wait at the same time.

    Raises
    ------
    InvalidInputError
        A rate is not positive.
    """
    if min(network_gbps, cores, n_inflight) <= 0 or rtt_ms < 0:
        raise InvalidInputError(
            f"a forecast needs positive rates, got {network_gbps=}, {rtt_ms=}, {cores=}, {n_inflight=}"
        )
    return Forecast(
        read_bytes=read_bytes,
        n_requests=n_requests,
        network_s=read_bytes / (network_gbps * 1e9 / 8),
        latency_s=n_requests * rtt_ms / 1e3 / n_inflight,
        decode_s=tensor_bytes / (cores * DECODE_MB_PER_S * 1e6),
        cost=n_requests / 1000 * price.per_1000_requests + read_bytes / 1e9 * price.per_gb,
    )
