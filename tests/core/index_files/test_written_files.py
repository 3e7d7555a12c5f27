"""Index files as they are written: how each kind of column is encoded, and that nothing is lost."""

from __future__ import annotations

import numpy as np
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


def test_keys_of_samples_and_stems_are_plain_numbers(tmp_path):
    hashes = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, (2, 5000))
    keys = pa.table({"key": np.sort(hashes[0]), "stem_key": hashes[1]})
    for rows in (keys, keys.append_column("part", pa.array(["p"] * len(keys)))):
        path = tmp_path / "keys.parquet"
        with parquet_writer(path, rows.schema) as writer:
            writer.write_table(rows)
        group = pq.read_metadata(path).row_group(0)
        columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
        assert {name for name, c in columns.items() if c.has_dictionary_page} == {*columns} - {
            "key",
            "stem_key",
        }
        assert all(columns[name].compression == "UNCOMPRESSED" for name in ("key", "stem_key"))
        assert path.stat().st_size < 1.05 * hashes.nbytes + 2000
        assert pq.read_table(path).equals(rows)
