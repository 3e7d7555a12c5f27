"""Turn rows of a query into the addresses of a plan. Pure: Arrow in, Arrow out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.addressing.shard_keys import ShardKeys
from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.errors import ErrorKind, IntegrityError, InvalidInputError
from tensorbank.layout import is_shard_key, modality_of_key, table_of_key
from tensorbank.plans import Handle
from tensorbank.schema import Modality, TableSchema
from tensorbank.statements import Origin

__all__ = ["BANDS_SEPARATOR", "HandleColumn", "address_columns", "resolve"]

MAX_RUN_BYTES = (1 << 32) - 1
"""The longest run of blocks in bytes: a plan holds it in 32 bits."""
BANDS_SEPARATOR = "\x1f"
Present = npt.NDArray[np.bool_]
Sizes = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class HandleColumn:
    """A handle column of a result, narrowed to what addressing needs.

    ``name`` is the column's name in the result; ``rows`` has the columns key, offset, length; where bands were chosen, also
    block_bytes and bands, their names joined by :data:`BANDS_SEPARATOR`; where there are several dates, also block_bytes; of
    tiles also y0, x0, height, width, and, where there are several dates, time_index. Keys are dictionary-encoded, in one chunk,
    with a dictionary in the order of the rows. ``origins`` are those that the statement itself tells, none if it does not.
    """

    name: str
    rows: pa.Table
    origins: tuple[Origin, ...] = ()

    @classmethod
    def of(
        cls, name: str, rows: pa.ChunkedArray, origins: tuple[Origin, ...], shards: ShardKeys
    ) -> HandleColumn:
        """Return the column of structs with these fields, a hash for each key.

        Raises
        ------
        InvalidInputError
            A row leads to none of the shards.
        """
        columns = dict(zip([f.name for f in rows.type], rows.flatten(), strict=True))
        keys = shards.encode(as_numpy(columns["key"]), name)
        return cls(name, pa.table({**columns, "key": keys}), origins)

    @classmethod
    def of_refs(cls, name: str, refs: pa.StructArray) -> HandleColumn:
        """Return the column of addresses as rows of the index have them:
        :data:`tensorbank.index_schema.TILE_REF_TYPE`.
        """
        columns = dict(zip([f.name for f in refs.type], refs.flatten(), strict=True))
        size = {
            "height": pc.subtract(columns["y1"], columns["y0"]),
            "width": pc.subtract(columns["x1"], columns["x0"]),
        }
        return cls(name, pa.table({**columns, **size, "key": columns["key"].dictionary_encode()}))

    def __post_init__(self) -> None:
        """Refuse keys that are none: whoever wrote the index, nothing is looked up or read by their word alone."""
        for key in self.keys.dictionary.to_pylist():
            if not is_shard_key(key):
                raise IntegrityError(
                    f"the index says that {self.name} lies in {key!r}, which is not the key of a shard",
                    kind=ErrorKind.BAD_ADDRESS,
                )

    @property
    def keys(self) -> pa.DictionaryArray:
        """The shard keys, (n,), null where the sample lacks the modality."""
        return self.rows["key"].chunk(0)

    @cached_property
    def arrays(self) -> tuple[str, ...]:
        """The shard keys, one of each array that the rows lead to."""
        return tuple({key.rpartition("/c/")[0]: key for key in self.keys.dictionary.to_pylist()}.values())

    def has(self, field: str) -> bool:
        """Tell whether the rows have a field."""
        return field in self.rows.column_names

    def numbers(self, field: str, dtype: type[np.integer[Any]] = np.int64) -> npt.NDArray[Any]:
        """Return a field as (n,) integers, 0 where the sample lacks the modality."""
        return as_numpy(self.rows[field], 0).astype(dtype, copy=False)


def resolve(
    column: HandleColumn,
    schemas: Mapping[str, TableSchema],
    *,
    stored: Mapping[str, str] | None = None,
    by_date: bool = False,
) -> tuple[str, Handle]:
    """Return the table and handle of a column.

    Parameters
    ----------
    schemas
        The tables of the statement, by their names there.
    stored
        Names in the bank of tables whose names in the statement are others, as of those at another version.
    by_date
        Address each date alone, where a sample has several.

    Raises
    ------
    InvalidInputError
        The column mixes modalities or band choices, or nothing tells which modality it is.
    """
    found = _of_keys(column, schemas, stored or {})
    if not found:  # no row has the modality, so the statement alone can tell
        found = {(o.table, o.modality.name) for o in column.origins} or _named(column.name, schemas)
    if not found:
        raise InvalidInputError(
            f"no row is selected, so the modality of column {column.name!r} is unknown; name the column like its modality"
        )
    names = {modality for _, modality in found}
    if len(names) > 1:
        raise InvalidInputError(
            f"column {column.name!r} mixes the modalities {', '.join(sorted(names))}; select them as columns of their own"
        )
    table, name = min(found)
    modality = schemas[table][name]
    for other in sorted({t for t, _ in found} - {table}):
        if _form(schemas[other][name]) != _form(modality):
            raise InvalidInputError(
                f"column {column.name!r} mixes {name} of {table} and of {other}, which differ in dtype, shape or bands; "
                "select them as columns of their own"
            )
    bands = _chosen_bands(column, modality)
    label = modality.name if column.name.startswith("bands(") else column.name
    window = _window(column)
    return table, Handle(
        label, modality, bands, window, by_date=by_date and window is None and modality.n_times > 1
    )


def _window(column: HandleColumn) -> tuple[int, int] | None:
    """Return the height and width of the tiles in a column, None where it holds whole samples."""
    if not column.has("y0"):
        return None
    extremes = [pc.min_max(column.rows[n]).as_py() for n in ("height", "width")]
    if all(e["min"] == e["max"] and e["min"] is not None for e in extremes):
        return extremes[0]["min"], extremes[1]["min"]
    sizes = np.unique((column.numbers("height") << 32) | column.numbers("width"))
    shapes = [(size >> 32, size & 0xFFFFFFFF) for size in sizes.tolist() if size]  # 0: no modality, no window
    if len(shapes) > 1:
        some = " and ".join(f"{h} x {w}" for h, w in shapes[:2])
        raise InvalidInputError(
            f"the tiles of column {column.name!r} have windows of {some} pixels, which do not fit one batch; "
            "select those of one shape, such as WHERE y1 - y0 = ..."
        )
    if len(sizes) and not shapes:
        raise InvalidInputError(
            f"none of the selected tiles has {column.name!r}, so its window has no size; select WHERE {column.name} IS NOT NULL",
            kind=ErrorKind.NO_WINDOW,
        )
    return shapes[0] if shapes else (1, 1)


def _of_keys(
    column: HandleColumn, schemas: Mapping[str, TableSchema], stored: Mapping[str, str]
) -> set[tuple[str, str]]:
    """Return the tables and modalities that the rows of a column lead to.

    A shard belongs to a table, whatever its version. Where the statement has it at several, it tells which are meant, or all are.
    """
    said = {origin.table for origin in column.origins}
    found = set()
    for key in column.arrays:
        table, modality = table_of_key(key), modality_of_key(key)
        having = {n for n, schema in schemas.items() if modality in schema.names}
        every = {n for n in having if stored.get(n, n) == table}
        # shards of a copied table lie below another name
        meant = every & said or having & said or every or having or {min(schemas)}
        found |= {(name, modality) for name in meant}
    return found


def _named(name: str, schemas: Mapping[str, TableSchema]) -> set[tuple[str, str]]:
    """Return the modalities that are called as a column is, by table."""
    return {
        (table, m.name) for table, schema in schemas.items() for m in schema if m.name.lower() == name.lower()
    }


def _choices(column: HandleColumn) -> set[tuple[str, ...]]:
    """Return the lists of band names in ``bands()``: of the rows, or of the statement where there is no row."""
    if not column.has("bands"):
        return set()
    written = pc.unique(column.rows["bands"]).drop_null().to_pylist()
    of_rows = {tuple(names.split(BANDS_SEPARATOR)) if names else () for names in written}
    return of_rows or {origin.bands for origin in column.origins if origin.bands is not None}


def _form(modality: Modality) -> tuple[object, ...]:
    """Return the properties that decide what a tensor's bytes mean."""
    return modality.dtype, modality.sample_shape, modality.band_names, modality.classes


