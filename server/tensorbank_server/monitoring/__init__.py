"""Monitoring of a service by its operator: logs, the audit log, metrics, and traces."""

from __future__ import annotations

from tensorbank_server.monitoring.logs import AuditLog, JsonLines
from tensorbank_server.monitoring.metrics import Metrics
from tensorbank_server.monitoring.traces import Traces

__all__ = ["AuditLog", "JsonLines", "Metrics", "Traces"]
