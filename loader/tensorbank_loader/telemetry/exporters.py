"""A loader's statistics for Prometheus and OpenTelemetry.

Both read :meth:`tensorbank_loader.DataLoader.stats` when they are asked, and cost nothing in between. Their libraries come with
the extra ``tensorbank[telemetry]`` and are imported by the functions that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_loader.telemetry.loader_stats import LoaderStats

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family

__all__ = ["METRICS", "HasStats", "LoaderCollector", "Metric", "export_opentelemetry", "export_prometheus"]

LABEL = "loader"
"""The label of metrics that holds a loader's name."""


class HasStats(Protocol):
    """An object with statistics, such as a loader."""

    def stats(self) -> LoaderStats:
        """Return the counts and times so far. May be called by any thread."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of the statistics, as a metric.

    Parameters
    ----------
    field
        Path of the number in :class:`LoaderStats`.
    noun
        Name of the number in metrics, without unit.
    kind
        ``counter`` if it only grows, ``gauge`` if it is of this moment.
    unit
        ``seconds``, ``bytes``, or nothing for a count.
    help
        Description of the number.
    """

    field: str
    noun: str
    kind: Literal["counter", "gauge"]
    unit: Literal["seconds", "bytes", ""]
    help: str

    @property
    def prometheus(self) -> str:
        """The name by Prometheus' conventions, without ``_total``."""
        return "_".join(word for word in ("tensorbank_loader", self.noun, self.unit) if word)

    @property
    def opentelemetry(self) -> tuple[str, str]:
        """The name and the unit by OpenTelemetry's conventions."""
        return f"tensorbank.loader.{self.noun}", {"seconds": "s", "bytes": "By", "": "1"}[self.unit]


METRICS = (
    Metric("batches", "batches", "counter", "", "Batches handed to the consumer."),
    Metric("samples", "samples", "counter", "", "Samples handed to the consumer."),
    Metric("tensor_bytes", "tensor", "counter", "bytes", "Decoded bytes handed to the consumer."),
    Metric("requests", "requests", "counter", "", "Ranges that arrived from the store."),
    Metric("bytes_read", "read", "counter", "bytes", "Bytes that arrived, holes and refetches included."),
    Metric("bytes_asked", "asked", "counter", "bytes", "Bytes of blocks that somebody wanted."),
    Metric("refetches", "refetches", "counter", "", "Reads made again for a bad block."),
    Metric("retries", "retries", "counter", "", "Reads made again for an error of the store."),
    Metric("hedges", "hedges", "counter", "", "Second requests for late reads."),
    Metric("hedges_won", "hedges_won", "counter", "", "Second requests that answered before the first."),
    Metric("stalls", "stalls", "counter", "", "Requests made again because nothing came."),
    Metric("cache.hits", "cache_hits", "counter", "", "Ranges that the local cache had."),
    Metric("cache.misses", "cache_misses", "counter", "", "Ranges that the local cache lacked."),
    Metric("cache.hit_bytes", "cache_hit", "counter", "bytes", "Bytes that came from the local cache."),
    Metric("cache.dropped", "cache_dropped", "counter", "", "Cached ranges that were damaged on the disk."),
    Metric("fetch_s", "fetch", "counter", "seconds", "Time in requests, summed over threads."),
    Metric(
        "decode_s", "decode", "counter", "seconds", "Time in verifying and decoding, summed over threads."
    ),
    Metric("wait_s", "wait", "counter", "seconds", "Time the consumer waited for batches."),
    Metric("step_s", "step", "counter", "seconds", "Time the loader waited for the consumer."),
    Metric("transform_s", "transform", "counter", "seconds", "Time in the transform."),
    Metric("skipped", "skipped", "counter", "", "Modalities of samples left out for damage."),
    Metric("n_ahead", "ahead_batches", "gauge", "", "Batches under way or waiting for the consumer."),
    Metric("inflight_bytes", "inflight", "gauge", "bytes", "Memory of those batches."),
    Metric("depth", "depth", "gauge", "", "Requests that are kept under way."),
    Metric("away_s", "away", "gauge", "seconds", "Time since the store last answered, 0 while it does."),
    Metric("latency_p50_s", "latency_p50", "gauge", "seconds", "Median of the times of recent reads."),
    Metric(
        "latency_p99_s", "latency_p99", "gauge", "seconds", "99th percentile of the times of recent reads."
    ),
)
GAP_HELP = "Gaps between two steps: the waits for batches one by one."
"""The description of the histogram of gaps."""


class LoaderCollector:
    """A collector for ``prometheus_client``: metrics of some loaders, each under its name in the label ``loader``."""

    def __init__(self, loaders: Mapping[str, HasStats]) -> None:
        self._loaders = dict(loaders)

    def collect(self) -> Iterator[Family]:
        """Yield the current statistics of every loader."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        now = {name: loader.stats() for name, loader in self._loaders.items()}
        for metric in METRICS:
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.prometheus, metric.help, labels=[LABEL])
            for name, stats in now.items():
                family.add_metric([name], attrgetter(metric.field)(stats))
            yield family
        gaps = HistogramMetricFamily("tensorbank_loader_gap_seconds", GAP_HELP, labels=[LABEL])
        for name, stats in now.items():
            buckets = [
                ("+Inf" if edge == float("inf") else repr(edge), n) for edge, n in stats.gaps.cumulative()
            ]
            gaps.add_metric([name], buckets, stats.gaps.sum_s)
        yield gaps


def export_prometheus(
    loaders: Mapping[str, HasStats], registry: CollectorRegistry | None = None
) -> LoaderCollector:
    """Show the statistics of loaders, by name, in a registry of ``prometheus_client``; None: the default one.

    The registry holds the loaders until the returned collector is unregistered.

    Raises
    ------
    InvalidInputError
        The library is not installed.
    """
    try:
        from prometheus_client import REGISTRY
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    collector = LoaderCollector(loaders)
    (registry or REGISTRY).register(collector)
    return collector


def export_opentelemetry(loaders: Mapping[str, HasStats], meter: Meter | None = None) -> None:
    """Show the statistics of loaders, by name, by instruments of an OpenTelemetry meter; None: one of the global provider.

    The meter holds the loaders as long as it lives.

    Raises
    ------
    InvalidInputError
        The library is not installed.
    """
    try:
        from opentelemetry.metrics import get_meter
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    meter = meter or get_meter("tensorbank.loader")
    held = dict(loaders)
    for metric in METRICS:
        name, unit = metric.opentelemetry
        create = (
            meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
        )
        create(name, [_observer(held, metric.field)], unit, metric.help)
    for field, q in (("gap_p50_s", "median"), ("gap_p99_s", "99th percentile")):
        name = f"tensorbank.loader.{field.removesuffix('_s')}"
        meter.create_observable_gauge(
            name, [_observer(held, field)], "s", f"{q.capitalize()} gap between two steps."
        )


def _observer(loaders: Mapping[str, HasStats], field: str) -> Callable[[CallbackOptions], list[Observation]]:
    """Return a callback that observes one field of the statistics of each loader."""
    from opentelemetry.metrics import Observation

    def observe(_: Any) -> list[Observation]:
        return [
            Observation(attrgetter(field)(loader.stats()), {LABEL: name}) for name, loader in loaders.items()
        ]

    return observe


def _missing(error: ModuleNotFoundError) -> InvalidInputError:
    return InvalidInputError(
        f"this needs {error.name}; pip install 'tensorbank[telemetry]'", kind=ErrorKind.MISSING_EXTRA
    )