def _chosen_bands(column: HandleColumn, modality: Modality) -> tuple[int, ...]:
    if not (choices := _choices(column)):
        return tuple(range(len(modality.bands)))
    if len(choices) > 1:
        raise InvalidInputError(f"bands() of {column.name!r} differ from row to row; give one list of names")
    names = next(iter(choices))
    if not names or len(set(names)) != len(names):
        raise InvalidInputError(f"bands() of {modality.name} needs distinct band names, got {list(names)}")
    return tuple(modality.band_index(n) for n in names)


def address_columns(column: HandleColumn, handle: Handle) -> dict[str, pa.Array]:
    """Return the columns of a :class:`tensorbank.plans.plan.Plan` for one handle.

    Raises
    ------
    IntegrityError
        A row of the index leads to bytes that no object has.
    """
    blocks = _block_bytes(column, handle.modality.n_blocks) if column.has("block_bytes") else None
    starts, lengths = _runs(column, handle, blocks)
    n_runs = len(handle.runs)
    first = column.numbers("offset")[:, None]
    bad = (first < 0) | (starts < first) | (lengths < 0) | (lengths > MAX_RUN_BYTES)
    if bad.any():
        row, run = np.argwhere(bad)[0].tolist()
        raise IntegrityError(
            f"the index says that {handle.name} of row {row} has {lengths[row, run]} bytes from {starts[row, run]} on in "
            f"{column.keys[row].as_py()}, which cannot be",
            kind=ErrorKind.BAD_ADDRESS,
        )
    columns: dict[str, pa.Array] = {
        handle.columns.key: column.keys,
        handle.columns.starts: _fixed(starts, n_runs, pa.int64()),
        handle.columns.lengths: _fixed(lengths, n_runs, pa.uint32()),
    }
    if handle.window is not None:
        corners = np.stack([column.numbers(n, np.int16) for n in ("y0", "x0")], axis=1)
        columns[handle.columns.corner] = _fixed(corners, 2, pa.int16())
    n_times = None if blocks is None else _n_times(handle, *blocks)
    if n_times is not None:
        columns[handle.columns.n_times] = as_arrow(n_times)
    return columns


