"""The batches of a running epoch, as an iterator that can be given up for another epoch."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator
from typing import Any

from tensorbank.errors import ErrorKind, InvalidInputError

__all__ = ["RunningEpoch"]


class RunningEpoch(Iterator[Any]):
    """An iterator of the batches of one epoch.

    If it was given up for another epoch, it raises an error when it is asked for more. To end would look as if all batches had
    been handed out.

    Parameters
    ----------
    batches
        Generator of the batches, which is closed when the epoch is left.
    """

    def __init__(self, batches: Generator[Any, None, None]) -> None:
        self._batches = batches
        self._is_given_up = False

    def __next__(self) -> Any:
        if self._is_given_up:
            raise InvalidInputError(
                "this epoch was given up, as iter(), set_epoch(), load_state_dict() or set_weights() of its loader came in "
                "between; take the batches of the newest iter(), and make a loader for each of two loops at once",
                kind=ErrorKind.GIVEN_UP,
            )
        return next(self._batches)

    def close(self) -> None:
        """Leave the epoch: there are no more batches."""
        self._batches.close()

    def give_up(self) -> None:
        """Leave the epoch for another one."""
        self._is_given_up = inspect.getgeneratorstate(self._batches) != inspect.GEN_CLOSED
        self._batches.close()
