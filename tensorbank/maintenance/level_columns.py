"""The columns of a level as its rows are written anew: nulls in files from before a column, numbers for texts that repeat.

Most columns of tiles are those of their sample, repeated: :class:`TileHalves` takes them apart while rows are on their way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema
from tensorbank.maintenance.struct_columns import column_of, narrowed, struct_like
from tensorbank.schema import TableSchema

__all__ = ["RUN_COLUMN", "TileHalves", "compact_schema", "conformed", "level_schema", "repeating_texts"]

_MAKERS = {"samples": samples_schema, "tiles": tiles_schema, "shards": shards_schema}
REPEATING = frozenset({"part", "split", "subset", "season"})
"""The columns of texts that are few; so are the keys of shards in ``ref``, and the samples of tiles."""
WORD = pa.dictionary(pa.int32(), pa.string())
OF_SAMPLE = frozenset({"sample_id", "part", "split", "row", "season", "lon", "lat", "key"})
"""The columns of tiles that are the same in all tiles of a sample."""
OF_REF = frozenset({"key", "row", "offset", "length", "block_bytes"})
"""The fields of a modality's ``ref`` that are the same in all tiles of a sample."""
RUN_COLUMN = "__run"
"""The number of the row with what tiles share, in both halves, int64."""


def level_schema(level: str, schema: TableSchema, columns: pa.Schema) -> pa.Schema:
    """Return the columns of a level's files: ours, and after them those that other programs added to the Delta table."""
    ours = _MAKERS[level](schema)
    return pa.schema([*ours, *(f for f in columns if ours.get_field_index(f.name) < 0)])


def repeating_texts(schema: pa.Schema) -> list[str]:
    """Return the paths of the columns whose texts repeat, as Parquet names them."""
    return list(_repeating(schema, _few(schema)))


def _few(schema: pa.Schema) -> frozenset[str]:
    return REPEATING | {"sample_id"} if schema.get_field_index("tile") >= 0 else REPEATING


def _repeating(
    fields: pa.Schema | pa.DataType, few: frozenset[str], above: tuple[str, ...] = ()
) -> Iterator[str]:
    for field in fields:
        path = (*above, field.name)
        if pa.types.is_struct(field.type):
            yield from _repeating(field.type, few, path)
        elif _repeats(field, path, few):
            yield ".".join(path)


def _repeats(field: pa.Field, path: tuple[str, ...], few: frozenset[str]) -> bool:
    """Return True for texts that are few, and for keys of shards: those of modalities, not what lies deeper in other columns."""
    is_one = field.name in few if len(path) == 1 else len(path) == 3 and path[1:] == ("ref", "key")
    return is_one and bool(pa.types.is_string(field.type))


def compact_schema(schema: pa.Schema) -> pa.Schema:
    """Return the same columns with texts that repeat as numbers of a dictionary."""
    few = _few(schema)
    return pa.schema([_compact(field, few, ()) for field in schema])


def _compact(field: pa.Field, few: frozenset[str], above: tuple[str, ...]) -> pa.Field:
    path = (*above, field.name)
    if pa.types.is_struct(field.type):
        return field.with_type(pa.struct([_compact(child, few, path) for child in field.type]))
    return field.with_type(WORD) if _repeats(field, path, few) else field


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


