"""Plans of callers: kept in a folder, found again after a restart, and handed out in tasks."""

from __future__ import annotations

from tensorbank_server.planning.plan_folder import OpenedPlan, PlanFolder
from tensorbank_server.planning.plan_requests import PlanRequest, plan_sql
from tensorbank_server.planning.plan_store import PlanStore, StoredPlan
from tensorbank_server.planning.task_pages import ARROW

__all__ = [
    "ARROW",
    "OpenedPlan",
    "PlanFolder",
    "PlanRequest",
    "PlanStore",
    "StoredPlan",
    "plan_sql",
]
