"""Expressions in DuckDB's syntax trees. Pure.

See :mod:`tensorbank.sql.syntax` for what trees are, and for the contract: of an expression that is not known, nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorbank.sql.trees import Node

__all__ = [
    "Between",
    "Call",
    "Cast",
    "Choice",
    "Column",
    "Comparison",
    "Conjunction",
    "Constant",
    "Expression",
    "Field",
    "In",
    "Not",
    "ScalarQuery",
    "Star",
    "Window",
    "alias_of",
    "column_node",
    "expression_of",
    "is_known_expression",
    "is_null",
    "named",
    "names_of",
    "text_of",
    "with_operand",
    "with_parts",
]

_COMPARISONS = {
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "!=",
}
_MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "=": "=", "!=": "!="}
_NEGATED = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "=": "!=", "!=": "="}
MAX_DIGITS = 4000
"""The most digits of a number that are read as an integer; Python refuses more than 4,300."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column, by the names that the statement gives: maybe those of schema and table first, maybe those of fields last."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct that an expression gives."""

    owner: Node
    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, text or truth value; NULL is none."""

    value: float | int | str | bool


@dataclass(frozen=True, slots=True)
class Cast:
    """An expression as another type, by its name in capitals."""

    value: Node
    type_name: str
    or_null: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison by one of ``> >= < <= = !=``."""

    left: Node
    op: str
    right: Node

    def mirrored(self) -> Comparison:
        """Return the same comparison with its sides exchanged."""
        return Comparison(self.right, _MIRRORED[self.op], self.left)

    def negated(self) -> Comparison:
        """Return the comparison that is true where this one is false; where a side is NULL neither is."""
        return Comparison(self.left, _NEGATED[self.op], self.right)


@dataclass(frozen=True, slots=True)
class Conjunction:
    """The parts of AND, or of OR."""

    is_and: bool
    parts: Sequence[Node]


@dataclass(frozen=True, slots=True)
class Not:
    """A negated expression."""

    part: Node


@dataclass(frozen=True, slots=True)
class Between:
    """A value between two others, both included."""

    value: Node
    low: Node
    high: Node


@dataclass(frozen=True, slots=True)
class In:
    """A value that is one of a list."""

    value: Node
    listed: Sequence[Node]


@dataclass(frozen=True, slots=True)
class Choice:
    """An expression whose value is that of one of several others: CASE, COALESCE."""

    results: Sequence[Node]


@dataclass(frozen=True, slots=True)
class ScalarQuery:
    """A subquery whose one value is that of the expression."""

    query: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function or operator, by its lower-case name.

    ``arguments`` are those given by place, ``by_name`` the others by lower-case name.
    """

    name: str
    arguments: Sequence[Node]
    by_name: Mapping[str, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Window(Call):
    """A call over a window: ``f(...) OVER (...)``.

    ``start`` and ``end`` are those of the frame as DuckDB names them. ``is_plain`` says that no argument is ordered and no row
    excluded.
    """

    orders: Sequence[Node] = ()
    start: str = ""
    end: str = ""
    ignores_nulls: bool = False
    is_plain: bool = False


@dataclass(frozen=True, slots=True)
class Star:
    """A ``*``, maybe of one table, lower-case; empty for all.

    ``without`` are the columns that it leaves out, ``replaced`` those that it gives another value, both in lower case.
    ``is_plain`` says that it neither renames columns nor chooses them by an expression.
    """

    table: str
    without: frozenset[str]
    replaced: frozenset[str]
    is_plain: bool


Expression = (
    Column
    | Field
    | Constant
    | Cast
    | Comparison
    | Conjunction
    | Not
    | Between
    | In
    | Choice
    | ScalarQuery
    | Call
    | Window
    | Star
)


def expression_of(node: Node) -> Expression | None:
    """Return what an expression says; None of one that is not known, and of what is no expression."""
    read = _READERS.get(node.get("class")) if isinstance(node, dict) else None
    return None if read is None else read(node)


def names_of(node: Node) -> tuple[str, ...] | None:
    """Return the names of a column, or of a field in one however it is written; None of anything else."""
    found = expression_of(node)
    if isinstance(found, Column):
        return found.names
    owner = names_of(found.owner) if isinstance(found, Field) else None
    return None if owner is None or not isinstance(found, Field) else (*owner, found.name)


def text_of(node: Node) -> str | None:
    """Return the text that a constant is, None of anything else."""
    found = expression_of(node)
    return found.value if isinstance(found, Constant) and isinstance(found.value, str) else None


def with_operand(node: Node, value: Node) -> Node:
    """Return ``x IN (SELECT ...)`` with another ``x``."""
    return {**node, "child": value}


def with_parts(node: Node, parts: Sequence[Node]) -> Node:
    """Return AND or OR of other parts: the part itself where it is one."""
    return {**node, "children": list(parts)} if len(parts) > 1 else named(parts[0], alias_of(node))


def is_null(node: Node) -> bool:
    """Tell whether an expression is NULL as a constant."""
    return node.get("class") == "CONSTANT" and (node.get("literal") or {}).get("kind") == "NULL_LITERAL"


def alias_of(node: Node) -> str:
    """Return the alias of an expression or of an item of FROM; empty where it has none."""
    return str(node.get("alias") or "")


def named(node: Node, alias: str) -> Node:
    """Return an expression or item of FROM under an alias; without one if that is empty."""
    return {**node, "alias": alias}


def column_node(names: Sequence[str]) -> Node:
    """Return the node of a column."""
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "column_names": list(names)}


