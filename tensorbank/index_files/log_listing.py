"""Lists of the files of logs: from the newest commit that was met on, since a log grows with each commit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from tensorbank.errors import NotFoundError
from tensorbank.index_files.delta_log import (
    LAST_CHECKPOINT,
    LOG,
    checkpoint_in,
    checkpoint_name,
    commit_name,
    commits_in,
    seal_name,
)
from tensorbank.index_files.static_bank import is_static, log_files
from tensorbank.storage import LATE_S, ObjectInfo, Store

__all__ = ["LogListing"]

_OF_VERSION = re.compile(r"\d{20}\.")


class LogListing:
    """Lists of the logs of one store, which remember where each log ended.

    Parameters
    ----------
    folder
        The folder of a store whose files can be looked for one by one; None for any other.
    """

    def __init__(self, store: Store, folder: Path | None) -> None:
        self._store = store
        self._folder = folder
        self._tails: dict[str, dict[str, ObjectInfo]] = {}  # of logs: their first file, and what is needed

    def files(self, key: str, version: int | None, *, whole: bool) -> dict[str, ObjectInfo]:
        """Return the files of a log by name, those that begin with a version: all that its newest version needs, and maybe more.

        Parameters
        ----------
        key
            Key of the table.
        version
            The version that is asked for, the newest if None.
        whole
            Whether files before the last checkpoint are wanted as well.
        """
        if is_static(self._store):
            return log_files(self._store, key, version, whole=whole)
        if whole:
            return self._listed(key)
        tail = self._tails.get(key)
        if tail is None:
            return self._from_hint(key, version) or self._listed(key)
        newest = max(commits_in(tail))
        if version is None or version >= checkpoint_in(tail):
            found = self._from(key, newest)
            if found.get(commit_name(newest)) == tail[commit_name(newest)]:
                return tail | found
        return self._listed(key)

    def keep(self, key: str, tail: Mapping[str, ObjectInfo]) -> None:
        """Remember the first file of a log, and what its newest version needs."""
        if not is_static(self._store):
            self._tails[key] = dict(tail)

    def forget(self, key: str) -> bool:
        """Forget where a log ended; False if that is not known."""
        return self._tails.pop(key, None) is not None

    def _from_hint(self, key: str, version: int | None) -> dict[str, ObjectInfo]:
        """Return the files of a log from the checkpoint on that its hint names, and its first commit; none if that does not do.

        Only for a folder: to list thousands of files there takes longer than to look for three, and with a store it is a
        request or two.
        """
        if self._folder is None:
            return {}
        try:
            hint = (self._folder / key / LOG / LAST_CHECKPOINT).read_bytes()
            last = int(json.loads(hint)["version"])
            if last < 0 or (version is not None and version < last):
                return {}
            first = self._store.info(f"{key}/{LOG}/{commit_name(0)}")
        except (OSError, ValueError, KeyError, TypeError, NotFoundError):
            return {}
        found = {commit_name(0): first, **self._listed(key, after=f"{last:020}")}
        return found if {checkpoint_name(last), commit_name(last)} <= found.keys() else {}

    def _from(self, key: str, version: int) -> dict[str, ObjectInfo]:
        """Return the files of a log from a version on.

        They are numbered, and in a folder looked for one after the other: to list thousands takes longer.
        """
        if self._folder is None:
            return self._listed(key, after=f"{version:020}")
        found: dict[str, ObjectInfo] = {}
        while True:
            names = commit_name(version), checkpoint_name(version), seal_name(version)
            there = [name for name in names if (self._folder / key / LOG / name).exists()]
            found |= {name: self._store.info(f"{key}/{LOG}/{name}") for name in there}
            if commit_name(version) not in there:
                return found
            version += 1

    def _listed(self, key: str, after: str = "") -> dict[str, ObjectInfo]:
        """List the files of a log by name, from a name on."""
        folder = f"{key}/{LOG}/"
        found = self._store.objects(f"{key}/{LOG}", LATE_S, after=f"{folder}{after}" if after else "")
        names = {info.key.removeprefix(folder): info for info in found}
        return {name: info for name, info in names.items() if _OF_VERSION.match(name) and "/" not in name}
