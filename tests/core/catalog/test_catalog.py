"""Tables, commits and snapshots on three kinds of stores, with writers that race."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import struct
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.handmade_index import SCHEMA, make_table, part_of
from tensorbank import ConflictError, InvalidInputError, NotFoundError
from tensorbank.catalog import Commit, publishing
from tensorbank.catalog.catalog import Catalog
from tensorbank.delta import LevelChange, append_commit, commit_actions
from tensorbank.index_files.mirror import IndexMirror
from tensorbank.layout import LEVELS, index_key
from tensorbank.storage.store import Store


@pytest.fixture(params=["file", "seaweed", "moto"])
def bank(request, tmp_path):
    """An empty bank on each kind of store."""
    if request.param == "file":
        return tb.create(tmp_path / "bank", cache=tmp_path / "cache")
    server = request.getfixturevalue({"seaweed": "s3_server", "moto": "moto_process"}[request.param])
    url = f"{server.url}/catalog-{uuid.uuid4().hex[:12]}"
    return tb.create(
        url,
        endpoint=server.endpoint,
        access_key=server.access_key,
        secret_key=server.secret_key,
        cache=tmp_path / "cache",
    )


@pytest.fixture
def folder_bank(tmp_path):
    return tb.create(tmp_path / "bank")


def ids_of(bank, sql="SELECT sample_id FROM t") -> list[str]:
    return sorted(bank.sql(sql).arrow()["sample_id"].to_pylist())


def ids_in(*commits: Commit) -> list[str]:
    return sorted(i for c in commits for i in c.samples["sample_id"].to_pylist())


def test_a_table_from_its_creation_to_its_second_part(bank):
    catalog = bank.catalog
    assert bank.tables() == []
    catalog.create("t", SCHEMA)
    assert bank.tables() == ["t"]
    assert catalog.schema("t") == SCHEMA
    assert [(h.version, h.part, h.n_rows) for h in catalog.history("t")] == [(0, None, 0)]
    assert ids_of(bank) == []
    first, second = part_of("t", "p1", 5), part_of("t", "p2", 7)
    assert catalog.commit("t", first) == 1
    catalog.create("t", SCHEMA)  # what exists is kept
    assert ids_of(bank) == ids_in(first)
    assert catalog.commit("t", second) == 2
    assert ids_of(bank) == ids_in(first, second)
    assert [(h.version, h.part, h.n_rows) for h in catalog.history("t")] == [
        (2, "p2", 7),
        (1, "p1", 5),
        (0, None, 0),
    ]
    assert catalog.version("t").pins == {"tiles": 2, "shards": 2, "keys": 2}
    assert catalog.files("t", "keys").n_rows == 12


def test_rows_come_back_as_they_were_committed(bank):
    bank.catalog.create("t", SCHEMA)
    commit = part_of("t", "p1", 9)
    bank.catalog.commit("t", commit)
    for level, rows in (("samples", commit.samples), ("tiles", commit.tiles), ("shards", commit.shards)):
        paths = bank.catalog.mirror.paths(bank.catalog.files("t", level).files)
        stored = pa.concat_tables([pq.read_table(p) for p in paths])
        columns = [name for name in rows.column_names if name != "key"]
        assert stored.select(columns).to_pylist() == rows.select(columns).to_pylist(), level
        if level != "shards":
            assert stored["key"].to_pylist() == [key(r) for r in rows.to_pylist()], level
        assert bank.catalog.files("t", level).n_rows == rows.num_rows


def key(row: dict) -> int:
    """The key of a sample, by the words of FORMAT.md."""
    digest = hashlib.sha256(f"{row['split'] or ''}\0{row['sample_id']}".encode()).digest()
    return struct.unpack("<q", digest[:8])[0]


def test_a_part_is_committed_once_however_often_it_is_tried(bank):
    bank.catalog.create("t", SCHEMA)
    commit, other = part_of("t", "p1", 5), part_of("t", "p2", 3)
    assert bank.catalog.commit("t", commit) == 1
    assert bank.catalog.commit("t", other) == 2
    assert bank.catalog.commit("t", commit) == 2
    assert bank.catalog.history("t")[0].version == 2
    for level, n in (("samples", 8), ("tiles", 16), ("shards", 3)):
        assert bank.catalog.files("t", level).n_rows == n


@pytest.mark.parametrize("broken_at", ["tiles", "shards", "samples"])
def test_a_writer_that_dies_between_levels_shows_nothing_and_is_taken_up_again(
    folder_bank, monkeypatch, broken_at
):
    bank = folder_bank
    bank.catalog.create("t", SCHEMA)
    shown, lost = part_of("t", "p1", 4), part_of("t", "p2", 6)
    bank.catalog.commit("t", shown)
    append = publishing.append_commit

    def dies(store, folder, version, actions, info):
        if folder.endswith(broken_at):
            raise KeyboardInterrupt
        append(store, folder, version, actions, info)

    monkeypatch.setattr(publishing, "append_commit", dies)
    with pytest.raises(KeyboardInterrupt):
        bank.catalog.commit("t", lost)
    monkeypatch.undo()
    assert ids_of(bank) == ids_in(shown)
    assert ids_of(bank, "SELECT DISTINCT sample_id FROM t.tiles") == ids_in(shown)
    assert bank.sql("SELECT count(*) AS n FROM t.tiles").arrow()["n"].to_pylist() == [8]
    assert bank.sql("SELECT sum(n_samples) AS n FROM t.shards").arrow()["n"].to_pylist() == [4]
    assert bank.table("t").snapshot().n_shards == 1
    bank.catalog.commit("t", lost)
    assert ids_of(bank) == ids_in(shown, lost)
    assert bank.catalog.files("t", "tiles").n_rows == 20, "what was appended before is not appended again"


def test_tiles_and_shards_of_an_uncommitted_part_are_invisible(bank):
    bank.catalog.create("t", SCHEMA)
    shown, hidden = part_of("t", "p1", 4), part_of("t", "p2", 6)
    bank.catalog.commit("t", shown)
    for level, rows in (("tiles", hidden.tiles), ("shards", hidden.shards)):
        change = LevelChange(added=(bank.catalog.write("t", level, rows),))
        folder = index_key("t", level)
        append_commit(bank.catalog.store, folder, 2, commit_actions(folder, change, {}), {})
    assert bank.catalog.newest("t", "tiles").files.n_rows == 20
    assert bank.catalog.files("t", "tiles").n_rows == 8
    assert bank.sql("SELECT DISTINCT part FROM t.tiles").arrow()["part"].to_pylist() == ["p1"]
    assert bank.sql("SELECT DISTINCT part FROM t.shards").arrow()["part"].to_pylist() == ["p1"]
    plan = bank.sql("SELECT S2L2A FROM t").plan()
    assert plan.source.scan_bytes == sum(
        r["S2L2A"]["ref"]["length"] for r in shown.samples.to_pylist() if r["S2L2A"]
    )


def test_time_travel(bank):
    made = make_table(bank, "t", parts=2, n=6)
    for version in range(3):
        expected = sorted(r["sample_id"] for r in made.samples if made.versions[r["part"]] <= version)
        old = bank.at({"t": version})
        assert ids_of(old) == expected
        assert ids_of(old, "SELECT DISTINCT sample_id FROM t.tiles") == expected
        assert bank.table("t").at(version).snapshot().n_samples == len(expected)
        assert bank.table("t").at(version).snapshot().version == version
        assert old.sql("SELECT S2L2A FROM t").plan().source.snapshots["t"][1] == version
    assert len(ids_of(bank)) == 12


def test_what_is_not_there_is_named(bank):
    make_table(bank, "terramesh", parts=1, n=2)
    make_table(bank, "ssl4eo", parts=1, n=2)
    for call in (
        lambda: bank.table("teramesh").schema,
        lambda: bank.table("teramesh").snapshot(),
        lambda: bank.table("teramesh").history(),
        lambda: bank.catalog.commit("teramesh", part_of("teramesh", "p", 1)),
    ):
        with pytest.raises(NotFoundError, match=r"no table 'teramesh'.*Did you mean 'terramesh'") as caught:
            call()
        assert caught.value.kind == "unknown-table"
    for call in (
        lambda: bank.at({"terramesh": 9}).sql("SELECT * FROM terramesh").arrow(),
        lambda: bank.table("terramesh").at(9).schema,
        lambda: bank.table("terramesh").at(9).snapshot(),
    ):
        with pytest.raises(NotFoundError, match="terramesh has no version 9") as caught:
            call()
        assert caught.value.kind == "unknown-snapshot"


# ---------------------------------------------------------------- writers that race


def commit_in_process(url, options, cache, number, barrier, results):
    store = Store(url, options)
    catalog = Catalog(store, IndexMirror(store, cache))
    commits = [part_of("t", f"w{number}-p{i}", 3) for i in range(3)]
    barrier.wait(100)
    try:
        catalog.create("t", SCHEMA)
        for commit in commits:
            catalog.commit("t", commit)
        results.put(None)
    except BaseException as error:
        results.put(f"{type(error).__name__}: {error}")


def test_processes_that_create_and_commit_at_once_lose_nothing(bank):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    store = bank.catalog.store
    args = (store.url, store.options, bank.catalog.mirror.folder)
    processes = [
        context.Process(target=commit_in_process, args=(*args, i, barrier, results)) for i in range(2)
    ]
    for process in processes:
        process.start()
    said = [results.get(timeout=150) for _ in processes]
    for process in processes:
        process.join(30)
    assert said == [None, None]
    expected = ids_in(*(part_of("t", f"w{w}-p{i}", 3) for w in range(2) for i in range(3)))
    assert ids_of(bank) == expected
    history = bank.catalog.history("t")
    assert [h.version for h in history] == list(range(6, -1, -1))
    assert bank.sql("SELECT count(*) AS n FROM t.tiles").arrow()["n"].to_pylist() == [36]


def test_one_of_many_creators_makes_the_table(bank):
    """A second creation over the first would change the table's id, and so every fingerprint."""
    barrier = threading.Barrier(4)

    def create(name):
        barrier.wait(30)
        Catalog(bank.catalog.store, bank.catalog.mirror).create(name, SCHEMA, single_writer=True)

    for turn in range(3):
        name = f"raced{turn}"
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(create, [name] * 4))
        for level in LEVELS:
            assert bank.catalog.files(name, level).version == 0
        assert bank.catalog.schema(name) == SCHEMA


