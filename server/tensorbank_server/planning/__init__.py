"""Plans of callers: kept in a folder, found again after a restart, and handed out in tasks."""

from __future__ import annotations

from tensorbank_server.planning.plan_store import PlanRequest, PlanStore, StoredPlan, plan_sql
from tensorbank_server.planning.task_pages import ARROW

__all__ = [
    "ARROW",
    "PlanRequest",
    "PlanStore",
    "StoredPlan",
    "plan_sql",
]
