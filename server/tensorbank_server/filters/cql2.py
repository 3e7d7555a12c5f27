"""CQL2-JSON to SQL. Pure: a tree and the queryables of a table in, a condition with parameters out.

The tree is measured before it is walked, and refused if it is too large, too deep, or has too many nodes. What is compiled is an
allow-list; whatever else a tree holds is an error that points to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorbank.errors import InvalidInputError, nearest
from tensorbank.statements import parse_comparison
from tensorbank_server.filters.literals import Json, Literal, geometry, instant, interval, number, text, wrong
from tensorbank_server.filters.queryables import Kind, Queryable, names_of_kind

__all__ = ["Compiled", "FilterBounds", "compile_filter", "measure"]

MAX_PATTERN_CHARACTERS = 128
MAX_WILDCARDS = 4
MAX_ARITHMETIC = 16
MAX_PIXEL_PREDICATES = 4


@dataclass(frozen=True, slots=True)
class FilterBounds:
    """The limits of a filter's size."""

    max_bytes: int = 8 << 10
    max_depth: int = 32
    max_nodes: int = 512
    max_list_items: int = 1_000
    max_vertices: int = 1_000


@dataclass(frozen=True, slots=True)
class Compiled:
    """A condition: text of ours and literals of the caller's, in turn."""

    parts: tuple[str | Literal, ...]

    @property
    def bound(self) -> str:
        """The condition with every parameter in its place:
        the planner skips files and shards by comparing with constants, so it must see them."""
        return "".join(p if isinstance(p, str) else p.sql for p in self.parts)

    def __add__(self, other: Compiled | str) -> Compiled:
        return Compiled((*self.parts, *(other.parts if isinstance(other, Compiled) else (other,))))

    def __radd__(self, other: str) -> Compiled:
        return Compiled((other, *self.parts))


TRUE = Compiled(("TRUE",))


def compile_filter(
    tree: Json, names: Mapping[str, Queryable], bounds: FilterBounds | None = None
) -> Compiled:
    """A CQL2-JSON expression as a condition.

    Raises
    ------
    InvalidInputError
        It is too large, names what is not queryable, or is no CQL2 of the supported kind; the message has a JSON Pointer.
    """
    bounds = bounds or FilterBounds()
    measure(tree, bounds)
    return _Compiler(names, bounds).boolean(tree, "")


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
    n = 0
    waiting = [(node, 0)]
    while waiting:
        at, depth = waiting.pop()
        if depth > 8:
            return 1 << 30
        if isinstance(at, list):
            waiting += [(child, depth + 1) for child in at]
        elif isinstance(at, dict):
            waiting += [(child, depth + 1) for child in at.values()]
        else:
            n += 1
    return n


