"""Search the call stack for the loader that iterates a dataset, or asks for its length.

torch and accelerate tell a dataset nothing about the loader that has it. Only messages depend on what is found here: that a
length would be wrong, and that samples are shared out twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["calling_loader", "calling_sharder"]

SHARDERS = ("IterableDatasetShard", "DataLoaderDispatcher")
"""The classes of accelerate that share out what a dataset yields."""


def calling_sharder() -> str | None:
    """Return the name of the class of accelerate that shares out what the calling code asks for; None if there is none."""
    found = _first(_is_sharder)
    return None if found is None else type(found).__name__


def calling_loader(kind: type) -> Any:
    """Return the loader of a type whose method is calling; None if there is none."""
    return _first(lambda me: isinstance(me, kind))


def _is_sharder(me: Any) -> bool:
    kind = type(me)
    return kind.__name__ in SHARDERS and str(kind.__module__).partition(".")[0] == "accelerate"


def _first(is_wanted: Callable[[Any], bool]) -> Any:
    """Return the wanted object whose method is innermost on the call stack; None if there is none."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        me = frame.f_locals.get("self")
        if me is not None and is_wanted(me):
            return me
        frame = frame.f_back
    return None
