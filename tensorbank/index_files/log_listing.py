"""Lists of the files of logs: from the newest commit that was met on, since a log grows with each commit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

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
            there = found.get(commit_name(newest))
            if there is not None and there.tag == tail[commit_name(newest)].tag:
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

        Only for a folder: with a store it is more requests than a list.
        """
        if self._folder is None:
            return {}
        try:
            hint = (self._folder / key / LOG / LAST_CHECKPOINT).read_bytes()
            last = int(json.loads(hint)["version"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        first = self._looked_for(key, commit_name(0))
        if first is None or last < 0 or (version is not None and version < last):
            return {}
        found = {commit_name(0): first, **self._from(key, last)}
        return found if {checkpoint_name(last), commit_name(last)} <= found.keys() else {}

    def _from(self, key: str, version: int) -> dict[str, ObjectInfo]:
        """Return the files of a log from a version on.

        They are numbered, and in a folder looked for one after the other: to list thousands takes longer.
        """
        if self._folder is None:
            return self._listed(key, after=f"{version:020}")
        found: dict[str, ObjectInfo] = {}
        while True:
            for name in (commit_name(version), checkpoint_name(version), seal_name(version)):
                if (info := self._looked_for(key, name)) is not None:
                    found[name] = info
            if commit_name(version) not in found:
                return found
            version += 1

    def _looked_for(self, key: str, name: str) -> ObjectInfo | None:
        """Return what a list of a folder would say of a file, None if it is not there, or cannot be looked at.

        The tag is made as the list makes it: were it another one, all would be listed again.
        """
        path = f"{key}/{LOG}/{name}"
        try:
            found = os.stat(f"{self._folder}/{path}")  # noqa: PTH116 - a Path takes several times as long as the look
        except OSError:
            return None
        tag = f'"{found.st_ino:x}-{found.st_mtime_ns // 1000:x}-{found.st_size:x}"'
        return ObjectInfo(path, found.st_size, tag, found.st_mtime)

    def _listed(self, key: str, after: str = "") -> dict[str, ObjectInfo]:
        """List the files of a log by name, from a name on."""
        folder = f"{key}/{LOG}/"
        found = self._store.objects(f"{key}/{LOG}", LATE_S, after=f"{folder}{after}" if after else "")
        names = {info.key.removeprefix(folder): info for info in found}
        return {name: info for name, info in names.items() if _OF_VERSION.match(name) and "/" not in name}
