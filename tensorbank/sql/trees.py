"""Ways through DuckDB's syntax trees, whatever their nodes say. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Node", "changed", "children", "rebuilt", "strings_in", "walk", "with_value"]

Node = Any
"""A dict of a tree, such as an expression, a query, an item of FROM, or what binds these together."""


def walk(tree: Node | Sequence[Node], without: Callable[[Node], bool] = lambda _: False) -> Iterator[Node]:
    """Yield every node of a tree or of several, the outer before the inner ones.

    Parameters
    ----------
    without
        Tells which nodes are left out, with all that is below them.
    """
    waiting: list[Any] = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if not without(value):
                yield value
                waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def strings_in(tree: Node) -> Iterator[str]:
    """Yield every text of a tree: names, words of the grammar, constants."""
    waiting: list[Any] = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def children(node: Node) -> Iterator[Node]:
    """Yield the nodes right below a node, in their order."""
    waiting = list(reversed(node.values()))
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def rebuilt(node: Node, change: Callable[[Node], Node]) -> Node:
    """Return a node with each of the nodes right below it changed; the node itself where none is."""
    return with_value(node, {key: changed(value, change) for key, value in node.items()})


def with_value(node: Node, values: Mapping[str, Any]) -> Node:
    """Return a node with other values of some keys; the node itself where all are what they were."""
    same = all(key in node and node[key] is value for key, value in values.items())
    return node if same else {**node, **values}


def changed(value: Any, change: Callable[[Node], Node]) -> Any:
    """Return a value of a node with the nodes in it changed; the value itself where none is."""
    if isinstance(value, dict):
        return change(value)
    if isinstance(value, list):
        found = [changed(v, change) for v in value]
        return found if any(a is not b for a, b in zip(found, value, strict=True)) else value
    return value