class TileHalves:
    """The columns of tiles in halves: those of the sample, which neighbouring rows share, and those of each tile.

    Rows share a row of the first half where all columns of it are equal, so nothing is lost of rows of any other kind.

    Parameters
    ----------
    schema
        Columns of tiles, texts that repeat as numbers.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        run = pa.field(RUN_COLUMN, pa.int64())
        once, each = [], []
        for field in self.schema:
            if field.name == "sample_id":  # of a sample there are no repetitions in the first half
                once.append(field.with_type(pa.string()))
            elif field.name in OF_SAMPLE:
                once.append(field)
            elif _has_ref(field):
                ref = field.type.field("ref")
                once += [child.with_name(_path(field, child)) for child in ref.type if child.name in OF_REF]
                own = ref.with_type(pa.struct([child for child in ref.type if child.name not in OF_REF]))
                each.append(field.with_type(pa.struct([own if c.name == "ref" else c for c in field.type])))
            else:
                each.append(field)
        self.once, self.each = pa.schema([*once, run]), pa.schema([*each, run])

    def starts(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """Return the first row of each run of rows that share the columns of the first half."""
        if not rows.num_rows:
            return np.zeros(0, np.int64)
        changed = np.zeros(rows.num_rows - 1, np.bool_)
        for values in self._shared(rows):
            changed |= _changes(values)
        return np.concatenate([[0], 1 + np.flatnonzero(changed)])

    def apart(self, rows: pa.Table, starts: npt.NDArray[np.int64], first: int) -> tuple[pa.Table, pa.Table]:
        """Return both halves of rows, whose runs are numbered from ``first`` on."""
        where, numbers = as_arrow(starts), first + np.arange(len(starts))
        shared = zip(self.once, self._shared(rows), strict=False)
        once = [_of_type(values.take(where), field.type) for field, values in shared]
        each = []
        for field in self.each:
            if field.name == RUN_COLUMN:
                continue
            values = column_of(rows, field.name)
            each.append(narrowed(values, field.type))
        of_rows = np.repeat(numbers, np.diff([*starts, rows.num_rows]))
        return (
            pa.Table.from_arrays([*once, as_arrow(numbers)], schema=self.once),
            pa.Table.from_arrays([*each, as_arrow(of_rows)], schema=self.each),
        )

    def together(self, once: pa.Table, starts: npt.NDArray[np.int64], each: pa.Table) -> pa.Table:
        """Return rows whose second halves are given row by row, and the first ones for each run of them, (n,).

        Texts are numbers of dictionaries that have no other words than these rows.

        Parameters
        ----------
        starts
            First row of each run, (n,) int64.
        """
        runs = np.repeat(np.arange(len(starts), dtype=np.int32), np.diff([*starts, each.num_rows]))
        once = pc.take(_with_own_words(once), as_arrow(runs), boundscheck=False)
        columns = []
        for field in self.schema:
            if field.name in OF_SAMPLE:
                columns.append(column_of(once, field.name))
                continue
            values = column_of(each, field.name)
            if _has_ref(field):
                own = values.field("ref")
                fields = field.type.field("ref").type
                children = [
                    column_of(once, _path(field, child)) if child.name in OF_REF else own.field(child.name)
                    for child in fields
                ]
                ref = struct_like(children, fields, own)
                children = [ref if child.name == "ref" else values.field(child.name) for child in field.type]
                values = struct_like(children, field.type, values)
            columns.append(_own_words(values) if pa.types.is_dictionary(field.type) else values)
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _shared(self, rows: pa.Table) -> Iterator[pa.Array]:
        for field in self.schema:
            if field.name in OF_SAMPLE:
                yield column_of(rows, field.name)
            elif _has_ref(field):
                values = column_of(rows, field.name)
                ref = values.field("ref")
                for child in (c for c in ref.type if c.name in OF_REF):
                    # texts are NULL where there is no ref: Parquet's statistics count numbers of texts whatever they are in
                    is_text = pa.types.is_dictionary(child.type)
                    yield pc.struct_field(values, ["ref", child.name]) if is_text else ref.field(child.name)


def _with_own_words(rows: pa.Table) -> pa.Table:
    """Return rows with all texts as numbers of dictionaries of their own: those of what they are taken from are far longer."""
    names = rows.column_names
    columns = [column_of(rows, name) for name in names]
    is_text = [pa.types.is_string(c.type) or pa.types.is_dictionary(c.type) for c in columns]
    columns = [_own_words(c) if text else c for c, text in zip(columns, is_text, strict=True)]
    return pa.Table.from_arrays(columns, names=names)


def _own_words(texts: pa.Array) -> pa.DictionaryArray:
    """Return texts as numbers of a dictionary that has no other words."""
    plain = texts.dictionary_decode() if pa.types.is_dictionary(texts.type) else texts
    return plain.dictionary_encode().cast(WORD)


def _has_ref(field: pa.Field) -> bool:
    if not pa.types.is_struct(field.type) or field.type.get_field_index("ref") < 0:
        return False
    return bool(pa.types.is_struct(field.type.field("ref").type))


def _path(field: pa.Field, child: pa.Field) -> str:
    return f"{field.name}.ref.{child.name}"


def _changes(values: pa.Array) -> npt.NDArray[np.bool_]:
    """Return where rows differ from the one before, (n - 1,); True where that is hard to tell."""
    changed = np.zeros(len(values) - 1, np.bool_)
    if values.null_count:
        there = as_numpy(pc.is_valid(values))
        changed |= there[1:] != there[:-1]
    if pa.types.is_list(values.type):
        return changed | _list_changes(values)
    if pa.types.is_dictionary(values.type):
        values = values.indices
    numbers = as_numpy(values, 0)
    if numbers.dtype.kind == "f":
        numbers = numbers.view(
            f"i{numbers.itemsize}"
        )  # numbers that are none are equal, and zeros of both signs are not
    changed |= numbers[1:] != numbers[:-1]
    return changed


def _list_changes(values: pa.ListArray) -> npt.NDArray[np.bool_]:
    offsets = as_numpy(values.offsets)
    inner = values.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    lengths = np.diff(offsets)
    if inner.null_count or (lengths[1:] != lengths[:-1]).any():
        return _uneven_list_changes(values)
    if not lengths[0]:
        return np.zeros(len(values) - 1, np.bool_)
    numbers = as_numpy(inner).reshape(len(values), int(lengths[0]))
    return np.asarray((numbers[1:] != numbers[:-1]).any(axis=1))


def _uneven_list_changes(values: pa.ListArray) -> npt.NDArray[np.bool_]:
    """Compare lists of several lengths: those of equal lengths number by number, at their places."""
    offsets = as_numpy(values.offsets).astype(np.int64)
    inner = values.values
    if inner.null_count:
        return np.ones(len(values) - 1, np.bool_)
    numbers = as_numpy(inner)
    lengths = np.diff(offsets)
    changed = lengths[1:] != lengths[:-1]
    same = np.flatnonzero(~changed)
    n = lengths[same]
    if not n.sum():
        return np.asarray(changed)
    within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    differs = (
        numbers[np.repeat(offsets[same], n) + within] != numbers[np.repeat(offsets[same + 1], n) + within]
    )
    changed[np.repeat(same, n)[differs]] = True
    return np.asarray(changed)
