"""Columns of structs, which are made of others and of fewer fields. The values below a null stay as they are."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["column_of", "narrowed", "struct_like"]


def column_of(rows: pa.Table, name: str) -> pa.Array:
    """Return a column of one chunk, or of none."""
    column = rows.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def struct_like(children: list[pa.Array], kind: pa.DataType, like: pa.StructArray) -> pa.StructArray:
    """Return a struct of some fields, null where another one is."""
    mask = like.is_null() if like.null_count else None
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=mask)


def narrowed(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a column with just the fields that a type has, at any depth."""
    if values.type == kind:
        return values
    return struct_like([narrowed(values.field(child.name), child.type) for child in kind], kind, values)
