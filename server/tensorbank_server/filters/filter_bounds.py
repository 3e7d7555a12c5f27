"""Bounds of a filter's size, and their check, which comes before anything recurses over the filter. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tensorbank_server.filters.literals import Json, wrong

__all__ = ["FilterBounds", "measure"]

MAX_GEOMETRY_DEPTH = 8
"""The deepest nesting of a geometry: a collection of collections of multipolygons has less."""


@dataclass(frozen=True, slots=True)
class FilterBounds:
    """The limits of a filter's size."""

    max_bytes: int = 8 << 10
    max_depth: int = 32
    max_nodes: int = 512
    max_list_items: int = 1_000
    max_vertices: int = 1_000


def measure(tree: Json, bounds: FilterBounds) -> None:
    """Refuse a tree that is too large, without recursion.

    Raises
    ------
    FilterError
        It is nested too deep, or has too many nodes, items or vertices.
    """
    n_nodes = 0
    waiting: list[tuple[Json, int, str]] = [(tree, 1, "")]
    while waiting:
        node, depth, at = waiting.pop()
        if depth > bounds.max_depth:
            raise wrong("", f"nested deeper than {bounds.max_depth}")
        n_nodes += isinstance(node, dict)
        if n_nodes > bounds.max_nodes:
            raise wrong("", f"more than {bounds.max_nodes} nodes")
        if isinstance(node, dict):
            if "coordinates" in node or "geometries" in node or "bbox" in node:
                if _n_numbers(node) > 3 * bounds.max_vertices:
                    raise wrong(at, f"more than {bounds.max_vertices:,} vertices")
                continue
            # arguments lie as deep as their operation
            waiting += [(v, depth + (not isinstance(v, list)), f"{at}/{k}"[-200:]) for k, v in node.items()]
        elif isinstance(node, list):
            if len(node) > bounds.max_list_items:
                raise wrong(at, f"more than {bounds.max_list_items:,} items")
            waiting += [(v, depth + 1, f"{at}/{i}"[-200:]) for i, v in enumerate(node)]


def _n_numbers(node: Json) -> int:
    """Count the numbers in a geometry, without recursion; what is nested too deep counts as too many."""
    n_numbers = 0
    waiting = [(node, 0)]
    while waiting:
        at, depth = waiting.pop()
        if depth > MAX_GEOMETRY_DEPTH:
            return 1 << 30
        if isinstance(at, list):
            waiting += [(child, depth + 1) for child in at]
        elif isinstance(at, dict):
            waiting += [(child, depth + 1) for child in at.values()]
        else:
            n_numbers += 1
    return n_numbers
