"""Long lists of constants in a syntax tree, turned into what DuckDB looks up rather than goes through. Pure.

``x IN (...)`` of thousands of constants is compared one by one wherever it is not a condition of its own, and every look at the
tree passes all of them. As rows of a subquery they are hashed, and one text in the tree.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["shorten"]

MIN_LISTED = 100
"""The number of constants from which on a list is shortened."""
_KINDS = {"STRING": "VARCHAR", "INTEGER": "BIGINT"}


def shorten(tree: Any, parse: Callable[[str], Any]) -> Any:
    """Return the tree with its long lists as rows; the tree itself if it has none.

    Parameters
    ----------
    parse
        Turns the text of an expression into its node.
    """
    if isinstance(tree, list):
        children = [shorten(child, parse) for child in tree]
        return children if any(a is not b for a, b in zip(children, tree, strict=True)) else tree
    if not isinstance(tree, dict):
        return tree
    kind = _kind_of(tree)
    if kind is None:
        found = {key: shorten(value, parse) for key, value in tree.items()}
        return found if any(found[key] is not tree[key] for key in tree) else tree
    first, *others = tree["children"]
    texts = [str(c["literal"]["text"]) for c in others]
    rows = json.dumps(texts if kind == "STRING" else list(map(int, texts))).replace("'", "''")
    node = parse(f"""0 IN (SELECT unnest(from_json('{rows}', '["{_KINDS[kind]}"]')))""")
    return {**node, "child": shorten(first, parse), "alias": tree.get("alias", "")}


def _kind_of(node: Any) -> str | None:
    """The kind of the constants of a long list, None of anything else."""
    if (
        node.get("class") != "OPERATOR"
        or node.get("type") != "COMPARE_IN"
        or len(node["children"]) <= MIN_LISTED
    ):
        return None
    kinds = {c["literal"].get("kind") if c.get("class") == "CONSTANT" else None for c in node["children"][1:]}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind == "INTEGER" and any(len(c["literal"]["text"]) > 18 for c in node["children"][1:]):
        return None
    return kind if kind in _KINDS else None
