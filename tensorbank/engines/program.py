"""The program that starts worker processes, which each of them imports before it takes tasks.

What they are given may be of a class that the program defines, so they need it. A program that begins its work when it is
imported would begin it in each worker again, which would start workers of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

from tensorbank.errors import ErrorKind, TensorBankError

__all__ = ["UNGUARDED", "WORKER_NAME", "died_early", "helper_ended", "not_started", "require_guard"]

WORKER_NAME = "tensorbank worker"
"""The name of our worker processes, which they have before they import the program."""
DASK_NAME = "Dask Worker process"
"""The beginning of the name of a process that a local cluster of Dask starts."""
UNGUARDED = 78
"""The exit status of a worker process in which the program began its work once more."""


def require_guard(starts_processes: bool) -> None:
    """Refuse to work in a process that is importing the program which started it. One of our workers ends, without a word.

    The program is in the midst of an import that is not meant to do work, so an error would be printed by each worker, with the
    stack of multiprocessing, or be caught by the program. Who started the worker reads the exit status, and says it once.

    Parameters
    ----------
    starts_processes
        True if the work starts processes, which cannot be done during that import. Other work is refused in our workers only.

    Raises
    ------
    TensorBankError
        The process is somebody else's, such as a worker of a data loader (``kind`` is ``unguarded-program``).
    """
    process = multiprocessing.current_process()
    # As multiprocessing itself asks before it starts a process.
    if not getattr(process, "_inheriting", False):
        return
    if process.name == WORKER_NAME or process.name.startswith(DASK_NAME):
        os._exit(UNGUARDED)
    if starts_processes:
        raise _unguarded()


def died_early(status: int) -> TensorBankError:
    """Return the error of a worker process that ended before it could take a task, by its exit status."""
    if status == UNGUARDED:
        return _unguarded()
    return not_started(
        f"one ended with exit status {status} while it imported {_program()}, as each worker does; what it printed says why"
    )


def helper_ended(name: str) -> TensorBankError:
    """Return the error of a process beside the workers which did not start, of whose exit status nothing is known."""
    return not_started(f"{name} ended, which may be since {_unguarded()}")


def not_started(reason: str) -> TensorBankError:
    """Return the error that worker processes cannot take tasks."""
    return TensorBankError(f"worker processes could not start: {reason}", kind=ErrorKind.WORKER_START)


def _unguarded() -> TensorBankError:
    """Return the error of a program that begins its work when it is imported."""
    return TensorBankError(
        f"worker processes import the program that started them, {_program()}, so it must begin its work below "
        'if __name__ == "__main__":',
        kind=ErrorKind.UNGUARDED_PROGRAM,
    )


def _program() -> str:
    main = sys.modules.get("__main__")
    return str(getattr(main, "__file__", None) or "which has no file")
