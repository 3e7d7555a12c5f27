"""Index files that are written: Arrow rows as Parquet, under a name that says what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.index_files.checksums import index_file_name
from tensorbank.index_files.file_statistics import bounds_of_file, statistics_json
from tensorbank.index_files.local_copies import disk_error
from tensorbank.pieces import SummedWriter
from tensorbank.storage import Store

__all__ = ["NewFile", "ROW_GROUP_ROWS", "parquet_bytes", "parquet_writer", "put_file", "upload", "write_rows"]

ROW_GROUP_ROWS = 122_880
"""The most rows of a row group."""
COMPRESSION_LEVEL = 1
KEY_COLUMNS = frozenset({"key", "stem_key"})
"""The columns of ``keys`` and ``deleted`` that are hashes, each of which is there once."""
FALSE_POSITIVES = 0.01
"""The share of other ids that the filter of a row group takes for one of its own, at most."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """One index file in the store, which a commit may name. ``statistics`` is the JSON of its add-action."""

    key: str
    n_bytes: int
    n_rows: int
    statistics: str = field(repr=False)


def parquet_writer(
    where: Path | pa.NativeFile,
    schema: pa.Schema,
    n_rows: int = ROW_GROUP_ROWS,
    given: pa.Schema | None = None,
) -> pq.ParquetWriter:
    """Open a Parquet file as index files are written, with ``n_rows`` in all; write row groups of :data:`ROW_GROUP_ROWS`.

    Tables that are written have the columns of ``schema``, or those of ``given``, whose texts may be numbers of dictionaries.

    Floats are split into streams of bytes, for hardly one is there twice: as numbers of a dictionary, which is Parquet's habit,
    they take a fifth more bytes, and half as long again to write and to read. A column of a row group is one page, not seven as
    is Parquet's habit: readers here want whole columns of row groups, and pages of their own cost a twentieth of the bytes.
    Keys of samples and stems beside each other are hashes, which no encoding makes shorter: as plain numbers they are written ten
    times as fast, read five times as fast, and a fifth smaller than in a dictionary.
    Ids of samples have a Bloom filter in each row group: where rows lie by season and place, ids are in no order, and without it
    one id is looked for in the ids of all rows.
    """
    leaves = list(_leaves(schema))
    plain = KEY_COLUMNS if {*schema.names} >= KEY_COLUMNS else frozenset[str]()
    return SummedWriter(
        where,
        schema,
        given,
        compression={path: "none" if path in plain else "zstd" for path, _ in leaves},
        compression_level={path: COMPRESSION_LEVEL for path, _ in leaves if path not in plain},
        max_rows_per_page=ROW_GROUP_ROWS,
        use_dictionary=[path for path, is_float in leaves if not is_float and path not in plain],
        use_byte_stream_split=[path for path, is_float in leaves if is_float],
        bloom_filter_options=_id_filter(schema, n_rows),
    )


def _id_filter(schema: pa.Schema, n_rows: int) -> dict[str, dict[str, float]] | None:
    """Return the options of the filter of ids: of samples, each of whose rows has an id of its own."""
    if "sample_id" not in schema.names or "tile" in schema.names or not n_rows:
        return None
    return {"sample_id": {"ndv": min(n_rows, ROW_GROUP_ROWS), "fpp": FALSE_POSITIVES}}


def _leaves(fields: Iterable[pa.Field], above: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the path of each column of a Parquet file, and whether its values are floats of 32 or 64 bits."""
    for column in fields:
        path, kind = f"{above}{column.name}", column.type
        while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            path, kind = f"{path}.list.element", kind.value_type
        if pa.types.is_struct(kind):
            yield from _leaves(kind, f"{path}.")
        else:
            yield path, pa.types.is_float32(kind) or pa.types.is_float64(kind)


def write_rows(store: Store, folder: str, rows: pa.Table) -> NewFile:
    """Write rows as one index file below a key. It is made in memory.

    Raises
    ------
    StorageError
        The store cannot be written.
    """
    return put_file(store, folder, parquet_bytes(rows))


def parquet_bytes(rows: pa.Table) -> bytes:
    """Return rows as the Parquet file that they are written as."""
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, rows.schema, rows.num_rows) as writer:
        writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def upload(store: Store, folder: str, path: Path) -> NewFile:
    """Put a Parquet file that was just written into the store, below a key and under the name that its content gives it.

    Raises
    ------
    StorageError
        The file cannot be read, or the store not be written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise disk_error(error, path) from error
    return put_file(store, folder, data)


def put_file(store: Store, folder: str, data: bytes) -> NewFile:
    """Put a Parquet file into the store, below a key and under the name that its content gives it."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        n_rows = file.metadata.num_rows
        low, high = bounds_of_file(file.metadata, file.schema_arrow)
    key = f"{folder}/{index_file_name(memoryview(data))}"
    store.put(key, data)
    return NewFile(key, len(data), n_rows, statistics_json(n_rows, low, high))
