"""Suggest the statistic that was meant where a statement names the handle itself. Pure.

Asked only when DuckDB refuses a statement: its own message is about structs, which users do not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.schema import Modality, TableSchema
from tensorbank.sql import (
    SUMS,
    Between,
    Call,
    Comparison,
    Expression,
    In,
    Node,
    Window,
    expression_of,
    quoted,
)
from tensorbank.statements.names import Found, Visible, in_scopes
from tensorbank.statistics import QUANTILES

__all__ = ["find_slip", "unknown_column"]

STATISTICS = ("count", "valid", "min", "max", "mean", "std", *(name for name, _ in QUANTILES))
_UNKNOWN = re.compile(
    r'Referenced column "([^"]+)" not found|"([^"]+)" does not have a column named "([^"]+)"'
)
_FIELDS = frozenset(
    {"ref", "source", "product_ids", "radiometric_offset", "key", "n_samples", "length", "bands"}
)
_ARITHMETIC = SUMS | frozenset(
    {"+", "-", "*", "/", "//", "%", "**", "^", "abs", "round", "least", "greatest", "ln", "sqrt"}
)


def find_slip(tree: Node, tables: Mapping[str, TableSchema]) -> InvalidInputError | None:
    """Return an error that says what is wrong with a name of a handle and what is right; None if all seem right."""
    for node, around in in_scopes(tree, Visible(tables)):
        found = around.handle_of(node)
        slip = _of_path(found) if found is not None and found.rest else _of_operands(node, around)
        if slip is not None:
            return slip
    return None


def unknown_column(report: str, columns: Iterable[str]) -> InvalidInputError | None:
    """Return an error with the names nearest to a column that DuckDB reports not to find; None if it reports something else."""
    found = _UNKNOWN.search(report)
    if found is None:
        return None
    name, owner = found[1] or found[3], f" in {found[2]!r}" if found[2] else ""
    if name.lower() in {c.lower() for c in columns}:
        return InvalidInputError(
            f"there is no column {name!r}{owner} here: the table has it, but the subquery in between does not select it; "
            "select it there",
            kind=ErrorKind.SQL,
        )
    known = {*columns, *re.findall(r'"([^"]+)"', report[found.end() :].split("LINE", maxsplit=1)[0])}
    hint = nearest(name, known) or " DESCRIBE of the table lists its columns."
    return InvalidInputError(f"there is no column {name!r}{owner}.{hint}", kind=ErrorKind.SQL)


def _of_operands(node: Node, around: Visible) -> InvalidInputError | None:
    """Return an error where a handle is compared or calculated with as if it were a number."""
    for operand in _operands(expression_of(node)):
        found = around.handle_of(operand)
        if found is not None and not found.rest:
            name = ".".join(found.path)
            return InvalidInputError(
                f"{name} is a tensor, not a number; take a statistic of it, such as {_example(name, found.origin.modality)}",
                kind=ErrorKind.SQL,
            )
    return None


def _operands(found: Expression | None) -> Sequence[Node]:
    """Return the expressions that must be numbers, or texts, for another to make sense."""
    match found:
        case Comparison(left, _, right):
            return [left, right]
        case Between(value, low, high):
            return [value, low, high]
        case In(value, listed):
            return [value, *listed]
        case Call(name, arguments) if name in _ARITHMETIC and not isinstance(found, Window):
            return arguments
    return []


def _of_path(found: Found) -> InvalidInputError | None:
    modality, name, rest = found.origin.modality, ".".join(found.path), found.rest
    first = rest[0].lower()
    if first in _FIELDS:
        return None
    if modality.categorical:
        return _of_classes(modality, name, rest)
    if len(modality.bands) == 1:
        return None if first in STATISTICS or found.origin.level == "shards" else _no_statistic(name, rest[0])
    bands = {b.lower(): b for b in modality.band_names}
    if first in bands:
        sound = len(rest) == 1 or rest[1].lower() in STATISTICS or found.origin.level == "shards"
        return None if sound else _no_statistic(f"{name}.{bands[first]}", rest[1])
    if first in STATISTICS:
        return InvalidInputError(
            f"{name} has {len(bands)} bands, each with statistics of its own; "
            f"name one, such as {_example(name, modality, first)}",
            kind=ErrorKind.UNKNOWN_BAND,
        )
    return InvalidInputError(
        f"modality {modality.name} has no band {rest[0]!r}.{nearest(rest[0], modality.band_names)}",
        kind=ErrorKind.UNKNOWN_BAND,
    )


def _of_classes(modality: Modality, name: str, rest: Sequence[str]) -> InvalidInputError | None:
    classes = {n.lower(): n for _, n in modality.classes}
    first = rest[0].lower()
    if first in ("count", "valid"):
        return None
    if not first.endswith("share"):
        meant = classes.get(first)
        such = f"{name}.share.{_name(meant)}" if meant else _example(name, modality)
        return InvalidInputError(
            f"{name} holds classes, whose shares are its statistics; there is no {rest[0]!r}, but {such}",
            kind=ErrorKind.SQL,
        )
    if len(rest) > 1 and rest[1].lower() not in classes:
        return InvalidInputError(
            f"modality {modality.name} has no class {rest[1]!r}.{nearest(rest[1], classes.values())}",
            kind=ErrorKind.SQL,
        )
    return None


def _no_statistic(name: str, got: str) -> InvalidInputError:
    return InvalidInputError(
        f"{name} has no statistic {got!r}.{nearest(got, STATISTICS)}", kind=ErrorKind.SQL
    )


def _example(name: str, modality: Modality, statistic: str = "mean") -> str:
    """Return the path of a statistic that a handle has."""
    if modality.categorical:
        classes = [n for _, n in modality.classes]
        return f"{name}.share.{_name(classes[-1])}"
    if len(modality.bands) == 1:
        return f"{name}.{statistic}"
    names = modality.band_names
    return f"{name}.{_name('B04' if 'B04' in names else names[0])}.{statistic}"


def _name(name: str) -> str:
    return name if name.isidentifier() else quoted(name)
