"""Find what a statement must not ask if its answer is to be repeatable: chance, clocks, the session. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.sql import (
    CLOCKS,
    EXACT_AGGREGATES,
    KEYWORDS,
    ORDERED_AGGREGATES,
    OWN,
    RANDOM,
    SCALARS,
    SUMS,
    TABLE_FUNCTIONS,
    WINDOWS,
    is_operator,
)

__all__ = ["check_repeatable"]

_KNOWN = OWN | SCALARS | EXACT_AGGREGATES | SUMS | ORDERED_AGGREGATES | WINDOWS | TABLE_FUNCTIONS


def check_repeatable(tree: Any, is_function: Callable[[str], bool]) -> None:
    """Refuse whatever may answer otherwise at another time or on another machine.

    Parameters
    ----------
    is_function
        Tells whether DuckDB has a function of that name.

    Raises
    ------
    InvalidInputError
        A sample without a seed, or a call of a function that is not known to follow from its arguments.
    """
    for node in _nodes(tree):
        sample = node.get("sample")
        if isinstance(sample, dict) and sample.get("sample_size") and not sample.get("repeatable"):
            raise InvalidInputError(
                "a plan must be the same again: give the sample a seed, such as USING SAMPLE reservoir(100 ROWS) REPEATABLE (7)",
                kind=ErrorKind.NOT_REPEATABLE,
            )
        if node.get("type") == "SHOW_REF":
            raise InvalidInputError(
                "SHOW, DESCRIBE and SUMMARIZE answer with rows, which .arrow() gives; a plan selects samples of a table",
                kind=ErrorKind.SQL,
            )
        _check_call(node, is_function)


def _check_call(node: Any, is_function: Callable[[str], bool]) -> None:
    name = _called(node)
    until_now = name == "age" and len(node.get("arguments") or []) < 2
    if (name in _KNOWN and not until_now) or is_operator(name):
        return
    if name in RANDOM:
        say = f"{name}() is not; hash(sample_id, 7) is, where a number per sample is needed"
    elif name in CLOCKS or until_now:
        say = f"{name} reads the clock; write the date or time"
    elif is_function(name):
        say = f"{name} depends on more than its arguments, or is not known not to; .arrow() answers it"
    else:
        raise InvalidInputError(f"there is no function {name!r}.{nearest(name, _KNOWN)}", kind=ErrorKind.SQL)
    raise InvalidInputError(f"a plan must be the same again, and {say}", kind=ErrorKind.NOT_REPEATABLE)


def _called(node: Any) -> str:
    """Return the lower-case name of the function that a node calls; empty if it calls none."""
    if node.get("class") in ("FUNCTION", "WINDOW"):
        return str(node.get("function_name")).lower()
    names = node.get("column_names") if node.get("class") == "COLUMN_REF" else None
    name = str(names[0]).lower() if names and len(names) == 1 else ""
    return name if name in KEYWORDS else ""


def _nodes(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)
