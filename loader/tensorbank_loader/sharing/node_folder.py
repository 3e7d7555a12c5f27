"""Plans as files of a node, which its processes map: the memory of a node holds a plan once, however many ranks stream it.

A file is there for as long as a process has it open. Who lets go of it last removes it; what killed processes left is removed by
the next to share a plan.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tensorbank.cache import private_folder
from tensorbank.plans import Plan

__all__ = ["NodeFolder", "in_memory"]

WAIT_S = 120.0
"""The most seconds to wait for another process of the node that fetches the same plan."""
POLL_S = 0.02
YOUNG_S = 600.0
"""The seconds for which a file that nobody has open is left alone: others may be about to open it."""
_ENDING = ".plan"


class NodeFolder:
    """The folder of plans that processes of this node share; nothing is made before it is used.

    Parameters
    ----------
    folder
        Folder on a disk of this node, or in its memory, for this user alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_node(cls) -> NodeFolder:
        """Return the folder below that of temporary files, which belongs to the node."""
        return cls(Path(tempfile.gettempdir()) / f"tensorbank-{os.geteuid()}" / "plans")

    def path(self, name: str) -> Path:
        """Return the path of a plan."""
        return self.folder / f"{name}{_ENDING}"

    def put(self, name: str, plan: Plan) -> Plan:
        """Write a plan, and return it as all have it, mapped.

        Raises
        ------
        StorageError, OSError
            The folder takes nothing.
        """
        private_folder(self.folder)
        self._tidy()
        whole = replace(
            plan, table=plan.table.unify_dictionaries().combine_chunks()
        )  # one chunk is read without a copy
        whole.save(self.path(name))
        return self._mapped(name)

    def get(self, name: str, fetch: Callable[[Path], bool]) -> Plan | None:
        """Return a plan, mapped; None if it is not here and cannot be fetched.

        Parameters
        ----------
        fetch
            Callable that writes the plan to a path, and tells whether it could. One process of the node is asked at a time.

        Raises
        ------
        StorageError, OSError
            The folder takes nothing.
        FormatError
            The file is damaged.
        """
        private_folder(self.folder)
        with self._alone(name):
            path = self.path(name)
            if not path.exists():
                self._tidy()
                new = path.with_suffix(f".{os.getpid()}")
                try:
                    if not fetch(new):
                        return None
                    new.replace(path)
                finally:
                    new.unlink(missing_ok=True)
            return self._mapped(name)

    def hold(self, name: str, holder: object) -> None:
        """Keep a file that is there until an object is gone, or this process ends."""
        weakref.finalize(holder, _let_go, _opened(self.path(name)), self.path(name))

    def _mapped(self, name: str) -> Plan:
        file = _opened(self.path(name))
        try:
            plan = Plan.load(f"/proc/self/fd/{file}")  # the path may be gone by now
        except BaseException:
            os.close(file)
            raise
        weakref.finalize(plan.table, _let_go, file, self.path(name))
        return plan

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Hold others off for the block, those of this node that want the same plan; after a while they go on all the same."""
        lock = os.open(
            self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            until_s = time.monotonic() + WAIT_S
            while not _try_lock(lock) and time.monotonic() < until_s:
                time.sleep(POLL_S)
            yield
        finally:
            os.close(lock)

    def _tidy(self) -> None:
        """Remove what nobody has open and killed processes have left."""
        for path in self.folder.iterdir():
            with suppress(OSError):  # gone, or not ours
                if time.time() - path.stat().st_mtime > YOUNG_S:
                    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                    _let_go(file, path)


def in_memory(fetch: Callable[[Path], bool]) -> Plan | None:
    """Return a plan in memory of this process alone; None if it cannot be fetched."""
    file = os.memfd_create("tensorbank-plan")
    try:
        path = Path(f"/proc/self/fd/{file}")
        return Plan.load(path) if fetch(path) else None
    finally:
        os.close(file)


def _opened(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _let_go(file: int, path: Path) -> None:
    """Close a file, and remove it if no other process has it open."""
    with suppress(OSError):
        if _try_lock(file):
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
    os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
