"""Statistics of a loader: as a value, as a line of progress, and for Prometheus and OpenTelemetry."""

from __future__ import annotations

from tensorbank_loader.telemetry.exporters import export_opentelemetry, export_prometheus
from tensorbank_loader.telemetry.loader_stats import LoaderStats, Meter

__all__ = [
    "LoaderStats",
    "Meter",
    "export_opentelemetry",
    "export_prometheus",
]