def is_known_expression(node: Node) -> bool | None:
    """Tell whether an expression is of a kind that DuckDB had when this was written; None of what is no expression."""
    kind = node.get("class")
    return None if kind is None else kind in _KNOWN


def _column(node: Node) -> Column:
    return Column(tuple(map(str, node["column_names"])))


def _constant(node: Node) -> Constant | None:
    literal = node.get("literal")
    if not isinstance(literal, dict) or "text" not in literal:
        return None
    kind, text = literal.get("kind"), str(literal["text"])
    if kind == "INTEGER":
        return Constant(int(text) if len(text) <= MAX_DIGITS else float(text))
    if kind in ("NUMERIC", "FLOAT", "DOUBLE"):
        return Constant(float(text))
    if kind == "BOOLEAN":
        return Constant(text.lower() == "true")
    return Constant(text) if kind == "STRING" else None


def _cast(node: Node) -> Cast:
    name = str((node.get("type_expr") or {}).get("type_name", "")).upper()
    return Cast(node["child"], name, bool(node.get("try_cast")))


def _comparison(node: Node) -> Comparison | None:
    op = _COMPARISONS.get(str(node.get("type")))
    return None if op is None else Comparison(node["left"], op, node["right"])


def _conjunction(node: Node) -> Conjunction | None:
    kind = node.get("type")
    if kind not in ("CONJUNCTION_AND", "CONJUNCTION_OR"):
        return None
    return Conjunction(kind == "CONJUNCTION_AND", node["children"])


def _between(node: Node) -> Between | None:
    is_plain = node.get("type") == "COMPARE_BETWEEN"
    return Between(node["input"], node["lower"], node["upper"]) if is_plain else None


def _operator(node: Node) -> Expression | None:
    kind, operands = node.get("type"), node.get("children") or []
    if kind == "OPERATOR_NOT":
        return Not(operands[0])
    if kind == "COMPARE_IN":
        return In(operands[0], operands[1:])
    if kind == "OPERATOR_COALESCE":
        return Choice(operands)
    if kind in ("STRUCT_EXTRACT", "ARRAY_EXTRACT"):
        name = text_of(operands[1])
        return None if name is None else Field(operands[0], name)
    return None


def _case(node: Node) -> Choice:
    results = [check["then_expr"] for check in node["case_checks"]]
    return Choice([*results, node["else_expr"]] if node.get("else_expr") else results)


def _arguments(node: Node) -> tuple[Sequence[Node], Mapping[str, Node]]:
    given = node.get("arguments") or []
    by_name = {str(a["name"]).lower(): a.get("expression", a) for a in given if a.get("name")}
    return [a.get("expression", a) for a in given if not a.get("name")], by_name


def _call(node: Node) -> Call:
    return Call(str(node.get("function_name")).lower(), *_arguments(node))


def _window(node: Node) -> Window:
    return Window(
        str(node.get("function_name")).lower(),
        *_arguments(node),
        node.get("orders") or (),
        str(node.get("start")),
        str(node.get("end")),
        bool(node.get("ignore_nulls")),
        not node.get("arg_orders") and node.get("exclude_clause") in (None, "NO_OTHER"),
    )


def _subquery(node: Node) -> ScalarQuery | None:
    is_scalar = node.get("subquery_type") == "SCALAR"
    return ScalarQuery(node["subquery"]["node"]) if is_scalar else None


def _star(node: Node) -> Star:
    return Star(
        str(node.get("relation_name") or "").lower(),
        frozenset(str(c).lower() for c in node.get("exclude_list") or []),
        frozenset(str(e["key"]).lower() for e in node.get("replace_list") or []),
        not (node.get("expr") or node.get("rename_list") or node.get("qualified_exclude_list")),
    )


_READERS: dict[Any, Callable[[Node], Expression | None]] = {
    "BETWEEN": _between,
    "CASE": _case,
    "CAST": _cast,
    "COLUMN_REF": _column,
    "COMPARISON": _comparison,
    "CONJUNCTION": _conjunction,
    "CONSTANT": _constant,
    "FUNCTION": _call,
    "OPERATOR": _operator,
    "STAR": _star,
    "SUBQUERY": _subquery,
    "WINDOW": _window,
}
_KNOWN = frozenset({*_READERS, "LAMBDA", "POSITIONAL_REFERENCE", "TYPE"})
