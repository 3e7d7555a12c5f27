"""The versions of a table, as the commits of its log tell them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tensorbank.errors import ErrorKind, IntegrityError
from tensorbank.index_files import LOG, LogCopy, check_commit, commit_name

__all__ = ["SnapshotInfo", "read_history"]

_OWN = "tensorbank."
_HIDDEN = frozenset({"crc32c", "operation", "part", "who", "n_rows", "id", "place"})


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One version of the samples table in the history.

    ``timestamp_ms`` is since 1970, ``n_rows`` the number of rows of samples that were added, ``who`` the user and machine that
    committed. ``details`` is what the operation says of itself: source, revision, what it changed.
    """

    version: int
    timestamp_ms: int
    operation: str
    part: str | None
    n_rows: int
    who: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def when(self) -> datetime:
        """The time in UTC, to the second."""
        return datetime.fromtimestamp(self.timestamp_ms // 1000, UTC)


def read_history(log: LogCopy, where: str) -> list[SnapshotInfo]:
    """Return the versions whose commits a whole log has, newest first.

    Raises
    ------
    IntegrityError
        A commit is damaged.
    """
    found = []
    for version in range(log.version, -1, -1):
        path = log.folder / LOG / commit_name(version)
        if path.name not in log.names:
            continue
        found.append(_info(version, list(_actions(path, where))))
    return found


def _actions(path: Path, where: str) -> Iterator[Mapping[str, Any]]:
    url = f"{where}/{LOG}/{path.name}"
    try:
        data = path.read_bytes()
        check_commit(data, url)
        for line in data.decode("utf-8").splitlines():
            if line:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"the log file {url} is damaged: {error}; restore it",
            kind=ErrorKind.DAMAGED_LOG,
        ) from error


def _info(version: int, actions: list[Mapping[str, Any]]) -> SnapshotInfo:
    info: Mapping[str, Any] = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
    own = {name.removeprefix(_OWN): value for name, value in info.items() if name.startswith(_OWN)}
    metrics = info.get("operationMetrics")
    n_rows = own.get("n_rows", metrics.get("num_added_rows", 0) if isinstance(metrics, Mapping) else 0)
    return SnapshotInfo(
        version=version,
        timestamp_ms=int(info.get("timestamp") or 0),
        operation=str(own.get("operation") or info.get("operation") or "").lower(),
        part=own.get("part"),
        n_rows=int(n_rows or 0),
        who=str(own.get("who", "")),
        details={name: value for name, value in own.items() if name not in _HIDDEN},
    )
