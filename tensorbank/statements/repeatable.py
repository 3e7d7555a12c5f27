"""Find what a statement must not ask if its answer is to be repeatable: chance, clocks, the session. Pure."""

from __future__ import annotations

from collections.abc import Callable

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
    Call,
    Column,
    Expression,
    Node,
    Show,
    expression_of,
    is_operator,
    relation_of,
    sample_has_no_seed,
    walk,
)

__all__ = ["check_repeatable"]

_KNOWN = OWN | SCALARS | EXACT_AGGREGATES | SUMS | ORDERED_AGGREGATES | WINDOWS | TABLE_FUNCTIONS


def check_repeatable(tree: Node, is_function: Callable[[str], bool]) -> None:
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
    for node in walk(tree):
        if sample_has_no_seed(node):
            raise InvalidInputError(
                "a plan must be repeatable: give the sample a seed, such as USING SAMPLE reservoir(100 ROWS) REPEATABLE (7)",
                kind=ErrorKind.NOT_REPEATABLE,
            )
        if isinstance(relation_of(node), Show):
            raise InvalidInputError(
                "SHOW, DESCRIBE and SUMMARIZE answer with rows, which .arrow() gives; a plan selects samples of a table",
                kind=ErrorKind.SQL,
            )
        _check_call(expression_of(node), is_function)


def _check_call(found: Expression | None, is_function: Callable[[str], bool]) -> None:
    name = _called(found)
    if name is None:
        return
    until_now = name == "age" and isinstance(found, Call) and len(found.arguments) < 2
    if (name in _KNOWN and not until_now) or is_operator(name):
        return
    if name in RANDOM:
        say = f"{name}() is not; split_fraction(sample_id, 7) gives each sample a fixed number in [0, 1)"
    elif name in CLOCKS or until_now:
        say = f"{name} reads the clock; write the date or time"
    elif is_function(name):
        say = f"{name} depends on more than its arguments, or is not known not to; .arrow() answers it"
    else:
        raise InvalidInputError(f"there is no function {name!r}.{nearest(name, _KNOWN)}", kind=ErrorKind.SQL)
    raise InvalidInputError(f"a plan must be repeatable, and {say}", kind=ErrorKind.NOT_REPEATABLE)


def _called(found: Expression | None) -> str | None:
    """Return the lower-case name of the function that an expression calls, with parentheses or without; None if it calls none."""
    if isinstance(found, Call):
        return found.name
    name = found.names[0].lower() if isinstance(found, Column) and len(found.names) == 1 else None
    return name if name in KEYWORDS else None
