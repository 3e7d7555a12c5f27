"""Find the uses of a handle that a statement must not have if its answer is to be tensors. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.schema import TableSchema
from tensorbank.sql import ORDERED_AGGREGATES, Call, Node, expression_of
from tensorbank.statements.names import Found, Visible, choice_of_bands, in_scopes, texts_of

__all__ = ["check_handles"]

_AGGREGATES = ORDERED_AGGREGATES | {"max", "min", "median", "quantile_disc", "histogram"}
"""The aggregates that DuckDB would apply to a handle, as to any struct."""


def check_handles(tree: Node, tables: Mapping[str, TableSchema]) -> None:
    """Refuse aggregates of handles, since there is no largest tensor and no mean of addresses, and bands that there are not.

    Raises
    ------
    InvalidInputError, NotFoundError
        The statement has one.
    """
    for node, around in in_scopes(tree, Visible(tables)):
        call = expression_of(node)
        if not isinstance(call, Call):
            continue
        if (chosen := choice_of_bands(call)) is not None:
            _check_bands(chosen[1], around.handle_of(chosen[0]))
        if call.name not in _AGGREGATES:
            continue
        for argument in call.arguments:
            found = around.handle_of(argument)
            if found is not None and not found.rest:
                raise InvalidInputError(
                    f"{call.name}({'.'.join(found.path)}) is an aggregate of tensors, which has no address; "
                    "choose the sample instead, such as QUALIFY row_number() OVER (PARTITION BY ... ORDER BY ...) = 1",
                    kind=ErrorKind.SQL,
                )


def _check_bands(names: Node, found: Found | None) -> None:
    """Refuse a name that is no band; DuckDB knows nothing of them."""
    if found is not None and not found.rest:
        for name in texts_of(names) or ():
            found.origin.modality.band_index(name)
