"""Index files as they are written: how each kind of column is encoded, and that nothing is lost."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from support.handmade_index import SCHEMA, part_of
from tensorbank.index_files import parquet_writer
from tensorbank.index_schema import modality_columns


def test_floats_are_split_into_streams_and_the_rest_is_of_dictionaries(tmp_path):
    commit = part_of("t", "part", 30)
    vectors = pa.table({"key": [1, 2], "value": pa.array([[0.5, 1.5], None], pa.list_(pa.float32()))})
    for rows in (commit.samples, commit.tiles, commit.shards, vectors):
        path = tmp_path / "rows.parquet"
        with parquet_writer(path, rows.schema) as writer:
            writer.write_table(rows)
        footer = pq.read_metadata(path)
        columns = [footer.row_group(0).column(i) for i in range(footer.num_columns)]
        floats = [c for c in columns if c.physical_type in ("FLOAT", "DOUBLE")]
        assert floats
        assert all("BYTE_STREAM_SPLIT" in c.encodings for c in floats)
        assert not any(c.has_dictionary_page for c in floats)
        assert all(c.has_dictionary_page for c in columns if c not in floats and c.physical_type != "BOOLEAN")
        assert pq.read_table(path).equals(rows)
    assert list(modality_columns(commit.samples.schema)) == list(SCHEMA.names)