class _Compiler:
    """One compilation."""

    def __init__(self, names: Mapping[str, Queryable], bounds: FilterBounds) -> None:
        self.names = names
        self.bounds = bounds
        self.n_arithmetic = 0
        self.n_pixels = 0

    def boolean(self, node: Json, at: str) -> Compiled:
        """A node that is true, false or unknown."""
        if isinstance(node, bool):
            return Compiled(("TRUE" if node else "FALSE",))
        op, args = _operation(node, at)
        known: dict[str, Callable[[str, list[Json], str], Compiled]] = {
            "and": self._junction,
            "or": self._junction,
            "not": self._not,
            **dict.fromkeys(_COMPARISONS, self._comparison),
            "between": self._between,
            "in": self._in,
            "like": self._like,
            "isNull": self._is_null,
            "s_intersects": self._intersects,
            "s_disjoint": self._intersects,
            **dict.fromkeys(_TEMPORAL, self._temporal),
            "pixels_any": self._pixels,
            "pixels_all": self._pixels,
        }
        if op not in known:
            raise wrong(f"{at}/op", f"no operator {op!r}.{nearest(op, known)}")
        return known[op](op, args, at)

    def _junction(self, op: str, args: list[Json], at: str) -> Compiled:
        if len(args) < 2:
            raise wrong(at, f"{op} takes at least two conditions")
        found = self.boolean(args[0], f"{at}/args/0")
        for i, arg in enumerate(args[1:], 1):
            found = found + f" {op.upper()} " + self.boolean(arg, f"{at}/args/{i}")
        return "(" + found + ")"

    def _not(self, op: str, args: list[Json], at: str) -> Compiled:
        _takes(op, args, 1, at)
        return "(NOT " + self.boolean(args[0], f"{at}/args/0") + ")"

    def _comparison(self, op: str, args: list[Json], at: str) -> Compiled:
        _takes(op, args, 2, at)
        (left, kind), (right, other) = (self.scalar(a, f"{at}/args/{i}") for i, a in enumerate(args))
        if kind != other:
            raise wrong(at, f"a {kind} cannot be compared with a {other}")
        return "(" + left + f" {op} " + right + ")"

    def _between(self, op: str, args: list[Json], at: str) -> Compiled:
        _takes(op, args, 3, at)
        (value, *kinds), low, high = (self.scalar(a, f"{at}/args/{i}") for i, a in enumerate(args))
        if not kinds[0] == low[1] == high[1] != "geometry":
            raise wrong(at, "between takes a value and two bounds of its kind")
        return "(" + value + " BETWEEN " + low[0] + " AND " + high[0] + ")"

    def _in(self, op: str, args: list[Json], at: str) -> Compiled:
        _takes(op, args, 2, at)
        value, kind = self.scalar(args[0], f"{at}/args/0")
        if not isinstance(args[1], list) or not args[1]:
            raise wrong(f"{at}/args/1", "in takes a list of values that is not empty")
        items = [self.scalar(a, f"{at}/args/1/{i}") for i, a in enumerate(args[1])]
        for i, (item, other) in enumerate(items):
            if other != kind or not isinstance(item.parts[0], Literal):
                raise wrong(f"{at}/args/1/{i}", f"a list beside a {kind} holds values of this kind")
        listed = items[0][0]
        for item, _ in items[1:]:
            listed = listed + ", " + item
        return "(" + value + " IN (" + listed + "))"

    def _like(self, op: str, args: list[Json], at: str) -> Compiled:
        _takes(op, args, 2, at)
        value, kind = self.scalar(args[0], f"{at}/args/0")
        pattern = args[1]
        if kind != "string" or not isinstance(pattern, str):
            raise wrong(at, "like takes a text and a pattern")
        if len(pattern) > MAX_PATTERN_CHARACTERS or pattern.count("%") > MAX_WILDCARDS:
            raise wrong(
                f"{at}/args/1",
                f"a pattern has at most {MAX_PATTERN_CHARACTERS} characters and {MAX_WILDCARDS} %",
            )
        if pattern.endswith("\\") and (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            raise wrong(f"{at}/args/1", "a pattern cannot end with an escape")
        return "(" + value + " LIKE " + Compiled((text(pattern, at),)) + " ESCAPE '\\')"

    def _is_null(self, op: str, args: list[Json], at: str) -> Compiled:
        _takes(op, args, 1, at)
        q = self._queryable(args[0], f"{at}/args/0")
        return Compiled((f"({q.sql} IS NULL)",))

    def _intersects(self, op: str, args: list[Json], at: str) -> Compiled:
        _takes(op, args, 2, at)
        is_property = [isinstance(a, dict) and "property" in a for a in args]
        if sum(is_property) != 1:
            raise wrong(at, f"{op} takes the property geometry and a geometry or box")
        column, area = (args[0], args[1]) if is_property[0] else (args[1], args[0])
        q = self._queryable(column, f"{at}/args/{is_property.index(True)}", ("geometry",))
        area_text = geometry(area, f"{at}/args/{is_property.index(False)}")
        call = f"intersects_polygon({q.sql}, " + Compiled((Literal(area_text),)) + ")"
        return "(NOT " + call + ")" if op == "s_disjoint" else call

    def _temporal(self, op: str, args: list[Json], at: str) -> Compiled:
        _takes(op, args, 2, at)
        if not (isinstance(args[0], dict) and "property" in args[0]):
            raise wrong(f"{at}/args/0", f"{op} takes a property with a time first")
        q = self._queryable(args[0], f"{at}/args/0", ("timestamp",))
        start, end = interval(args[1], f"{at}/args/1")
        value = Compiled((q.sql,))
        not_before = value + " >= " + Compiled((Literal(start),)) if start else TRUE
        not_after = value + " <= " + Compiled((Literal(end),)) if end else TRUE
        if op == "t_after":
            return "(" + value + " > " + Compiled((Literal(end),)) + ")" if end else Compiled(("FALSE",))
        if op == "t_before":
            return "(" + value + " < " + Compiled((Literal(start),)) + ")" if start else Compiled(("FALSE",))
        if op == "t_disjoint":
            return "(NOT (" + not_before + " AND " + not_after + "))"
        if op == "t_during":
            not_before = value + " > " + Compiled((Literal(start),)) if start else TRUE
            not_after = value + " < " + Compiled((Literal(end),)) if end else TRUE
        return "(" + not_before + " AND " + not_after + f" AND {q.sql} IS NOT NULL)"

    def _pixels(self, op: str, args: list[Json], at: str) -> Compiled:
        """Compile ``pixels_any({band}, '> 0.8')``; the band may be ``nd`` of two."""
        _takes(op, args, 2, at)
        self.n_pixels += 1
        if self.n_pixels > MAX_PIXEL_PREDICATES:
            raise wrong(at, f"more than {MAX_PIXEL_PREDICATES} pixel predicates")
        if isinstance(args[0], dict) and args[0].get("op") == "nd":
            _, operands = _operation(args[0], f"{at}/args/0")
            _takes("nd", operands, 2, f"{at}/args/0")
            pair = [
                self._queryable(o, f"{at}/args/0/args/{i}", ("modality",)).sql for i, o in enumerate(operands)
            ]
            band = f"nd({pair[0]}, {pair[1]})"
        else:
            band = self._queryable(args[0], f"{at}/args/0", ("modality",)).sql
        try:
            comparison, constant = parse_comparison(args[1]) if isinstance(args[1], str) else ("", 0.0)
        except InvalidInputError:
            comparison, constant = "", 0.0
        if not comparison or not math.isfinite(constant):
            raise wrong(f"{at}/args/1", "a pixel predicate takes a comparison such as '> 0.8'")
        return f"{op}({band}, " + Compiled((Literal(f"{comparison} {constant!r}"),)) + ")"

    def scalar(self, node: Json, at: str) -> tuple[Compiled, Kind]:
        """A node that is a number, a text or a time, and which of them."""
        if isinstance(node, bool) or node is None:
            raise wrong(at, f"{json.dumps(node)} is no number, text or time")
        if isinstance(node, int | float):
            return Compiled((number(node, at),)), "number"
        if isinstance(node, str):
            return Compiled((text(node, at),)), "string"
        if not isinstance(node, dict):
            raise wrong(at, "a value is needed here")
        if "property" in node:
            q = self._queryable(node, at, ("number", "string", "timestamp"))
            return Compiled((q.sql,)), q.kind
        if "timestamp" in node or "date" in node:
            start, _ = instant(node, at)
            return Compiled((Literal(start),)), "timestamp"
        op, args = _operation(node, at)
        if op == "pixels_share":
            return self._pixels(op, args, at), "number"
        if op not in _ARITHMETIC:
            raise wrong(f"{at}/op", f"no function {op!r}.{nearest(op, (*_ARITHMETIC, 'pixels_share'))}")
        self.n_arithmetic += 1
        if self.n_arithmetic > MAX_ARITHMETIC:
            raise wrong(at, f"more than {MAX_ARITHMETIC} arithmetic operators")
        _takes(op, args, 2, at)
        (left, kind), (right, other) = (self.scalar(a, f"{at}/args/{i}") for i, a in enumerate(args))
        if (kind, other) != ("number", "number"):
            raise wrong(at, f"{op} takes numbers")
        left, right = "CAST(" + left + " AS DOUBLE)", "CAST(" + right + " AS DOUBLE)"
        if op == "/":
            right = "nullif(" + right + ", 0)"
        return "(" + left + f" {op} " + right + ")", "number"

    def _queryable(self, node: Json, at: str, kinds: Sequence[Kind] = ()) -> Queryable:
        name = node.get("property") if isinstance(node, dict) and set(node) == {"property"} else None
        if not isinstance(name, str):
            raise wrong(at, "a property is needed here")
        found = self.names.get(name)
        if found is None:
            close = nearest(name, names_of_kind(self.names, kinds) if kinds else self.names)
            raise wrong(f"{at}/property", f"{name[:80]!r} is not queryable.{close}")
        if kinds and found.kind not in kinds:
            raise wrong(f"{at}/property", f"{name!r} is a {found.kind}, a {' or '.join(kinds)} is needed")
        return found


_COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
_ARITHMETIC = ("+", "-", "*", "/")
_TEMPORAL = ("t_after", "t_before", "t_during", "t_intersects", "t_disjoint", "t_equals")


def _operation(node: Json, at: str) -> tuple[str, list[Json]]:
    if not isinstance(node, dict) or set(node) != {"op", "args"}:
        raise wrong(at, "an operation is needed here: an object with op and args, and nothing else")
    if not isinstance(node["op"], str) or not isinstance(node["args"], list):
        raise wrong(at, "op is a text and args a list")
    return node["op"], node["args"]


def _takes(op: str, args: list[Json], n: int, at: str) -> None:
    if len(args) != n:
        raise wrong(f"{at}/args", f"{op} takes {n} arguments, got {len(args)}")