class Meeting(Catalog):
    """A catalog whose first look at the committed samples waits until all the others have looked too."""

    def __init__(self, catalog, barrier) -> None:
        super().__init__(catalog.store, catalog.mirror)
        self.barrier = barrier

    def membership(self, version):
        keys = super().membership(version)
        barrier, self.barrier = self.barrier, None
        if barrier is not None:
            barrier.wait(60)
        return keys


def race(bank, commits):
    """Commit all at the same moment; what each gave or raised."""
    barrier = threading.Barrier(len(commits))

    def one(commit):
        try:
            return Meeting(bank.catalog, barrier).commit("t", commit)
        except ConflictError as error:
            return error.kind

    with ThreadPoolExecutor(len(commits)) as pool:
        return list(pool.map(one, commits))


def test_writers_of_different_parts_who_see_the_same_snapshot_lose_nothing(bank):
    bank.catalog.create("t", SCHEMA)
    commits = [part_of("t", f"p{i}", 3) for i in range(4)]
    versions = race(bank, commits)
    assert all(isinstance(v, int) for v in versions), versions
    assert ids_of(bank) == ids_in(*commits)
    assert [h.part for h in bank.catalog.history("t")].count(None) == 1
    assert bank.catalog.history("t")[0].version == 4


def test_of_two_writers_of_the_same_samples_one_is_told_so(bank):
    bank.catalog.create("t", SCHEMA)
    commits = [part_of("t", f"p{i}", 3, prefix="same") for i in range(3)]
    said = race(bank, commits)
    assert sorted(map(str, said)) == ["1", "lost-race", "lost-race"]
    assert ids_of(bank) == ids_in(commits[0])
    assert bank.sql("SELECT count(*) AS n FROM t.tiles").arrow()["n"].to_pylist() == [6]
    winner = commits[said.index(1)]
    assert bank.table("t").parts().keys() == {winner.part}


