"""The seam between what has tasks and what executes them, wherever that is. Protocols."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from tensorbank.storage import Store

__all__ = ["Executor", "Result", "Setting", "Task"]


class Task(Protocol):
    """A task. It is pickled to whoever executes it, and may be executed again where a worker was lost."""

    @property
    def label(self) -> str:
        """Words on what the task is about, for an error that ends it."""
        ...


class Result(Protocol):
    """The result of a task. It is pickled on its way back, so it has no tensors."""

    @property
    def keys(self) -> Sequence[str]:
        """The keys of the objects that the task has written."""
        ...


class Setting(Protocol):
    """The addresses and options that all tasks of a run have in common. They go to whoever executes tasks, and hold no data."""

    @property
    def store(self) -> Store:
        """The bank."""
        ...

    def require_shareable(self, address: str) -> None:
        """Raise InvalidInputError if workers on other machines, those of a scheduler, cannot have what this process has."""
        ...

    def look(self) -> None:
        """Raise TensorBankError if this process cannot take tasks: something of the setting is not here, or is another one."""
        ...

    def look_for(self, task: Any) -> None:
        """Raise StorageError if what one task reads is not here although it should be."""
        ...

    def begin(self) -> None:
        """Prepare this process, which is a worker, one of as many as there are processors."""
        ...


SomeTask = TypeVar("SomeTask", bound=Task)
SomeResult = TypeVar("SomeResult", bound=Result)


class Executor(Protocol):
    """A means to execute the tasks of one setting. Use it by ``contextlib.closing``."""

    def open(self) -> None:
        """Begin, if that is not done: connect, and look whether those who will execute tasks can do so.

        Raises
        ------
        TensorBankError
            They cannot; nothing has been written.
        """
        ...

    def execute(
        self, tasks: Iterable[SomeTask], run: Callable[[SomeTask, Any], SomeResult]
    ) -> Generator[SomeResult, None, None]:
        """Yield the results as they come; close the generator to give up the tasks that are left.

        Parameters
        ----------
        tasks
            Tasks, of which a few at a time are taken.
        run
            Function of a module that executes one task in the setting.

        Raises
        ------
        TensorBankError
            Of a task, or of kind ``worker-lost``, ``worker-start`` or ``unguarded-program``. What is finished stays finished.
        """
        ...

    def close(self) -> None:
        """End what :meth:`open` began."""
        ...
