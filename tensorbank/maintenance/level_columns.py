"""The columns of a level as its rows are written anew: nulls in files from before a column, numbers for texts that repeat."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema
from tensorbank.schema import TableSchema

__all__ = ["compact_schema", "conformed", "level_schema", "repeating_texts"]

_MAKERS = {"samples": samples_schema, "tiles": tiles_schema, "shards": shards_schema}
REPEATING = frozenset({"part", "split", "subset", "season"})
"""The columns of texts that are few; so are the keys of shards in ``ref``."""
WORD = pa.dictionary(pa.int32(), pa.string())


def level_schema(level: str, schema: TableSchema, columns: pa.Schema) -> pa.Schema:
    """Return the columns of a level's files: ours, and after them those that other programs added to the Delta table."""
    ours = _MAKERS[level](schema)
    return pa.schema([*ours, *(f for f in columns if ours.get_field_index(f.name) < 0)])


def repeating_texts(schema: pa.Schema) -> list[str]:
    """Return the paths of the columns whose texts repeat, as Parquet names them."""
    return list(_repeating(schema))


def _repeating(fields: pa.Schema | pa.DataType, above: str = "") -> Iterator[str]:
    for field in fields:
        path = f"{above}{field.name}"
        if pa.types.is_struct(field.type):
            yield from _repeating(field.type, f"{path}.")
        elif pa.types.is_string(field.type) and (path in REPEATING or path.endswith(".ref.key")):
            yield path


def compact_schema(schema: pa.Schema) -> pa.Schema:
    """Return the same columns with texts that repeat as numbers of a dictionary."""
    return pa.schema([_compact(field, "") for field in schema])


def _compact(field: pa.Field, above: str) -> pa.Field:
    path = f"{above}{field.name}"
    if pa.types.is_struct(field.type):
        return field.with_type(pa.struct([_compact(child, f"{path}.") for child in field.type]))
    is_word = pa.types.is_string(field.type) and (path in REPEATING or path.endswith(".ref.key"))
    return field.with_type(WORD) if is_word else field


def conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with just the columns of a schema, in its order and types; nulls where they lack one."""
    rows = rows.combine_chunks()
    columns = []
    for field in schema:
        place = rows.schema.get_field_index(field.name)
        if place < 0:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        chunks = rows.column(place).chunks
        columns.append(_of_type(chunks[0], field.type) if chunks else pa.nulls(0, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _of_type(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if values.type == kind:
        return values
    if pa.types.is_struct(kind) and pa.types.is_struct(values.type):
        fields = [
            pa.nulls(len(values), child.type)
            if values.type.get_field_index(child.name) < 0
            else _of_type(values.field(child.name), child.type)
            for child in kind
        ]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=values.is_null())
    if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(values.type):
        return _of_type(values.dictionary_encode(), kind)
    return values.cast(kind)
