"""Work in a process of its own, which has not done it before."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["fresh"]

P = ParamSpec("P")
T = TypeVar("T")


def fresh(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Return the result of a module's function that a new process runs,
    whose modules are imported already.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args, **options).result()
