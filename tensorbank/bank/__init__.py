"""Banks, tables and snapshots: what a user opens, and the engine that answers for it."""

from __future__ import annotations

from tensorbank.bank.bank import Bank
from tensorbank.bank.engine import Engine, Snapshot
from tensorbank.bank.local_engine import LocalEngine
from tensorbank.bank.table import Table

__all__ = ["Bank", "Engine", "LocalEngine", "Snapshot", "Table"]
