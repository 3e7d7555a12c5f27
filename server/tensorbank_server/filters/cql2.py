"""CQL2-JSON to a condition in SQL. Pure: a tree and the queryables of a table in, the text of a condition out.

The tree is measured before it is walked, and refused if it is too large, too deep, or has too many nodes. What is compiled is an
allow-list; whatever else a tree holds is an error that points to it. Names and operators are ours. A caller's values stand in the
text as constants, each written by :attr:`Literal.sql`: the planner skips files and shards by comparing with constants, so it
must see them.

Parsing and compiling are our own. The package ``cql2`` (0.6) crashes the process on 4 KB of nested parentheses, lets unknown
functions pass, and emits PostgreSQL; ``pygeofilter`` lets unknown functions pass, too, and refuses a column named ``a``. Around
either, the allow-list, the bounds and the compiler to DuckDB would have to be written all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorbank.errors import InvalidInputError, nearest
from tensorbank.statements import parse_comparison
from tensorbank_server.filters.filter_bounds import FilterBounds, measure
from tensorbank_server.filters.literals import Json, Literal, geometry, instant, interval, number, text, wrong
from tensorbank_server.filters.queryables import Kind, Queryable, names_of_kind

__all__ = ["compile_filter"]

MAX_PATTERN_CHARACTERS = 128
MAX_WILDCARDS = 4
MAX_ARITHMETIC = 16
MAX_PIXEL_PREDICATES = 4


def compile_filter(tree: Json, names: Mapping[str, Queryable], bounds: FilterBounds | None = None) -> str:
    """Compile a CQL2-JSON expression to a condition in SQL.

    Raises
    ------
    InvalidInputError
        It is too large, names what is not queryable, or is no CQL2 of the supported kind; the message has a JSON Pointer.
    """
    bounds = bounds or FilterBounds()
    measure(tree, bounds)
    return _Compiler(names).boolean(tree, "")


@dataclass(frozen=True, slots=True)
class _Scalar:
    """An expression with one value: its SQL, the kind of the value, and whether the caller wrote it out."""

    sql: str
    kind: Kind
    is_literal: bool = False


class _Compiler:
    """A compiler of one filter: it counts what may occur a few times only. ``at`` is a node's JSON Pointer everywhere."""

    def __init__(self, names: Mapping[str, Queryable]) -> None:
        self.names = names
        self.n_arithmetic = 0
        self.n_pixels = 0

    def boolean(self, node: Json, at: str) -> str:
        """Compile a node that is true, false or unknown."""
        if isinstance(node, bool):
            return "TRUE" if node else "FALSE"
        op, args = _operation(node, at)
        known: dict[str, Callable[[str, list[Json], str], str]] = {
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
            raise wrong(f"{at}/op", f"there is no operator {op!r}.{nearest(op, known)}")
        return known[op](op, args, at)

    def _junction(self, op: str, args: list[Json], at: str) -> str:
        if len(args) < 2:
            raise wrong(at, f"{op} takes at least two conditions")
        conditions = [self.boolean(arg, f"{at}/args/{i}") for i, arg in enumerate(args)]
        return f"({f' {op.upper()} '.join(conditions)})"

    def _not(self, op: str, args: list[Json], at: str) -> str:
        _takes(op, args, 1, at)
        return f"(NOT {self.boolean(args[0], f'{at}/args/0')})"

    def _comparison(self, op: str, args: list[Json], at: str) -> str:
        _takes(op, args, 2, at)
        left, right = (self._scalar(a, f"{at}/args/{i}") for i, a in enumerate(args))
        if left.kind != right.kind:
            raise wrong(at, f"a {left.kind} cannot be compared with a {right.kind}")
        return f"({left.sql} {op} {right.sql})"

    def _between(self, op: str, args: list[Json], at: str) -> str:
        _takes(op, args, 3, at)
        value, low, high = (self._scalar(a, f"{at}/args/{i}") for i, a in enumerate(args))
        if not value.kind == low.kind == high.kind != "geometry":
            raise wrong(at, "between takes a value and two bounds of its kind")
        return f"({value.sql} BETWEEN {low.sql} AND {high.sql})"

    def _in(self, op: str, args: list[Json], at: str) -> str:
        _takes(op, args, 2, at)
        value = self._scalar(args[0], f"{at}/args/0")
        if not isinstance(args[1], list) or not args[1]:
            raise wrong(f"{at}/args/1", "in takes a list of values that is not empty")
        members = [self._scalar(a, f"{at}/args/1/{i}") for i, a in enumerate(args[1])]
        for i, member in enumerate(members):
            if member.kind != value.kind or not member.is_literal:
                raise wrong(f"{at}/args/1/{i}", f"a list beside a {value.kind} holds values of this kind")
        return f"({value.sql} IN ({', '.join(m.sql for m in members)}))"

    def _like(self, op: str, args: list[Json], at: str) -> str:
        _takes(op, args, 2, at)
        value = self._scalar(args[0], f"{at}/args/0")
        pattern = args[1]
        if value.kind != "string" or not isinstance(pattern, str):
            raise wrong(at, "like takes a text and a pattern")
        if len(pattern) > MAX_PATTERN_CHARACTERS or pattern.count("%") > MAX_WILDCARDS:
            raise wrong(
                f"{at}/args/1",
                f"a pattern has at most {MAX_PATTERN_CHARACTERS} characters and {MAX_WILDCARDS} %",
            )
        if pattern.endswith("\\") and (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            raise wrong(f"{at}/args/1", "a pattern cannot end with an escape")
        return f"({value.sql} LIKE {text(pattern, at).sql} ESCAPE '\\')"

    def _is_null(self, op: str, args: list[Json], at: str) -> str:
        _takes(op, args, 1, at)
        return f"({self._queryable(args[0], f'{at}/args/0').sql} IS NULL)"

    def _intersects(self, op: str, args: list[Json], at: str) -> str:
        _takes(op, args, 2, at)
        is_property = [isinstance(a, dict) and "property" in a for a in args]
        if sum(is_property) != 1:
            raise wrong(at, f"{op} takes the property geometry and a geometry or box")
        column, area = (args[0], args[1]) if is_property[0] else (args[1], args[0])
        q = self._queryable(column, f"{at}/args/{is_property.index(True)}", ("geometry",))
        area_text = geometry(area, f"{at}/args/{is_property.index(False)}")
        call = f"intersects_polygon({q.sql}, {Literal(area_text).sql})"
        return f"(NOT {call})" if op == "s_disjoint" else call

    def _temporal(self, op: str, args: list[Json], at: str) -> str:
        _takes(op, args, 2, at)
        if not (isinstance(args[0], dict) and "property" in args[0]):
            raise wrong(f"{at}/args/0", f"{op} takes a property with a time first")
        value = self._queryable(args[0], f"{at}/args/0", ("timestamp",)).sql
        first, last = interval(args[1], f"{at}/args/1")
        start, end = (None if moment is None else Literal(moment).sql for moment in (first, last))
        # nothing is after an interval that never ends, or before one that never began
        if op == "t_after":
            return f"({value} > {end})" if end else "FALSE"
        if op == "t_before":
            return f"({value} < {start})" if start else "FALSE"
        equal = "" if op == "t_during" else "="
        not_before = f"{value} >{equal} {start}" if start else "TRUE"
        not_after = f"{value} <{equal} {end}" if end else "TRUE"
        if op == "t_disjoint":
            return f"(NOT ({not_before} AND {not_after}))"
        return f"({not_before} AND {not_after} AND {value} IS NOT NULL)"

    def _pixels(self, op: str, args: list[Json], at: str) -> str:
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
        return f"{op}({band}, {Literal(f'{comparison} {constant!r}').sql})"

    def _scalar(self, node: Json, at: str) -> _Scalar:
        """Compile a node that is a number, a text or a time."""
        if isinstance(node, bool) or node is None:
            raise wrong(at, f"{json.dumps(node)} is no number, text or time")
        if isinstance(node, int | float):
            return _Scalar(number(node, at).sql, "number", is_literal=True)
        if isinstance(node, str):
            return _Scalar(text(node, at).sql, "string", is_literal=True)
        if not isinstance(node, dict):
            raise wrong(at, "a value is needed here")
        if "property" in node:
            q = self._queryable(node, at, ("number", "string", "timestamp"))
            return _Scalar(q.sql, q.kind)
        if "timestamp" in node or "date" in node:
            start, _ = instant(node, at)
            return _Scalar(Literal(start).sql, "timestamp", is_literal=True)
        op, args = _operation(node, at)
        if op == "pixels_share":
            return _Scalar(self._pixels(op, args, at), "number")
        if op not in _ARITHMETIC:
            raise wrong(
                f"{at}/op", f"there is no function {op!r}.{nearest(op, (*_ARITHMETIC, 'pixels_share'))}"
            )
        return self._arithmetic(op, args, at)

    def _arithmetic(self, op: str, args: list[Json], at: str) -> _Scalar:
        self.n_arithmetic += 1
        if self.n_arithmetic > MAX_ARITHMETIC:
            raise wrong(at, f"more than {MAX_ARITHMETIC} arithmetic operators")
        _takes(op, args, 2, at)
        left, right = (self._scalar(a, f"{at}/args/{i}") for i, a in enumerate(args))
        if (left.kind, right.kind) != ("number", "number"):
            raise wrong(at, f"{op} takes numbers")
        # doubles do not overflow with an error, as integers do; what is divided by zero is unknown
        dividend, divisor = (f"CAST({side.sql} AS DOUBLE)" for side in (left, right))
        if op == "/":
            divisor = f"nullif({divisor}, 0)"
        return _Scalar(f"({dividend} {op} {divisor})", "number")

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
