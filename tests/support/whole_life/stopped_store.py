"""A store whose writers can be stopped: at the n-th write of an operation they die, or others go ahead of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tensorbank.storage import Store

__all__ = ["DiedError", "StoppedStore"]


class DiedError(BaseException):
    """The writer is no more. No handler of errors may take it for one."""


class StoppedStore(Store):
    """A store that calls something once, before or after its n-th write."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._lock = threading.Lock()
        self._left = 0
        self._commits = False
        self._after = False
        self._act: Callable[[], None] | None = None
        self.stopped = False

    def arm(self, at: int, after: bool, act: Callable[[], None]) -> None:
        """Call ``act`` at the write of a number from now on, the first one is 1; at a commit to a log, the first one is -1."""
        self._left, self._commits = abs(at), at < 0
        self._after, self._act, self.stopped = after, act, False

    def disarm(self) -> None:
        """Let all writes pass; ``stopped`` says whether the one that was waited for came."""
        self._act = None

    def put(self, key: str, data: bytes | Sequence[bytes]) -> None:
        with self._write():
            super().put(key, data)

    def create(self, key: str, data: bytes) -> None:
        with self._write():
            super().create(key, data)

    def claim(self, key: str, data: bytes) -> bool:
        with self._write(commits=True):
            return super().claim(key, data)

    def delete(self, key: str) -> None:
        with self._write():
            super().delete(key)

    @contextmanager
    def _write(self, *, commits: bool = False) -> Iterator[None]:
        act = self._counted(commits)
        if act and not self._after:
            act()
        yield
        if act and self._after:
            act()

    def _counted(self, commits: bool) -> Callable[[], None] | None:
        with self._lock:
            if self._act is None or (self._commits and not commits):
                return None
            self._left -= 1
            if self._left:
                return None
            act, self._act, self.stopped = self._act, None, True
            return act
