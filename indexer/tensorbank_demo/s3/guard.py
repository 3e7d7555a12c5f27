"""A small supervisor that lets no server outlive the program that started it.

Run as a script, of the standard library only: ``python guard.py PARENT_PID FOLDER_TO_REMOVE COMMAND...``
(the folder may be empty). It starts the command and ends it, at once and by SIGKILL, as soon as standard input
is closed, the parent is gone or a signal asks for it; then it removes the sockets named by ``GUARD_SOCKETS`` and
the folder, unless the command ended by itself, for then the log in that folder is wanted. So the server dies with
its parent even after ``kill -9``, and when the parent had forked children that still hold the pipe. Should the
guard itself be killed, Linux kills the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

__all__ = ["main"]

POLL_S = 0.2
PR_SET_PDEATHSIG = 1  # prctl(2)


def main(arguments: list[str]) -> int:
    """Supervise until the command or the parent ends; return the command's exit status."""
    parent, folder, *command = arguments
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave)
    process: subprocess.Popen[bytes] | None = None
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with_guard if sys.platform == "linux" else None,  # noqa: PLW1509 - one thread here
        )
        while process.poll() is None and os.getppid() == int(parent) and not _stdin_closed(POLL_S):
            pass
    except KeyboardInterrupt:
        pass
    finally:
        _clean(process, folder if process is not None and process.poll() is None else "")
    return process.returncode if process else 1


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _die_with_guard() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _stdin_closed(timeout_s: float) -> bool:
    ready, _, _ = select.select([0], [], [], timeout_s)
    return bool(ready) and os.read(0, 1) == b""


def _clean(process: subprocess.Popen[bytes] | None, folder: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if process is not None:
        process.kill()
        process.wait()
    for path in filter(None, os.environ.get("GUARD_SOCKETS", "").split(os.pathsep)):
        with contextlib.suppress(OSError):
            Path(path).unlink()
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
