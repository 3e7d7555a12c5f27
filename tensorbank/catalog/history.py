"""The versions of a table, as its history tells them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["SnapshotInfo"]


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One version of the samples table in the history. ``timestamp_ms`` is since 1970."""

    version: int
    timestamp_ms: int
    operation: str
    part: str | None
    n_rows: int

    @property
    def when(self) -> datetime:
        """The time in UTC, to the second."""
        return datetime.fromtimestamp(self.timestamp_ms // 1000, UTC)
