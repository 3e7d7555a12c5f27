"""What a statement must not do, if its answer is to be tensors and to be the same again. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tensorbank.errors import InvalidInputError
from tensorbank.schema import TableSchema
from tensorbank.scopes import Scope, common_tables, scope_of

__all__ = ["check_handles", "check_repeatable"]

_AGGREGATES = {
    *(
        "max",
        "min",
        "any_value",
        "arbitrary",
        "first",
        "last",
        "mode",
        "list",
        "array_agg",
        "median",
        "quantile_disc",
    ),
    *(
        "arg_max",
        "arg_min",
        "argmax",
        "argmin",
        "max_by",
        "min_by",
        "arg_max_null",
        "arg_min_null",
        "histogram",
    ),
}
_RANDOM = frozenset(
    [
        "random",
        "uuid",
        "uuidv4",
        "uuidv7",
        "gen_random_uuid",
        "nextval",
        "setseed",
        "current_query_id",
        "txid_current",
    ]
)
_CLOCKS = {
    *("now", "today", "current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"),
    *("get_current_time", "get_current_timestamp", "transaction_timestamp"),
}


def check_repeatable(tree: Any) -> None:
    """InvalidInputError where a statement draws at random without a seed, or looks at the clock."""
    for node in _nodes(tree):
        sample = node.get("sample")
        if isinstance(sample, dict) and sample.get("sample_size") and not sample.get("repeatable"):
            raise InvalidInputError(
                "a plan must be the same again: give the sample a seed, such as USING SAMPLE reservoir(100 ROWS) REPEATABLE (7)",
                kind="not-repeatable",
            )
        name = _called(node)
        if name in _RANDOM:
            raise InvalidInputError(
                f"a plan must be the same again, and {name}() is not; hash(sample_id, 7) is, where a number per sample is needed",
                kind="not-repeatable",
            )
        if name in _CLOCKS:
            raise InvalidInputError(
                f"a plan must be the same again, and {name} is not; write the date or time",
                kind="not-repeatable",
            )


def check_handles(tree: Any, tables: Mapping[str, TableSchema]) -> None:
    """InvalidInputError where a statement aggregates handles: there is no largest tensor, and no mean of addresses."""
    for node, scopes in _in_scopes(tree, tables, (), {}):
        if node.get("class") not in ("FUNCTION", "WINDOW"):
            continue
        name = _called(node)
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


def _called(node: Any) -> str:
    """Lower-case name of the function that a node calls, or of a column that is none."""
    if node.get("class") in ("FUNCTION", "WINDOW"):
        return str(node.get("function_name")).lower()
    names = node.get("column_names") if node.get("class") == "COLUMN_REF" else None
    return (
        str(names[0]).lower()
        if names and len(names) == 1 and names[0].lower().startswith(("current_", "local"))
        else ""
    )


def _nodes(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


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