def test_writers_of_one_part_commit_it_once(bank):
    bank.catalog.create("t", SCHEMA)
    commit = part_of("t", "p", 5)
    said = race(bank, [commit] * 3)
    assert set(said) <= {1, "lost-race"}, said
    assert 1 in said
    for level, n in (("samples", 5), ("tiles", 10), ("shards", 2)):
        assert bank.catalog.files("t", level).n_rows == n, level


def test_a_reader_beside_a_writer_sees_whole_parts_only(folder_bank):
    bank = folder_bank
    bank.catalog.create("t", SCHEMA)
    commits = [part_of("t", f"p{i}", 5) for i in range(12)]
    done = threading.Event()
    seen = []

    def read():
        while not done.is_set():
            rows = bank.sql(
                "SELECT s.part, count(DISTINCT s.sample_id) AS n, count(*) AS tiles FROM t s "
                "JOIN t.tiles x USING (part, sample_id) GROUP BY s.part"
            ).arrow()
            seen.append([(r["n"], r["tiles"]) for r in rows.to_pylist()])

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for commit in commits:
            bank.catalog.commit("t", commit)
        done.set()
        reading.result(60)
    assert seen
    assert {pair for rows in seen for pair in rows} <= {(5, 10)}
    counts = [len(rows) for rows in seen]
    assert counts == sorted(counts)


