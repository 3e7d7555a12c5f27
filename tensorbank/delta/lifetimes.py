"""The lifetimes of a Delta table's files: from which version on each is there, and from which it is not, by its commits.

What a version holds is asked for one version elsewhere (:func:`tensorbank.delta.read_version`); of a thousand versions, this
takes as long as of one. Where the first commits are gone, a checkpoint stands for them.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tensorbank.errors import ErrorKind, IntegrityError, NotFoundError
from tensorbank.index_files import LOG, LogCopy, check_commit, checkpoint_name, commit_name, data_path

__all__ = ["Lifetimes", "read_lifetimes"]

NEVER = 1 << 62


@dataclass(frozen=True)
class Lifetimes:
    """The files of a log, and what its commits say.

    Parameters
    ----------
    first, last
        Versions from which on, and up to which, everything is known.
    files
        Half-open intervals of versions that have a file, by the file's key.
    transactions
        The transactions that are known at a version, by version; those versions that changed one.
    times_ms
        The time of each commit that is there, since 1970, by version.
    """

    first: int
    last: int
    files: Mapping[str, Sequence[tuple[int, int]]]
    transactions: Mapping[int, Mapping[str, int]]
    times_ms: Mapping[int, int]

    def needed(self, versions: Sequence[int]) -> set[str]:
        """Return the keys of the files that some versions, sorted, have."""
        found = set()
        for key, intervals in self.files.items():
            for first, last in intervals:
                at = bisect_left(versions, first)
                if at < len(versions) and versions[at] < last:
                    found.add(key)
                    break
        return found

    def transactions_at(self, version: int) -> Mapping[str, int]:
        """Return the transactions as they are at a version."""
        known = list(self.transactions)
        at = bisect_right(known, version)
        return self.transactions[known[at - 1]] if at else {}


def read_lifetimes(log: LogCopy, at: Callable[[int], LogCopy], key: str, where: str) -> Lifetimes:
    """Read all commits of a whole log.

    Parameters
    ----------
    at
        Callable that returns the log up to a version, with the checkpoint that it begins with.
    key, where
        Key and URL of the table.

    Raises
    ------
    IntegrityError, FormatError
        A file of the log is damaged, or missing in between.
    """
    there = {name for name in log.names if name.endswith(".json")}
    first = _first(log.version, there, at)
    begun: dict[str, int] = {}
    intervals: dict[str, list[tuple[int, int]]] = {}
    said: dict[str, int] = {}
    transactions: dict[int, dict[str, int]] = {}
    times: dict[int, int] = {}
    if first > 0:
        for path in _in_checkpoint(at(first).folder / LOG / checkpoint_name(first), said):
            begun[f"{key}/{data_path(path, where)}"] = first
        transactions[first] = dict(said)
    for version in range(first, log.version + 1):
        url = f"{where}/{LOG}/{commit_name(version)}"
        actions = _read(log.folder / LOG / commit_name(version), url)
        times[version] = next(
            (int(a["commitInfo"].get("timestamp") or 0) for a in actions if "commitInfo" in a), 0
        )
        if version == first > 0:
            continue  # the checkpoint has the rest
        for action in actions:
            if "add" in action:
                begun.setdefault(f"{key}/{data_path(action['add']['path'], where)}", version)
            elif "remove" in action:
                gone = f"{key}/{data_path(action['remove']['path'], where)}"
                if gone in begun:
                    intervals.setdefault(gone, []).append((begun.pop(gone), version))
            elif "txn" in action:
                said[str(action["txn"]["appId"])] = int(action["txn"]["version"])
                transactions[version] = dict(said)
    for name, version in begun.items():
        intervals.setdefault(name, []).append((version, NEVER))
    return Lifetimes(first, log.version, intervals, transactions, times)


def _first(newest: int, there: Collection[str], at: Callable[[int], LogCopy]) -> int:
    """Return the version from which on all commits are there, and before which a checkpoint stands for those that are not."""
    first = newest
    while first > 0 and commit_name(first - 1) in there:
        first -= 1
    if first == 0:
        return 0
    for version in range(first, newest + 1):
        with suppress(NotFoundError, IntegrityError):
            if checkpoint_name(version) in at(version).names:
                return version
    at(newest)  # says what is missing
    return newest


def _read(path: Path, url: str) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
        check_commit(data, url)
        return [json.loads(line) for line in data.splitlines() if line]
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"the log file {url} is damaged: {error}; restore it", kind=ErrorKind.DAMAGED_LOG
        ) from error


def _in_checkpoint(path: Path, said: dict[str, int]) -> list[str]:
    """Return the paths of the files that a checkpoint has, and note its transactions."""
    columns = pq.read_schema(path).names
    rows = pq.read_table(path, columns=[n for n in ("add", "txn") if n in columns]).to_pylist()
    for row in rows:
        if row.get("txn"):
            said[str(row["txn"]["appId"])] = int(row["txn"]["version"])
    return [row["add"]["path"] for row in rows if row.get("add")]
