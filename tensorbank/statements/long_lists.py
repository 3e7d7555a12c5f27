"""Long lists of constants in a syntax tree, turned into what DuckDB looks up rather than goes through. Pure.

``x IN (...)`` of thousands of constants, or ``x = 1 OR x = 2 OR ...``, is compared one by one wherever it is not a condition of
its own, and every look at the tree passes all of them. As rows of a subquery they are hashed, and one text in the tree. A NULL
among them is a row that is NULL: what is equal to no other constant is then neither in the list nor out of it, either way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from tensorbank.sql import (
    Comparison,
    Conjunction,
    Constant,
    In,
    Node,
    alias_of,
    expression_of,
    is_null,
    literal,
    named,
    names_of,
    rebuilt,
    with_operand,
    with_parts,
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
    if isinstance(found, Conjunction) and not found.is_and and len(found.parts) >= MIN_LISTED:
        tree = _with_lists(tree, found.parts, parse)
    kind = _kind_of(found.listed) if isinstance(found, In) else None
    if not isinstance(found, In) or kind is None:
        return rebuilt(tree, lambda child: shorten(child, parse))
    rows = _as_rows(found.listed, kind, parse)
    return named(with_operand(rows, shorten(found.value, parse)), alias_of(tree))


def _as_rows(listed: Sequence[Node], kind: str, parse: Callable[[str], Node]) -> Node:
    """Return ``0 IN (SELECT ...)`` of constants of a type."""
    rows = literal(json.dumps([_value(node) for node in listed]))
    return parse(f"""0 IN (SELECT unnest(from_json({rows}, '["{kind}"]')))""")


def _with_lists(tree: Node, parts: Sequence[Node], parse: Callable[[str], Node]) -> Node:
    """Return OR with a long list in the place of many parts that compare one column with a constant each; OR itself if it has
    no such parts.
    """
    compared: dict[tuple[str, ...], dict[int, tuple[Node, Node]]] = {}
    for place, part in enumerate(parts):
        found = expression_of(part)
        for either in (found, found.mirrored()) if isinstance(found, Comparison) else ():
            names = names_of(either.left) if either.op == "=" else None
            if names is not None and _value(either.right) is not None:
                compared.setdefault(names, {})[place] = either.left, either.right
                break
    others = dict(enumerate(parts))
    for of_column in compared.values():
        kind = _kind_of([constant for _, constant in of_column.values()])
        if kind is None:
            continue
        rows = _as_rows([constant for _, constant in of_column.values()], kind, parse)
        first, (column, _) = next(iter(of_column.items()))
        others = {place: part for place, part in others.items() if place not in of_column}
        others[first] = with_operand(rows, column)
    return with_parts(tree, [others[p] for p in sorted(others)]) if len(others) < len(parts) else tree


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