# ---------------------------------------------------------------- names, and what lies beside tables


@pytest.mark.parametrize("name", ["samples", "tiles", "Grouped", "a_b_1"])
def test_names_that_mean_something_in_sql(folder_bank, name):
    made = make_table(folder_bank, name, parts=1, n=3)
    snapshot = folder_bank.table(name).snapshot()
    assert (snapshot.n_samples, snapshot.n_parts) == (3, 1)
    assert list(folder_bank.table(name).parts()) == ["part-0"]
    assert ids_of(folder_bank, f'SELECT sample_id FROM "{name}"') == sorted(made.by_id())
    assert folder_bank.sql(f'SELECT count(*) AS n FROM "{name}".tiles').arrow()["n"].to_pylist() == [6]


@pytest.mark.parametrize(
    "name", ["main", "TEMP", "system", "information_schema", "pg_catalog", "order", "select", "Group"]
)
def test_names_that_sql_keeps_for_itself(folder_bank, name):
    with pytest.raises(InvalidInputError, match="cannot name a table"):
        folder_bank.catalog.create(name, SCHEMA)
    assert folder_bank.tables() == []


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "a/b", "../a", "a" * 64, "ä"])
def test_names_that_cannot_be(folder_bank, name):
    with pytest.raises(InvalidInputError, match="cannot name a table"):
        folder_bank.catalog.create(name, SCHEMA)


def test_names_that_differ_in_case_only(folder_bank):
    make_table(folder_bank, "Terra", parts=1, n=2)
    with pytest.raises(InvalidInputError, match="'Terra' already"):
        folder_bank.catalog.create("terra", SCHEMA)
    assert folder_bank.tables() == ["Terra"]
    assert len(ids_of(folder_bank, "SELECT sample_id FROM terra")) == 2


def test_other_objects_in_the_bank_are_no_tables(bank):
    store = bank.catalog.store
    store.put("photos/index/holiday.jpg", b"1")
    store.put("note.txt", b"1")
    store.put("half/tensors/p/zarr.json", b"{}")
    make_table(bank, "t", parts=1, n=2)
    assert bank.tables() == ["t"]


