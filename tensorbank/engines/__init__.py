"""Engines: what executes the tasks of a long piece of work, processes of this machine or the workers of a Dask cluster."""

from __future__ import annotations

import os

from tensorbank.engines.bank_setting import BankSetting
from tensorbank.engines.executor import Executor, Result, Setting, Task
from tensorbank.engines.processes import ProcessExecutor
from tensorbank.engines.program import require_guard
from tensorbank.engines.threads import ThreadExecutor
from tensorbank.engines.workers import DASK, PROCESSES, Workers
from tensorbank.errors import ErrorKind, TensorBankError

__all__ = [
    "BankSetting",
    "DASK",
    "PROCESSES",
    "Executor",
    "Result",
    "Setting",
    "Task",
    "ThreadExecutor",
    "Workers",
    "executor_for",
]


def executor_for(workers: Workers, setting: Setting) -> Executor:
    """Return the executor of some workers. Nothing is started or connected.

    Raises
    ------
    InvalidInputError
        The engine cannot be given what the tasks have in common.
    TensorBankError
        The engine needs a package that is not installed (``kind`` is ``missing-extra``); or this process is importing the program
        that started it, which should not begin to work then (``unguarded-program``).
    """
    n_workers = workers.n_workers or os.cpu_count() or 1
    require_guard(workers.engine == DASK or (workers.engine == PROCESSES and n_workers > 1))
    if workers.engine == PROCESSES:
        return ProcessExecutor(n_workers, setting)
    try:
        from tensorbank.engines.dask_executor import DaskExecutor, require_reachable
    except ModuleNotFoundError as error:
        raise TensorBankError(
            f"the engine {workers.engine} needs {error.name}; pip install 'tensorbank[distributed]'",
            kind=ErrorKind.MISSING_EXTRA,
        ) from error
    if workers.engine == DASK:
        return DaskExecutor(None, n_workers, workers.wait_s, setting)
    require_reachable(setting, workers.engine)
    return DaskExecutor(workers.engine, workers.n_workers, workers.wait_s, setting)
