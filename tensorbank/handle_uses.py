"""What a statement must not do with a handle, if its answer is to be tensors. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tensorbank.errors import InvalidInputError
from tensorbank.schema import TableSchema
from tensorbank.scopes import Scope, common_tables, scope_of
from tensorbank.sql_catalogue import ORDERED_AGGREGATES

__all__ = ["check_handles"]

_AGGREGATES = ORDERED_AGGREGATES | {"max", "min", "median", "quantile_disc", "histogram"}
"""Those that DuckDB would apply to a handle, as to any struct."""


def check_handles(tree: Any, tables: Mapping[str, TableSchema]) -> None:
    """Refuse aggregates of handles: there is no largest tensor, and no mean of addresses.

    Raises
    ------
    InvalidInputError
        The statement has one.
    """
    for node, scopes in _in_scopes(tree, tables, (), {}):
        if node.get("class") not in ("FUNCTION", "WINDOW"):
            continue
        name = str(node.get("function_name")).lower()
        if name not in _AGGREGATES:
            continue
        for argument in node.get("arguments") or []:
            path = [str(n) for n in argument.get("expression", argument).get("column_names", [])]
            found = next((f for scope in scopes if (f := scope.handle(path))), None) if path else None
            if found is not None and not found.rest:
                raise InvalidInputError(
                    f"{name}({'.'.join(path)}) is an aggregate of tensors, which has no address; choose the sample instead, "
                    "such as QUALIFY row_number() OVER (PARTITION BY ... ORDER BY ...) = 1",
                    kind="sql",
                )


def _in_scopes(
    tree: Any, tables: Mapping[str, TableSchema], scopes: Sequence[Scope], common: Mapping[str, Any]
) -> Iterator[tuple[Any, Sequence[Scope]]]:
    """Every node, with the scopes of the SELECTs around it, the innermost first."""
    if isinstance(tree, list):
        for value in tree:
            yield from _in_scopes(value, tables, scopes, common)
    elif isinstance(tree, dict):
        if "cte_map" in tree:
            common = common_tables(tree, tables, common)
        if tree.get("type") == "SELECT_NODE":
            scopes = (scope_of(tree, tables, common), *scopes)
        yield tree, scopes
        for value in tree.values():
            yield from _in_scopes(value, tables, scopes, common)
