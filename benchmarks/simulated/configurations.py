"""The configurations: what is read, over which network, by which options, for which model. Values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tensorbank.fetch import FetchOptions
from tensorbank.testing import Faults

__all__ = ["CONFIGURATIONS", "Configuration"]

MB = 1_000_000
FEW = ("S1RTC", "DEM")
PICTURES = ("S2L2A",)
BANDS = ("bands(S2L2A, ['B02', 'B08', 'B11'])", "DEM")
ALL = ("S2L2A", "S2L1C", "S2RGB", "S1RTC", "DEM", "NDVI", "LULC")


@dataclass(frozen=True, slots=True)
class Configuration:
    """One run of a loader.

    Parameters
    ----------
    name
        What is special about it.
    columns
        Modalities.
    n_batches, batch_size
        Length of the run.
    step_s
        Seconds that the consumer takes for a batch.
    where
        ``limited``, a server of given faults; ``loopback``, one that is as fast as it can; ``disk``.
    cached_share
        Share of the batches that is in the cache before; None without a cache.
    profile
        Codec profile: where it is not None, made-up samples of 12 bands are read instead of the bank's.
    """

    name: str
    columns: tuple[str, ...]
    n_batches: int
    batch_size: int = 16
    step_s: float = 0.0
    where: Literal["limited", "loopback", "disk"] = "limited"
    faults: Faults = field(default_factory=Faults)
    options: FetchOptions = field(default_factory=FetchOptions)
    cached_share: float | None = None
    profile: str | None = None


def _network(latency_ms: float, rate_mb_s: float = 0.0, **more: Any) -> Faults:
    return Faults(latency_ms=latency_ms, bandwidth_bytes_s=rate_mb_s * MB, **more)


CONFIGURATIONS = (
    Configuration("the step binds", PICTURES, 24, step_s=0.12, faults=_network(20, 200)),
    Configuration("the step binds, far away", FEW, 24, step_s=0.15, faults=_network(100, 100)),
    Configuration(
        "latency, 8 reads at once", PICTURES, 20, faults=_network(50), options=FetchOptions(n_threads=8)
    ),
    Configuration(
        "latency, 16 reads at once", FEW, 30, faults=_network(100), options=FetchOptions(n_threads=16)
    ),
    Configuration(
        "latency that varies", FEW, 20, faults=_network(15, jitter_ms=10), options=FetchOptions(n_threads=8)
    ),
    Configuration(
        "two batches ahead", PICTURES, 24, faults=_network(60), options=FetchOptions(max_inflight_bytes=0)
    ),
    Configuration(
        "two batches ahead, a step",
        PICTURES,
        24,
        step_s=0.08,
        faults=_network(60),
        options=FetchOptions(max_inflight_bytes=0),
    ),
    Configuration("50 MB/s", PICTURES, 14, faults=_network(20, 50)),
    Configuration("100 MB/s, all modalities", ALL, 10, faults=_network(20, 100)),
    Configuration("80 MB/s, batches of 4", FEW, 120, batch_size=4, faults=_network(10, 80)),
    Configuration("30 MB/s, far away", PICTURES, 8, faults=_network(100, 30)),
    Configuration("50 MB/s and a step that is as fast", PICTURES, 14, step_s=0.2, faults=_network(20, 50)),
    Configuration("a fast step, a slow network", FEW, 20, step_s=0.05, faults=_network(30, 40)),
    Configuration("some bands, 50 MB/s", BANDS, 40, faults=_network(20, 50)),
    Configuration(
        "1 request in 20 refused",
        FEW,
        72,
        faults=_network(10, unavailable=0.05),
        options=FetchOptions(n_threads=16),
    ),
    Configuration("1 read in 50 late by 0.5 s", FEW, 40, faults=_network(20, 60, slow=0.02, slow_s=0.5)),
    Configuration(
        "all in the cache, a step", PICTURES, 10, step_s=0.2, faults=_network(50, 50), cached_share=1.0
    ),
    Configuration("half in the cache", PICTURES, 10, faults=_network(20, 20), cached_share=0.5),
    Configuration("cores, from the disk, profile small", ("X",), 160, where="disk", profile="small"),
    Configuration("cores, loopback, all modalities", ALL, 64, where="loopback"),
)
"""The configurations, by what binds: the step, the latency, the window, the bandwidth, both, the store, the cache, the cores."""
