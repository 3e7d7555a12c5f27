"""The side of a worker process of this machine: it says that it is ready, executes tasks, and ends with who started it."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from contextlib import suppress
from multiprocessing import util
from multiprocessing.connection import Connection

from tensorbank.engines.program import not_started
from tensorbank.errors import TensorBankError

__all__ = ["work"]

_in_task = threading.Event()
"""Set while a task runs in this process, if it is a worker."""
_leaving = threading.Lock()
"""Taken when a task begins or ends, and by what ends the process: it goes neither into a task nor out of one meanwhile."""


def work(connection: Connection, lifeline: Connection, given: bytes) -> None:
    """Execute tasks until the pipe is closed. The process that started this one handles signals that go to the whole group.

    Parameters
    ----------
    connection
        The end of the pipe for tasks and answers. The first answer, to no task, is that this process is ready, or why it is not.
    lifeline
        The end of the pipe that is closed when this process is to end.
    given
        The function that executes tasks, and the setting that it takes, pickled.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True, name="lifeline").start()
    with suppress(EOFError, OSError), connection:
        try:
            run, setting = pickle.loads(given)
            setting.begin()
        except Exception as error:  # noqa: BLE001 - edge of a process: whoever started it gets it
            connection.send_bytes(pickle.dumps((False, not_started(f"{type(error).__name__}: {error}"))))
            return
        connection.send_bytes(pickle.dumps((True, None)))
        while True:
            task = connection.recv_bytes()
            with _leaving:
                _in_task.set()
            try:
                answer = pickle.dumps((True, run(pickle.loads(task), setting)))
            except Exception as error:  # noqa: BLE001 - edge of a process: whoever gave the task gets it
                answer = _packed(error)
            finally:
                with _leaving:  # not while the process ends
                    _in_task.clear()
            connection.send_bytes(answer)


def _packed(error: Exception) -> bytes:
    """Return an error as an answer. One of another kind than ours says where it was raised."""
    if not isinstance(error, TensorBankError):
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
    try:
        return pickle.dumps((False, error))
    except Exception:  # noqa: BLE001 - it holds what cannot travel: then its words go alone
        return pickle.dumps((False, RuntimeError(traceback.format_exc())))


def _end_with(lifeline: Connection) -> None:
    """End the process once its lifeline is closed, if it is in a task; between two, its other pipe is closed and ends it."""
    try:
        lifeline.poll(None)
        while True:
            _in_task.wait()
            with _leaving:
                if _in_task.is_set():
                    # As a process of multiprocessing ends, else the locks that libraries made in it count as leaked.
                    util._exit_function()  # type: ignore[attr-defined]
                    return
    finally:
        os._exit(0)
