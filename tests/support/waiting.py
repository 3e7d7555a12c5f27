"""Waiting of tests for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]

LIMIT_S = 60.0
PAUSE_S = 0.02


def wait_until(
    condition: Callable[[], object], what: str | Callable[[], str], limit_s: float = LIMIT_S
) -> None:
    """Ask for a condition until it is true.

    Parameters
    ----------
    what
        Words for the failure, or what makes them then.
    limit_s
        Seconds after which the test fails: so many that only a broken program takes them, on a slow machine, too.

    Raises
    ------
    AssertionError
        The condition stayed false.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(what if isinstance(what, str) else what())
        time.sleep(PAUSE_S)
