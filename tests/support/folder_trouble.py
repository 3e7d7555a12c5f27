"""Trouble for a bank in a folder: the process is killed at a call to the store that is chosen by number, or the disk is full.

:func:`install` is called in the process that runs an operation. It stands between TensorBank's one module that knows obstore and
obstore, counts the calls, and notes them in a file beside the bank.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.object_server import Trouble

__all__ = ["KINDS", "install"]

KINDS = ("kill", "half", "full", "read-only")
"""``half`` is a kill in the midst of a write, whose file lies beside its place then, half written."""
READS = frozenset({"get", "get_range", "head", "list", "list_with_delimiter"})
WRITES = frozenset({"put", "delete"})
NUMBERS = {"full": errno.ENOSPC, "read-only": errno.EROFS}


class _Troubled:
    """The functions of obstore, counted."""

    def __init__(self, module: Any, folder: Path, trouble: Trouble) -> None:
        self._module = module
        self._folder = folder
        self._trouble = trouble
        self._n_calls = self._n_writes = 0
        self._log = os.open(log_of(folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._module, name)
        return self._counted(name, function) if name in READS | WRITES else function

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(store: Any, key: Any = None, *given: Any, **more: Any) -> Any:
            key = more.get("prefix") or "" if key is None else key
            self._n_calls += 1
            self._n_writes += name in WRITES
            at = self._trouble.at
            if self._trouble.kind == "kill" and self._n_calls == at:
                self._note(name, key, 0)
                os.kill(os.getpid(), signal.SIGKILL)
            if self._trouble.kind == "half" and self._n_writes == at and name == "put":
                data = given[0] if isinstance(given[0], bytes) else b"".join(given[0])
                half = self._folder / f"{key}#1"
                half.parent.mkdir(parents=True, exist_ok=True)
                half.write_bytes(data[: len(data) // 2])
                self._note(name, key, 0)
                os.kill(os.getpid(), signal.SIGKILL)
            refused = self._trouble.kind == "read-only" or (self._trouble.kind == "full" and name == "put")
            if name in WRITES and refused and self._n_writes >= at:
                self._note(name, key, 507)
                number = NUMBERS[self._trouble.kind]
                text = f"Generic LocalFileSystem error: Unable to copy data to file: {os.strerror(number)} (os error {number})"
                raise self._module.exceptions.GenericError(text)
            try:
                if name in ("list", "list_with_delimiter"):
                    return function(store, *given, **more)
                return function(store, key, *given, **more)
            finally:
                self._note(name, key, 200)

        return call

    def _note(self, name: str, key: str, status: int) -> None:
        method = {"put": "PUT", "delete": "DELETE"}.get(name, "GET")
        os.write(self._log, f"{method} {status} {key}\n".encode())


def log_of(folder: Path) -> Path:
    """Return the file in which the calls are noted: method, status and key a line."""
    return folder.with_name(f"{folder.name}.log")


def install(folder: Path, trouble: Trouble) -> None:
    """Let this process run into trouble with a bank in a folder. Nothing undoes it but the end of the process."""
    from tensorbank.storage import object_client

    object_client.obstore = _Troubled(object_client.obstore, folder, trouble)
