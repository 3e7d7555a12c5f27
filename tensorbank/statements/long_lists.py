"""Long lists of constants in a syntax tree, turned into what DuckDB looks up rather than goes through. Pure.

``x IN (...)`` of thousands of constants is compared one by one wherever it is not a condition of its own, and every look at the
tree passes all of them. As rows of a subquery they are hashed, and one text in the tree. A NULL among them is a row that is NULL:
what is equal to no other constant is then neither in the list nor out of it, either way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from tensorbank.sql import (
    Constant,
    In,
    Node,
    alias_of,
    expression_of,
    is_null,
    literal,
    named,
    rebuilt,
    with_operand,
)

__all__ = ["shorten"]

MIN_LISTED = 100
"""The number of constants from which on a list is shortened."""
MAX_BIGINT = 10**18
"""The bound of the absolute value of a number in a list that is shortened: its rows are of type BIGINT."""


def shorten(tree: Node, parse: Callable[[str], Node]) -> Node:
    """Return the tree with its long lists as rows; the tree itself if it has none.

    Parameters
    ----------
    parse
        Turns the text of an expression into its node.
    """
    found = expression_of(tree)
    kind = _kind_of(found.listed) if isinstance(found, In) else None
    if not isinstance(found, In) or kind is None:
        return rebuilt(tree, lambda child: shorten(child, parse))
    rows = literal(json.dumps([_value(node) for node in found.listed]))
    node = parse(f"""0 IN (SELECT unnest(from_json({rows}, '["{kind}"]')))""")
    return named(with_operand(node, shorten(found.value, parse)), alias_of(tree))


def _kind_of(listed: Sequence[Node]) -> str | None:
    """Return the type of the constants of a long list, None of anything else."""
    if len(listed) < MIN_LISTED:
        return None
    values = [_value(node) for node in listed if not is_null(node)]
    if values and all(isinstance(value, str) for value in values):
        return "VARCHAR"
    whole = all(
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_BIGINT for value in values
    )
    return "BIGINT" if values and whole else None


def _value(node: Node) -> float | int | str | bool | None:
    found = expression_of(node)
    return found.value if isinstance(found, Constant) else None
