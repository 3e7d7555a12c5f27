"""Commits that are written here, as another program reads them: delta-rs."""

from __future__ import annotations

import json

import deltalake
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.handmade_index import make_table, part_of
from tensorbank import StorageError
from tensorbank.delta import CHECKPOINT_INTERVAL, LevelChange, LostCommitError, append_commit, commit_actions
from tensorbank.errors import ErrorKind
from tensorbank.index_files.checksums import commit_checksum, find_commit_flaw, sealed_commit
from tensorbank.storage import Store

KEY = "t/index/tiles/_delta_log/00000000000000000007.json"


@pytest.fixture
def bank(tmp_path):
    bank = tb.create(tmp_path)
    make_table(bank, "t", parts=2, n=5)
    return bank


def test_delta_rs_reads_what_is_written_here(bank, tmp_path):
    for level, n in (("samples", 10), ("tiles", 20), ("shards", 4), ("keys", 10)):
        table = deltalake.DeltaTable(str(tmp_path / "t/index" / level))
        assert table.version() == 2
        assert table.to_pyarrow_table().num_rows == n, level
    samples = deltalake.DeltaTable(str(tmp_path / "t/index/samples"))
    ids = samples.to_pyarrow_table(filters=[("sample_id", "=", "part-1-0003")])["sample_id"].to_pylist()
    assert ids == ["part-1-0003"]
    assert [entry["tensorbank.part"] for entry in samples.history(2)] == ["part-1", "part-0"]


def test_bounds_are_those_of_the_rows(bank, tmp_path):
    files = bank.catalog.files("t", "samples").files
    rows = [row for file in files for row in pq.read_table(tmp_path / file.key).to_pylist()]
    (first, second) = bank.catalog.files("t", "samples").statistics.to_pylist()
    for part, said in (("part-0", first), ("part-1", second)):
        mine = [r for r in rows if r["part"] == part]
        for name in ("sample_id", "lon", "cloud_cover", "hilbert", "key"):
            values = [r[name] for r in mine if r[name] is not None]
            assert (said["min"][name], said["max"][name]) == (min(values), max(values)), name
        means = [
            r["S2L2A"]["B04"]["mean"] for r in mine if r["S2L2A"] and r["S2L2A"]["B04"]["mean"] is not None
        ]
        assert (said["min"]["S2L2A"]["B04"]["mean"], said["max"]["S2L2A"]["B04"]["mean"]) == (
            min(means),
            max(means),
        )


def test_a_version_is_committed_once(tmp_path):
    store = Store(tmp_path.as_uri())
    append_commit(store, "t", 0, [{"txn": {"appId": "a", "version": 1}}], {"tensorbank.id": "1"})
    append_commit(
        store, "t", 0, [{"txn": {"appId": "a", "version": 1}}], {"tensorbank.id": "1"}
    )  # its answer was lost
    with pytest.raises(LostCommitError):
        append_commit(store, "t", 0, [{"txn": {"appId": "a", "version": 1}}], {"tensorbank.id": "2"})


def test_an_answer_that_is_lost_is_no_lost_race(tmp_path, monkeypatch):
    store = Store(tmp_path.as_uri())
    create, tries = store._open(writing=True).create, []

    def lossy(key, data):
        create(key, data)
        tries.append(key)
        raise StorageError("the connection was cut", kind=ErrorKind.UNREACHABLE)

    monkeypatch.setattr(
        type(store._open()), "create", lambda _, key, data: (lossy if not tries else create)(key, data)
    )
    append_commit(store, "t", 0, [], {"tensorbank.id": "1"})
    assert len(tries) == 1


def test_every_bit_of_a_commit_counts():
    data = sealed_commit([{"add": {"path": "a", "size": 1}}], {"operation": "WRITE"}, KEY)
    said, found = commit_checksum(data)
    assert said == found
    assert all(isinstance(json.loads(line), dict) for line in data.splitlines())
    start = data.index(b'"tensorbank.crc32c":"')
    marker = range(start, start + len(b'"tensorbank.crc32c":"'))
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        checksums = commit_checksum(bytes(flipped))
        assert (checksums is None and place in marker) or checksums[0] != checksums[1], place
        assert find_commit_flaw(bytes(flipped), KEY)


def test_a_commit_that_was_cut_or_stands_in_another_place_is_told():
    data = sealed_commit([{"add": {"path": "a", "size": 1}}, {"txn": {"appId": "a", "version": 1}}], {}, KEY)
    assert find_commit_flaw(data, f"s3://bank/{KEY}") == ""
    for line in (1, 2):
        cut = b"".join(data.splitlines(keepends=True)[:line])
        assert "its checksum is" in find_commit_flaw(cut, KEY)
    for other in (KEY.replace("tiles", "samples"), KEY.replace("07", "08")):
        assert "it is the commit tiles/_delta_log/" in find_commit_flaw(data, other)
    assert find_commit_flaw(data, KEY.replace("t/index", "renamed/index")) == ""


def test_checkpoints_are_sealed_and_read(tmp_path):
    bank = tb.create(tmp_path)
    bank.catalog.create("t", part_schema := make_schema())
    for i in range(CHECKPOINT_INTERVAL + 1):
        bank.catalog.commit("t", part_of("t", f"p{i:03d}", 1, schema=part_schema))
    log = tmp_path / "t/index/samples/_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    assert checkpoint.with_suffix(".crc32c").exists()
    for path in log.glob("*.json"):
        if int(path.stem) < CHECKPOINT_INTERVAL:
            path.unlink()
    fresh = tb.open(tmp_path)
    assert fresh.table("t").snapshot().n_samples == CHECKPOINT_INTERVAL + 1
    assert fresh.catalog.version("t").pins["tiles"] == CHECKPOINT_INTERVAL + 1
    assert deltalake.DeltaTable(str(log.parent)).to_pyarrow_table().num_rows == CHECKPOINT_INTERVAL + 1
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 4
    checkpoint.write_bytes(data)
    with pytest.raises(tb.IntegrityError, match=r"checkpoint\.crc32c is not what"):
        tb.open(tmp_path).table("t").snapshot()


def make_schema():
    from tensorbank import Band, Modality, TableSchema

    return TableSchema((Modality("NDVI", "float32", (Band("NDVI"),), 1, 8, 8),))


def test_what_leads_from_a_stray_head_back_to_the_snapshot(bank, tmp_path):
    """A writer that died after its commit of tiles left a head that no snapshot names."""
    store = bank.catalog.store
    (file, *_) = bank.catalog.files("t", "tiles").files
    removed = commit_actions("t/index/tiles", LevelChange(removed=(file,)), {})
    append_commit(store, "t/index/tiles", 3, removed, {})
    assert bank.sql("SELECT count(*) AS n FROM t.tiles").arrow()["n"].to_pylist() == [20]
    bank.catalog.commit("t", part_of("t", "part-2", 5))
    assert bank.sql("SELECT count(*) AS n FROM t.tiles").arrow()["n"].to_pylist() == [30]
    assert deltalake.DeltaTable(str(tmp_path / "t/index/tiles")).to_pyarrow_table().num_rows == 30
