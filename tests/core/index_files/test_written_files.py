"""Index files as they are written: how each kind of column is encoded, and that nothing is lost."""

from __future__ import annotations

import duckdb
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
        with parquet_writer(path, rows.schema, rows.num_rows) as writer:
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
        with parquet_writer(path, rows.schema, rows.num_rows) as writer:
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


def test_row_groups_say_which_ids_they_have_not(tmp_path):
    """The ids are in no order, so that their bounds rule nothing out."""
    names = [f"{number:016x}" for number in np.random.default_rng(2).integers(0, 2**63, 3000)]
    rows = pa.table({"sample_id": names, "row": range(3000)})
    path = tmp_path / "rows.parquet"
    with parquet_writer(path, rows.schema, rows.num_rows) as writer:
        for start in range(0, 3000, 1000):
            writer.write_table(rows.slice(start, 1000))
    with duckdb.connect() as con:
        some = range(0, 3000, 50)
        found = {number: excluded(con, path, names[number]) for number in some}
        assert all(number // 1000 not in groups for number, groups in found.items()), "no row is lost"
        assert sum(map(len, found.values())) >= 0.95 * 2 * len(some), "few groups are read in vain"
        asked = f"SELECT row FROM read_parquet('{path}') WHERE sample_id IN ('{names[5]}', '{names[2500]}')"
        assert sorted(con.execute(asked).fetchall()) == [(5,), (2500,)]


def excluded(con, path, name):
    probed = f"SELECT row_group_id, bloom_filter_excludes FROM parquet_bloom_probe('{path}', 'sample_id', '{name}')"
    return {number for number, is_excluded in con.execute(probed).fetchall() if is_excluded}


def test_filters_of_ids_are_as_large_as_the_rows_need_and_tiles_have_none(tmp_path):
    """An ingest of few samples has a file of few rows, to each commit."""
    commit = part_of("t", "part", 30)
    for rows, most in ((commit.samples, 512), (commit.tiles, 0), (commit.shards, 0)):
        path = tmp_path / "rows.parquet"
        with parquet_writer(path, rows.schema, rows.num_rows) as writer:
            writer.write_table(rows)
        group = pq.read_metadata(path).row_group(0)
        sizes = [group.column(i).bloom_filter_length or 0 for i in range(group.num_columns)]
        assert (sum(sizes) > 0) == (most > 0)
        assert sum(sizes) <= most


def test_texts_that_come_as_numbers_are_the_same_file(tmp_path):
    rows = pa.table({"part": ["b", "b", None, "a"], "n": [1, 2, 3, 4]}).replace_schema_metadata(
        {"of": "somebody"}
    )
    numbers = rows.set_column(0, "part", rows["part"].dictionary_encode())
    plain, given = tmp_path / "plain.parquet", tmp_path / "given.parquet"
    with parquet_writer(plain, rows.schema, rows.num_rows) as writer:
        writer.write_table(rows)
    with parquet_writer(given, rows.schema, rows.num_rows, numbers.schema) as writer:
        writer.write_table(numbers)
    assert given.read_bytes() == plain.read_bytes()


def test_words_in_any_order_are_read_as_they_are(tmp_path):
    texts = pa.DictionaryArray.from_arrays(pa.array([2, 0, None, 2], pa.int32()), ["z", "unused", "a"])
    given, schema = pa.table({"part": texts}), pa.schema([("part", pa.string())])
    path = tmp_path / "rows.parquet"
    with parquet_writer(path, schema, 4, given.schema) as writer:
        writer.write_table(given)
    found = pq.read_table(path)
    assert found.schema == schema
    assert found["part"].to_pylist() == ["a", "z", None, "a"]
    bounds = pq.read_metadata(path).row_group(0).column(0).statistics
    assert (bounds.min, bounds.max, bounds.null_count) == ("a", "z", 1)
    assert duckdb.sql(f"SELECT part FROM '{path}'").fetchall() == [("a",), ("z",), (None,), ("a",)]