def _fixed(values: npt.NDArray[Any], n_runs: int, kind: pa.DataType) -> pa.Array:
    flat = as_arrow(values.reshape(-1)).cast(kind)
    return (
        pa.FixedSizeListArray.from_arrays(flat, n_runs)
        if len(values)
        else pa.nulls(0, pa.list_(kind, n_runs))
    )


def _runs(
    column: HandleColumn, handle: Handle, blocks: tuple[Present, Sizes] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the starts and lengths of the runs, (n, runs) int64; zeros where the modality is missing."""
    offset, length = column.numbers("offset"), column.numbers("length")
    m = handle.modality
    n_blocks = m.n_blocks
    if blocks is None or handle.runs == ((0, n_blocks),):
        return offset[:, None], length[:, None]
    n = len(offset)
    present, sizes = blocks
    edges = np.zeros((n, n_blocks + 1), np.int64)
    edges[present, 1:] = np.cumsum(sizes, axis=1, dtype=np.int64)
    of_date = column.numbers("time_index") * len(m.bands) if handle.window else np.zeros(n, np.int64)
    first = np.take_along_axis(edges, of_date[:, None] + np.array([a for a, _ in handle.runs]), axis=1)
    last = np.take_along_axis(edges, of_date[:, None] + np.array([b for _, b in handle.runs]), axis=1)
    return offset[:, None] + first, last - first


def _block_bytes(column: HandleColumn, n_blocks: int) -> tuple[Present, Sizes]:
    """Return which rows have the modality, (n,), and the block sizes of those rows, (m, n_blocks)."""
    present = as_numpy(column.keys.is_valid())
    blocks = column.rows["block_bytes"]
    if not present.all():
        blocks = blocks.filter(as_arrow(present))
    sizes = as_numpy(pc.list_flatten(blocks), -1)
    if len(sizes) != len(blocks) * n_blocks:
        raise IntegrityError(
            f"the index has another number of blocks for {column.name} than the {n_blocks} that its schema says",
            kind=ErrorKind.BAD_ADDRESS,
        )
    return present, sizes.reshape(-1, n_blocks)


def _n_times(handle: Handle, present: Present, sizes: Sizes) -> npt.NDArray[np.int16] | None:
    """Return the number of dates that each sample has, (n,), None where all have all.
    Blocks of a date that is not there take no bytes.
    """
    m = handle.modality
    if handle.window is not None or m.n_times == 1:
        return None
    found = np.count_nonzero(sizes[:, :: len(m.bands)], axis=1)
    if (found == m.n_times).all():
        return None
    n_times = np.zeros(len(present), np.int16)
    n_times[present] = found
    return n_times


def check_names(handles: Sequence[Handle], columns: Sequence[str]) -> None:
    """Raise InvalidInputError where two handles would share one key of the batch,
    or a plain column takes one of the plan.
    """
    for handle in handles:
        for taken in handle.columns.possible:
            if taken in columns:
                raise InvalidInputError(f"a column cannot be named {taken!r} beside the tensor {handle.name}")
    seen: set[str] = set()
    for handle in handles:
        if handle.name in seen:
            raise InvalidInputError(
                f"two selected tensors are named {handle.name}; give one an alias with AS"
            )
        seen.add(handle.name)