def test_an_index_that_somebody_else_wrote_is_not_read(folder_bank, tmp_path):
    import deltalake

    folder = tmp_path / "bank" / "foreign" / "index" / "samples"
    deltalake.write_deltalake(str(folder), pa.table({"a": [1, 2]}))
    with pytest.raises(tb.FormatError, match="not written by TensorBank"):
        _ = folder_bank.table("foreign").schema


def test_a_damaged_log_is_an_error_of_ours(folder_bank, tmp_path):
    make_table(folder_bank, "t", parts=1, n=2)
    log = sorted((tmp_path / "bank/t/index/samples/_delta_log").glob("*.json"))[-1]
    log.write_text("{" + json.dumps({"nonsense": True}))
    with pytest.raises(tb.TensorBankError) as caught:
        folder_bank.sql("SELECT * FROM t").arrow()
    assert "\n" not in str(caught.value)
    assert "t" in str(caught.value)


def test_no_number_of_an_index_is_nan(tmp_path):
    bank = tb.create(tmp_path)
    bank.catalog.create("t", SCHEMA, single_writer=True)
    commit = part_of("t", "part-0", 4)
    lon = pa.array([1.0, float("nan"), 2.0, None])
    samples = commit.samples.set_column(commit.samples.schema.get_field_index("lon"), "lon", lon)
    with pytest.raises(InvalidInputError, match="part-0 has NaN in lon") as error:
        bank.catalog.commit("t", Commit("part-0", samples, commit.tiles, commit.shards))
    assert error.value.kind == "nan"
    bank.catalog.commit("t", commit)
    assert bank.catalog.files("t", "samples").finite


def test_a_version_counts_its_own_parts_only(folder_bank):
    make_table(folder_bank, "t", parts=2, n=3)
    table = folder_bank.table("t")
    empty = table.at(0).snapshot()
    assert (empty.n_samples, empty.n_parts, empty.n_shards) == (0, 0, 0)
    assert (empty.tensor_bytes, empty.stored_bytes, empty.index_bytes) == (0, 0, 0)
    folder = Path(folder_bank.url.removeprefix("file://")) / "t" / "index"
    every = sum(p.stat().st_size for p in folder.rglob("*.parquet") if p.parts[-2] != "keys")
    every += sum(
        f.n_bytes for f in folder_bank.catalog.files("t", "keys").files
    )  # files joined since are others'
    first, second = (table.at(v).snapshot() for v in (1, 2))
    assert second.index_bytes == table.snapshot().index_bytes == every
    assert 0 < first.index_bytes < every
    assert (first.n_samples, first.n_parts) == (3, 1)
    assert table.at(0).describe().keys() == table.describe().keys()


@pytest.mark.parametrize("version", [-1, 1.5, "1", None, True])
def test_a_version_is_a_whole_number_from_0_on(folder_bank, version):
    make_table(folder_bank, "t", parts=1, n=3)
    for call in (lambda: folder_bank.table("t").at(version), lambda: folder_bank.at({"t": version})):
        with pytest.raises(InvalidInputError, match="version"):
            call()


def test_a_table_that_was_made_anew_has_its_own_tiles(folder_bank, tmp_path):
    """Versions have the same numbers in both; what was known of the first must not be taken for the second."""
    make_table(folder_bank, "t", parts=1, n=3)
    assert ids_of(folder_bank, "SELECT DISTINCT sample_id FROM t.tiles") == [
        f"part-0-{i:04d}" for i in range(3)
    ]
    shutil.rmtree(tmp_path / "bank" / "t")
    make_table(folder_bank, "t", parts=1, n=2, prefix="other")
    expected = ["other0-0000", "other0-0001"]
    assert ids_of(folder_bank) == ids_of(folder_bank, "SELECT DISTINCT sample_id FROM t.tiles") == expected
