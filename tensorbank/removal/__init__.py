"""The removal of what no kept version of a table needs: expired versions, and objects that killed writers left."""

from __future__ import annotations

from tensorbank.removal.collection import GRACE, Collected, Collection, collect

__all__ = ["GRACE", "Collected", "Collection", "collect"]
