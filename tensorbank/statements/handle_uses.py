"""Find the uses of a handle that a statement must not have if its answer is to be tensors. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.schema import TableSchema
from tensorbank.sql import ORDERED_AGGREGATES
from tensorbank.statements.names import Found, Scope, in_scopes

__all__ = ["check_handles"]

_AGGREGATES = ORDERED_AGGREGATES | {"max", "min", "median", "quantile_disc", "histogram"}
"""The aggregates that DuckDB would apply to a handle, as to any struct."""


def check_handles(tree: Any, tables: Mapping[str, TableSchema]) -> None:
    """Refuse aggregates of handles, since there is no largest tensor and no mean of addresses, and bands that there are not.

    Raises
    ------
    InvalidInputError, NotFoundError
        The statement has one.
    """
    for node, scopes in in_scopes(tree, tables):
        if node.get("class") not in ("FUNCTION", "WINDOW"):
            continue
        name = str(node.get("function_name")).lower()
        arguments = [a.get("expression", a) for a in node.get("arguments") or []]
        if name == "bands" and len(arguments) == 2:
            _check_bands(arguments[1], _handle(arguments[0], scopes))
        if name not in _AGGREGATES:
            continue
        for argument in arguments:
            if _handle(argument, scopes) is not None:
                raise InvalidInputError(
                    f"{name}({'.'.join(argument['column_names'])}) is an aggregate of tensors, which has no address; "
                    "choose the sample instead, such as QUALIFY row_number() OVER (PARTITION BY ... ORDER BY ...) = 1",
                    kind=ErrorKind.SQL,
                )


def _handle(node: Any, scopes: Sequence[Scope]) -> Found | None:
    """The handle that an expression is, as a whole."""
    path = [str(n) for n in node.get("column_names") or []]
    found = next((f for scope in scopes if (f := scope.handle(path))), None) if path else None
    return found if found is not None and not found.rest else None


def _check_bands(names: Any, found: Found | None) -> None:
    """Refuse a name that is no band; DuckDB knows nothing of them."""
    if found is None or str(names.get("function_name")).lower() not in ("list_value", "list_pack"):
        return
    for argument in names["arguments"]:
        literal = argument.get("expression", argument).get("literal") or {}
        if literal.get("kind") == "STRING":
            found.origin.modality.band_index(str(literal["text"]))
