"""Metrics of one service, for Prometheus. No caller, filter or sample is a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

import tensorbank

__all__ = ["Metrics"]

BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The metrics of one service, in a registry of their own: two services in one process share none."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        info = Gauge("tensorbank_build_info", "Version of the service.", ["version"], registry=r)
        info.labels(tensorbank.__version__).set(1)
        self.request_s = Histogram(
            "http_server_request_duration_seconds",
            "Time from the first byte of a request to the last byte of its answer.",
            ["http_request_method", "http_route", "http_response_status_code"],
            registry=r,
            buckets=BUCKETS_S,
        )
        self.running = Gauge("http_server_active_requests", "Requests under way.", registry=r)
        self.sent_bytes = Counter(
            "http_server_response_body_bytes", "Bytes sent in bodies.", ["http_route"], registry=r
        )
        self.rejected = Counter(
            "tensorbank_query_rejected", "Requests refused before they ran.", ["code"], registry=r
        )
        self.rate_store_failures = Counter(
            "tensorbank_rate_store_failures",
            "Questions that the store of the limits did not answer.",
            registry=r,
        )
        self.bank_up = Gauge(
            "tensorbank_bank_up", "1 while a bank can be read, else 0.", ["bank"], registry=r
        )
        self.data_folder_up = Gauge(
            "tensorbank_data_folder_up", "1 while the service can write its folders, else 0.", registry=r
        )
        self.plan_s = Histogram(
            "tensorbank_plan_duration_seconds",
            "Time for making a plan.",
            ["bank"],
            registry=r,
            buckets=BUCKETS_S,
        )
        self.plan_shards_scanned = Counter(
            "tensorbank_plan_shards_scanned",
            "Shard groups that a plan could not rule out.",
            ["bank"],
            registry=r,
        )
        self.plan_shards_skipped = Counter(
            "tensorbank_plan_shards_skipped", "Shard groups that a plan ruled out.", ["bank"], registry=r
        )
        self.worker_restarts = Counter(
            "tensorbank_query_worker_restarts", "Workers that were replaced.", ["reason"], registry=r
        )
        self.presigned = Counter("tensorbank_presign", "URLs that were signed.", ["bank"], registry=r)
        self.read_bytes = Counter(
            "tensorbank_read_bytes", "Stored bytes read for samples.", ["bank"], registry=r
        )

    def text(self) -> bytes:
        """Return the metrics in the exposition format of Prometheus."""
        return generate_latest(self.registry)
