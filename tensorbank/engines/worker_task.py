"""The side of the workers of a cluster: a task that comes in as bytes, and the checks without which none is begun.

Nothing of it is a closure: a worker has this module, or it is no worker of ours. Setting and function come with each task,
some hundred bytes. Data that a scheduler spreads over workers would be lost with them, and draw tasks to those that have it.
"""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, cast

from distributed import get_worker

import tensorbank
from tensorbank.engines.executor import Result, Setting
from tensorbank.errors import ErrorKind, StorageError, TensorBankError

__all__ = ["Work", "dask_setup", "look", "perform", "release"]

Work = tuple[Callable[[Any, Any], Result], Setting]
"""The function and the setting that all tasks of a run have in common."""

_of_thread = threading.local()
"""The work that a thread did last. A source is read by one call at a time, and a worker may have several threads."""


def dask_setup(_worker: object) -> None:
    """Prepare a worker of a local cluster: the process that started it handles the signals that go to the whole group.

    Dask calls this by its name.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def release() -> str:
    """Return what decides the results of tasks: those of one run are executed by the same everywhere."""
    return f"tensorbank {tensorbank.__version__}, numcodecs {version('numcodecs')}"


def look(wanted: str, work: bytes) -> None:
    """Raise an error that says why this process cannot take tasks of a run, if that is so.

    Parameters
    ----------
    wanted
        Release of the process that gives the tasks.
    work
        Work of the run, pickled.
    """
    if release() != wanted:
        raise TensorBankError(
            f"it has {release()}, and tasks come from {wanted}", kind=ErrorKind.OTHER_RELEASE
        )
    _, setting = cast(Work, pickle.loads(work))
    folder = setting.store.local_path
    if folder is not None and not folder.is_dir():
        raise StorageError(f"it has no folder {folder}, where the bank is", kind=ErrorKind.NO_FOLDER)
    setting.look()


def perform(wanted: str, work: bytes, task: bytes) -> Any:
    """Execute one task on a worker, and return its result.

    Raises
    ------
    TensorBankError
        As the function of the work raises it, with the address of the worker; or this worker cannot take the task.
    """
    try:
        if getattr(_of_thread, "packed", None) != work:
            look(wanted, work)  # workers that have joined since the run began are met here
            _of_thread.packed, _of_thread.work = work, pickle.loads(work)
            _of_thread.work[1].begin()
        run, setting = cast(Work, _of_thread.work)
        one = pickle.loads(task)
        setting.look_for(one)
        return run(one, setting)
    except TensorBankError as error:
        raise type(error)(f"{error} (worker {get_worker().address})", kind=error.kind) from error
