"""Values that a user gives for samples: which columns they are, and as which types they are stored."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.index_schema import SAMPLE_COLUMNS
from tensorbank.layout import check_identifier
from tensorbank.schema import TableSchema

__all__ = ["check_new_names", "stored_type", "stored_values", "values_of"]

MATCHED = ("sample_id", "split", "key")
"""The columns that tell which sample a row is of."""
_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
    pa.large_string(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.string_view(): pa.string(),
}
"""The types that are stored as wider or plainer ones, since Delta has none of them."""


def values_of(rows: pa.Table, on: str) -> list[str]:
    """Return the names of the columns of values.

    Raises
    ------
    InvalidInputError
        The rows lack the column that they are matched by, or have it of another type, or have no others.
    """
    if on not in ("sample_id", "key"):
        raise InvalidInputError(f"columns are matched by 'sample_id' or 'key', not by {on!r}")
    if on not in rows.column_names:
        raise InvalidInputError(
            f"the given rows have no column {on!r} to match them by.{nearest(on, rows.column_names)}"
        )
    for name, kind in zip(rows.column_names, rows.schema.types, strict=True):
        texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        if name in ("sample_id", "split") and not any(is_text(plain) for is_text in texts):
            raise InvalidInputError(
                f"{name} of the given rows is {kind}, and that of samples is a text; cast it to string, with its leading zeros"
            )
        if name == on == "key" and not pa.types.is_integer(plain):
            raise InvalidInputError(f"key of the given rows is {kind}, and that of samples is int64; cast it")
    names = [name for name in rows.column_names if name not in MATCHED]
    if not names:
        raise InvalidInputError(
            f"the given rows have no column of values beside {', '.join(rows.column_names)}"
        )
    return names


def check_new_names(names: Collection[str], schema: TableSchema, there: Collection[str]) -> None:
    """Raise InvalidInputError if new columns cannot have these names: SQL could not tell them from what the table has."""
    taken = {n.lower(): f"has a column {n!r} already" for n in (f.name for f in SAMPLE_COLUMNS)}
    taken |= {n.lower(): f"has a modality {n!r}" for n in schema.names}
    taken |= {
        n.lower(): f"has an added column {n!r} already; replace=True (--replace) gives it new values"
        for n in there
    }
    for name in names:
        check_identifier(name, "a column")
        if name.lower() in taken:
            raise InvalidInputError(
                f"column {name!r} cannot be added: the table {taken[name.lower()]}", kind=ErrorKind.BAD_NAME
            )


def stored_type(kind: pa.DataType, name: str) -> pa.DataType:
    """Return the type that values are stored as.

    Raises
    ------
    InvalidInputError
        The index cannot hold such values.
    """
    if pa.types.is_dictionary(kind):
        return stored_type(kind.value_type, name)
    if kind in _WIDER:
        return _WIDER[kind]
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(stored_type(kind.value_type, name))
    plain = (pa.types.is_boolean, pa.types.is_signed_integer, pa.types.is_floating, pa.types.is_string)
    if any(
        is_plain(kind)
        for is_plain in (*plain, pa.types.is_binary, pa.types.is_date32, pa.types.is_decimal128)
    ):
        return kind
    raise InvalidInputError(
        f"column {name!r} is of the type {kind}, which an index cannot hold; cast it to numbers, texts, times, or lists of them"
    )


def stored_values(column: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, int]:
    """Return values as they are stored, and the number of NaN among them, which become null.

    Raises
    ------
    InvalidInputError
        There is an infinity among them, or a number that the stored type cannot hold.
    """
    kind = stored_type(column.type, name)
    try:
        stored = column.cast(kind)
    except pa.ArrowInvalid as error:
        raise InvalidInputError(
            f"column {name!r} cannot be stored as {kind}: {str(error).splitlines()[0]}"
        ) from error
    if not pa.types.is_floating(kind):
        return stored, 0
    if pc.any(pc.is_inf(stored)).as_py():
        raise InvalidInputError(
            f"column {name!r} holds infinities, which an index must not; give numbers, or null for none"
        )
    n_nan = int(pc.sum(pc.is_nan(stored)).as_py() or 0)
    return (pc.if_else(pc.is_nan(stored), pa.scalar(None, kind), stored) if n_nan else stored), n_nan
