"""Monitoring of a service by its operator: logs, the audit log, and metrics."""

from __future__ import annotations

from tensorbank_server.monitoring.logs import AuditLog, JsonLines
from tensorbank_server.monitoring.metrics import Metrics

__all__ = ["AuditLog", "JsonLines", "Metrics"]
