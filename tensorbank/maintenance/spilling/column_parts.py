"""The columns of rows in two parts: floats, which hardly get shorter by compressing them, and all others, which do by a lot."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from tensorbank.maintenance.struct_columns import column_of, narrowed, struct_like

__all__ = ["ColumnParts"]


class ColumnParts:
    """The columns of a schema in parts; a struct with fields of both kinds is in both. Either part may have no column.

    Parameters
    ----------
    schema
        Columns of the rows.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.floats, self.others = (
            pa.schema([f.with_type(kind) for f in schema if (kind := _part(f.type, floats)) is not None])
            for floats in (True, False)
        )

    def apart(self, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Return the floats and the others of rows whose columns have one chunk each."""
        floats, others = (
            pa.Table.from_arrays([narrowed(column_of(rows, f.name), f.type) for f in part], schema=part)
            for part in (self.floats, self.others)
        )
        return floats, others

    def together(self, floats: pa.Table, others: pa.Table) -> pa.Table:
        """Return the rows of which these are the parts."""
        parts = (floats, others)
        columns = [
            _joined(f.type, [column_of(part, f.name) for part in parts if f.name in part.column_names])
            for f in self.schema
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)


def _part(kind: pa.DataType, floats: bool) -> pa.DataType | None:
    """Return what a part has of a type, None if nothing."""
    if pa.types.is_struct(kind) and kind.num_fields:
        fields = [f.with_type(part) for f in kind if (part := _part(f.type, floats)) is not None]
        return pa.struct(fields) if fields else None
    is_float = pa.types.is_float32(kind) or pa.types.is_float64(kind)
    return kind if is_float == floats else None


def _joined(kind: pa.DataType, parts: Sequence[pa.Array]) -> pa.Array:
    """Return a column of which a part or both are given."""
    if parts[0].type == kind:
        return parts[0]
    children = [
        _joined(child.type, [p.field(child.name) for p in parts if p.type.get_field_index(child.name) >= 0])
        for child in kind
    ]
    return struct_like(children, kind, parts[0])
