"""Local copies of index files: fetched once, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deltalake
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.handmade_index import make_table, part_of
from tensorbank import IntegrityError, NotFoundError, StorageError, StorageOptions, TensorBankError
from tensorbank.catalog.catalog import Catalog
from tensorbank.index_files.level_files import IndexFile
from tensorbank.index_files.mirror import IndexMirror
from tensorbank.storage.store import Store


class CountingStore(Store):
    """A folder that is treated as remote and counts what is fetched."""

    local_path = None

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.as_uri())
        self.fetched: list[str] = []
        self.n_listings = 0
        self._inner = Store(folder.as_uri())

    def get(self, key, late_s=None):
        self.fetched.append(key)
        return self._inner.get(key)

    def objects(self, prefix="", late_s=None, *, after=""):
        self.n_listings += 1
        return super().objects(prefix, after=after)


CONTENT = {f"t/index/samples/part-{i}.parquet": bytes([i]) * (1000 + i) for i in range(6)}
FILES = [IndexFile(key, len(data), 1) for key, data in CONTENT.items()]


@pytest.fixture
def remote(tmp_path):
    for key, data in CONTENT.items():
        path = tmp_path / "remote" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return CountingStore(tmp_path / "remote")


def copies(folder: Path) -> list[Path]:
    """Return the files below a folder but for the checksums of copies."""
    return [p for p in folder.rglob("*") if p.is_file() and "checksums" not in p.parts]


def read(paths: list[Path]) -> list[bytes]:
    return [p.read_bytes() for p in paths]


def test_a_file_is_fetched_once(remote, tmp_path):
    mirror = IndexMirror(remote, tmp_path / "cache")
    paths = mirror.paths(FILES)
    assert read(paths) == list(CONTENT.values()), "in the order asked for"
    assert sorted(remote.fetched) == sorted(CONTENT)
    assert all(tmp_path / "cache" in p.parents for p in paths)
    assert mirror.paths(FILES[::-1]) == paths[::-1]
    assert IndexMirror(remote, tmp_path / "cache").paths(FILES) == paths
    assert len(remote.fetched) == len(FILES)


def test_a_truncated_copy_is_replaced(remote, tmp_path):
    mirror = IndexMirror(remote, tmp_path / "cache")
    first, second, third, *_ = mirror.paths(FILES)
    first.write_bytes(first.read_bytes()[:500])
    second.write_bytes(b"")
    third.write_bytes(third.read_bytes() + b"more")
    assert read(mirror.paths(FILES)) == list(CONTENT.values())
    assert len(remote.fetched) == len(FILES) + 3


def test_a_source_of_another_length_is_an_error_and_leaves_no_copy(remote, tmp_path):
    mirror = IndexMirror(remote, tmp_path / "cache")
    wrong = IndexFile(FILES[0].key, FILES[0].n_bytes + 1, 1)
    with pytest.raises(IntegrityError, match="1000 bytes, but its commit says 1001") as caught:
        mirror.paths([wrong])
    assert wrong.key in str(caught.value)
    with pytest.raises(NotFoundError, match="part-99"):
        mirror.paths([*FILES, IndexFile("t/index/samples/part-99.parquet", 5, 1)])
    assert not [p for p in copies(tmp_path / "cache") if p.name not in str(CONTENT)]


def test_a_full_disk_leaves_nothing_behind(remote, tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    mirror = IndexMirror(remote, tmp_path / "cache")
    with pytest.raises(OSError, match="No space left"):
        mirror.paths(FILES[:1])
    monkeypatch.undo()
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []
    assert read(mirror.paths(FILES)) == list(CONTENT.values())


def test_many_threads_at_once(remote, tmp_path):
    mirror = IndexMirror(remote, tmp_path / "cache")
    with ThreadPoolExecutor(8) as pool:
        for paths in pool.map(lambda _: mirror.paths(FILES), range(16)):
            assert read(paths) == list(CONTENT.values())
    assert len(copies(tmp_path / "cache")) == len(FILES)


def test_a_folder_bank_is_read_where_it_lies(tmp_path):
    bank = tb.create(tmp_path / "bank", cache=tmp_path / "cache")
    make_table(bank, "t", parts=2, n=3)
    files = bank.catalog.files("t", "samples").files
    assert bank.catalog.mirror.paths(files) == [tmp_path / "bank" / f.key for f in files]
    assert bank.sql("SELECT count(*) AS n FROM t").arrow()["n"].to_pylist() == [6]
    assert not (tmp_path / "cache").exists()


def test_banks_do_not_share_copies(remote, tmp_path):
    other = CountingStore(tmp_path / "other")
    key = FILES[0].key
    (tmp_path / "other" / key).parent.mkdir(parents=True)
    (tmp_path / "other" / key).write_bytes(b"z" * FILES[0].n_bytes)
    cache = tmp_path / "cache"
    assert read(IndexMirror(remote, cache).paths(FILES[:1])) == [CONTENT[key]]
    assert read(IndexMirror(other, cache).paths(FILES[:1])) == [b"z" * FILES[0].n_bytes]


# ---------------------------------------------------------------- copies that were changed, and names that lead elsewhere


def flip(path: Path, at: int = 100) -> None:
    body = bytearray(path.read_bytes())
    body[at] ^= 4
    path.write_bytes(body)


@pytest.mark.parametrize("as_new", [True, False], ids=["new process", "same process"])
def test_a_copy_that_a_disk_changed_is_fetched_anew(remote, tmp_path, as_new):
    mirror = IndexMirror(remote, tmp_path / "cache")
    paths = mirror.paths(FILES)
    flip(paths[2])
    for sums in (tmp_path / "cache").rglob("part-4.parquet.crc32c"):
        flip(sums, 3)
    for sums in (tmp_path / "cache").rglob("part-5.parquet.crc32c"):
        sums.unlink()
    remote.fetched.clear()
    again = IndexMirror(remote, tmp_path / "cache") if as_new else mirror
    assert read(again.paths(FILES)) == list(CONTENT.values())
    assert sorted(remote.fetched) == [f.key for f in FILES if f.key[-9] in ("245" if as_new else "2")]
    assert read(IndexMirror(remote, tmp_path / "cache").paths(FILES)) == list(CONTENT.values())


def test_a_copy_of_a_log_that_a_disk_changed_is_fetched_anew(written, tmp_path):
    bank, remote = written
    make_table(bank, "t", parts=2, n=3)
    log = IndexMirror(remote, tmp_path / "cache").log("t/index/samples")
    flip(log.folder / "_delta_log" / commits(1)[0], 300)
    remote.fetched.clear()
    mirror = IndexMirror(remote, tmp_path / "cache")
    assert mirror.log("t/index/samples") == log
    assert names(remote.fetched) == commits(1)
    assert Catalog(remote, mirror).files("t", "samples").n_rows == 6


def test_a_footer_that_was_damaged_on_the_way_is_fetched_again(written, tmp_path):
    bank, remote = written
    make_table(bank, "t", parts=1, n=3)
    sound, n_bad = remote.get, [2]

    def get(key, late_s=None):
        data = sound(key, late_s)
        if key.endswith(".parquet") and n_bad[0]:
            n_bad[0] -= 1
            return data[:-8] + b"\xff\xff\xff\x7f" + data[-4:]
        return data

    remote.get = get
    catalog = Catalog(remote, IndexMirror(remote, tmp_path / "cache"))
    (file,) = catalog.files("t", "samples").files
    (path,) = catalog.mirror.readable([file])
    assert path.read_bytes() == (tmp_path / "bank" / file.key).read_bytes()
    n_bad[0] = 100
    with pytest.raises(IntegrityError, match="footer would have"):
        IndexMirror(remote, tmp_path / "other").readable([file])


def test_copies_are_for_this_user_alone(remote, tmp_path):
    old = os.umask(0)
    try:
        IndexMirror(remote, tmp_path / "new" / "cache").paths(FILES)
    finally:
        os.umask(old)
    (bank,) = (tmp_path / "new/cache").iterdir()
    for folder in (tmp_path / "new", tmp_path / "new/cache", bank):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in bank.rglob("*") if p.is_file()} == {0o600}


def test_links_and_other_users_folders_are_refused(remote, tmp_path, monkeypatch):
    mirror = IndexMirror(remote, tmp_path / "cache")
    (path, *_) = mirror.paths(FILES)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"x" * FILES[0].n_bytes)
    path.unlink()
    path.symlink_to(elsewhere)
    assert read(mirror.paths(FILES)) == list(CONTENT.values())
    assert elsewhere.read_bytes() == b"x" * FILES[0].n_bytes
    (bank,) = (tmp_path / "cache").iterdir()
    bank.rename(tmp_path / "moved")
    bank.symlink_to(tmp_path / "moved")
    with pytest.raises(StorageError, match="is a symbolic link") as caught:
        mirror.paths(FILES)
    assert caught.value.kind == "unsafe-folder"
    bank.unlink()
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(StorageError, match="belongs to user") as caught:
        mirror.paths(FILES)
    assert caught.value.kind == "unsafe-folder"


BAD_PATHS = [
    "../../../../other/x.parquet",
    "/etc/passwd",
    "s3://other/x.parquet",
    "a/../../x",
    "",
    "a//b",
    "a\\..\\b",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_file_outside_of_the_bank_is_neither_read_nor_written(remote, tmp_path, path):
    other = tmp_path / "other" / "x.parquet"
    other.parent.mkdir()
    other.write_bytes(b"mine")
    key = path if path.startswith(("/", "s3:")) or not path else f"t/index/samples/{path}"
    for store in (remote, Store((tmp_path / "remote").as_uri())):
        with pytest.raises(IntegrityError) as caught:
            IndexMirror(store, tmp_path / "cache").paths([IndexFile(key, 4, 1)])
        assert caught.value.kind == "bad-path"
    assert not remote.fetched
    assert other.read_bytes() == b"mine"


@pytest.mark.parametrize("path", BAD_PATHS[:4])
def test_a_log_that_names_files_outside_of_its_table_is_refused(written, tmp_path, path):
    bank, remote = written
    make_table(bank, "t", parts=1, n=3)
    make_table(bank, "other", parts=1, n=3)
    log = tmp_path / "bank/t/index/samples/_delta_log" / commits(1)[0]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines = [line for line in lines if "commitInfo" not in line]  # another program's, without a checksum
    for line in lines:
        if "add" in line:
            line["add"]["path"] = path
    log.write_text("\n".join(map(json.dumps, lines)))
    for catalog in (
        tb.open(tmp_path / "bank").catalog,
        Catalog(remote, IndexMirror(remote, tmp_path / "cache")),
    ):
        with pytest.raises(TensorBankError, match=r"t/index/samples|file:.*/t") as caught:
            catalog.files("t", "samples")
        assert caught.value.kind == "foreign-file"


def test_a_file_of_another_level_or_table_is_refused(tmp_path):
    bank = tb.create(tmp_path)
    make_table(bank, "t", parts=1, n=3)
    (sound,) = bank.catalog.files("t", "samples").files
    path = tmp_path / sound.key
    whole = path.read_bytes()
    for level in ("tiles", "shards"):
        (other,) = bank.catalog.files("t", level).files
        path.write_bytes((tmp_path / other.key).read_bytes())
        with pytest.raises(IntegrityError, match=r"its commit says") as caught:
            bank.sql("SELECT sample_id FROM t").arrow()
        assert path.name in str(caught.value)
        (path.parent / "foreign.parquet").write_bytes(
            path.read_bytes()
        )  # of a program whose names tell no checksum
        as_told = IndexFile("t/index/samples/foreign.parquet", other.n_bytes, other.n_rows)
        with pytest.raises(IntegrityError, match="it holds no rows of samples"):
            bank.catalog.mirror.readable([as_told])
    path.write_bytes(whole)
    assert bank.sql("SELECT sample_id FROM t").arrow().num_rows == 3
    with pytest.raises(IntegrityError, match="it has 3 rows, its commit says 4"):
        bank.catalog.mirror.readable([IndexFile(sound.key, sound.n_bytes, 4)])


# ---------------------------------------------------------------- logs


@pytest.fixture
def written(tmp_path):
    """A bank, and a store of its folder that is treated as remote."""
    bank = tb.create(tmp_path / "bank")
    return bank, CountingStore(tmp_path / "bank")


def commits(*versions: int) -> list[str]:
    return [f"{v:020}.json" for v in versions]


def names(fetched: Iterable[str]) -> list[str]:
    return sorted(key.rsplit("/", 1)[-1] for key in fetched)


def ids_at(catalog: Catalog, version: int | None = None) -> set[str]:
    files = catalog.files("t", "samples", version)
    return {i for p in catalog.mirror.paths(files.files) for i in pq.read_table(p)["sample_id"].to_pylist()}


def test_a_log_is_one_listing_and_what_came_since(written, tmp_path):
    bank, remote = written
    made = make_table(bank, "t", parts=2, n=3)
    catalog = Catalog(remote, IndexMirror(remote, tmp_path / "cache"))
    assert catalog.files("t", "samples").n_rows == 6
    assert (remote.n_listings, names(remote.fetched)) == (1, commits(0, 1, 2))
    remote.fetched.clear()
    assert catalog.files("t", "samples").n_rows == 6
    assert (remote.n_listings, remote.fetched) == (2, [])
    more = part_of("t", "part-2", 4)
    bank.catalog.commit("t", more)
    assert catalog.files("t", "samples").n_rows == 10
    assert (remote.n_listings, names(remote.fetched)) == (3, commits(3))
    other = Catalog(remote, IndexMirror(remote, tmp_path / "cache"))
    assert ids_at(other) == made.by_id().keys() | set(more.samples["sample_id"].to_pylist())
    assert not {name for name in names(remote.fetched) if name.endswith(".json")} - {*commits(3)}


def test_versions_before_and_after_a_checkpoint(written, tmp_path):
    bank, remote = written
    made = make_table(bank, "t", parts=4, n=2)
    log = tmp_path / "bank/t/index/samples/_delta_log"
    deltalake.DeltaTable(log.parent, version=3).create_checkpoint()
    assert (log / "_last_checkpoint").exists()
    expected = {
        v: {r["sample_id"] for r in made.samples if made.versions[r["part"]] <= v} for v in (1, 2, 3, 4)
    }
    new = Catalog(remote, IndexMirror(remote, tmp_path / "new"))
    assert ids_at(new) == expected[4]
    assert names(k for k in remote.fetched if "_delta_log" in k) == [
        f"{3:020}.checkpoint.parquet",
        *commits(3, 4),
    ]
    for version in (1, 3, 2):  # the new one's folder has a gap before its checkpoint
        assert ids_at(new, version) == expected[version], version
        one = Catalog(remote, IndexMirror(remote, tmp_path / f"only-{version}"))
        assert ids_at(one, version) == expected[version], version
        assert ids_at(one) == expected[4], version
    with pytest.raises(NotFoundError, match="no version 5"):
        new.files("t", "samples", 5)
    for version in range(3):  # as a clean-up of old versions leaves it
        (log / f"{version:020}.json").unlink()
    assert ids_at(Catalog(remote, IndexMirror(remote, tmp_path / "later"))) == expected[4]
    assert ids_at(new) == expected[4]


def test_a_table_made_anew_is_not_taken_for_the_old_one(written, tmp_path):
    bank, remote = written
    make_table(bank, "t", parts=1, n=3, prefix="old")
    catalogs = [Catalog(remote, IndexMirror(remote, tmp_path / "cache")) for _ in range(2)]
    before = catalogs[0].files("t", "samples")
    shutil.rmtree(tmp_path / "bank/t")
    made = make_table(tb.create(tmp_path / "bank"), "t", parts=1, n=3, prefix="new")
    for catalog in (*catalogs, Catalog(remote, IndexMirror(remote, tmp_path / "cache"))):
        found = catalog.files("t", "samples")
        assert (found.version, found.n_rows) == (before.version, before.n_rows)
        assert found.table_id != before.table_id
        assert ids_at(catalog) == made.by_id().keys()


def test_a_log_whose_copy_was_cut_off_is_fetched_again(written, tmp_path):
    bank, remote = written
    make_table(bank, "t", parts=1, n=3)
    mirror = IndexMirror(remote, tmp_path / "cache")
    log = mirror.log("t/index/samples")
    copy = log.folder / "_delta_log" / commits(1)[0]
    copy.write_bytes(copy.read_bytes()[:100])
    remote.fetched.clear()
    assert mirror.log("t/index/samples") == log
    assert names(remote.fetched) == commits(1)
    assert Catalog(remote, mirror).files("t", "samples").n_rows == 3


WRITER = """
import sys, time
from pathlib import Path
import tempfile
from tensorbank import StorageOptions
from tensorbank.index_files.level_files import IndexFile
from tensorbank.index_files.mirror import IndexMirror
from tensorbank.storage.store import Store
url, endpoint, access, secret, cache, key, size, slow = sys.argv[1:]
if slow == "slow":
    make = tempfile.NamedTemporaryFile
    def half(*args, **options):
        file = make(*args, **options)
        write = file.file.write
        def slowly(data):
            write(data[: len(data) // 2])
            file.file.flush()
            print("half", flush=True)
            time.sleep(100)
        file.write = slowly
        return file
    tempfile.NamedTemporaryFile = half
store = Store(url, StorageOptions(endpoint, access, secret))
print("ready", flush=True)
sys.stdin.readline()
(path,) = IndexMirror(store, Path(cache)).paths([IndexFile(key, int(size), 1)])
print(path, path.stat().st_size, flush=True)
"""


@pytest.fixture
def large(s3_server):
    """A file of 30 MB in SeaweedFS."""
    options = StorageOptions(s3_server.endpoint, s3_server.access_key, s3_server.secret_key)
    store = Store(f"{s3_server.url}/mirror-{uuid.uuid4().hex[:8]}", options)
    data = os.urandom(1 << 20) * 30
    key = "t/index/samples/large.parquet"
    store.put(key, data)
    return store, IndexFile(key, len(data), 1), data


def writer(store: Store, file: IndexFile, cache: Path, speed: str) -> subprocess.Popen:
    o = store.options
    arguments = [store.url, o.endpoint, o.access_key, o.secret_key, cache, file.key, file.n_bytes, speed]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_killed_write_leaves_nothing_that_is_read(large, tmp_path):
    store, file, data = large
    process = writer(store, file, tmp_path, "slow")
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "half\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(left) == 1, "the half that was written, under a name of its own"
    assert 0 < left[0].stat().st_size < file.n_bytes
    (path,) = IndexMirror(store, tmp_path).paths([file])
    assert path != left[0]
    assert path.read_bytes() == data


def test_two_processes_at_once(large, tmp_path):
    store, file, data = large
    processes = [writer(store, file, tmp_path, "fast") for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [p.communicate(timeout=60)[0] for p in processes]
    assert len(set(said)) == 1, said
    path, size = said[0].split()
    assert int(size) == len(data)
    assert Path(path).read_bytes() == data
    assert copies(tmp_path) == [Path(path)]


def test_a_bank_in_a_store_is_answered_from_the_cache(s3_server, tmp_path):
    bank = tb.create(
        f"{s3_server.url}/cached-{uuid.uuid4().hex[:8]}",
        endpoint=s3_server.endpoint,
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key,
        cache=tmp_path,
    )
    make_table(bank, "t", parts=2, n=3)
    sql = "SELECT sample_id FROM t ORDER BY sample_id"
    first = bank.sql(sql).arrow()
    copies = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("samples/*.parquet")}
    assert len(copies) == 2
    time.sleep(0.01)
    assert bank.sql(sql).arrow().equals(first)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("samples/*.parquet")} == copies


def test_a_cold_cache_gets_the_files_that_survive_pruning_and_no_others(s3_server, tmp_path):
    bank = tb.create(
        f"{s3_server.url}/pruned-{uuid.uuid4().hex[:8]}",
        endpoint=s3_server.endpoint,
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key,
        cache=tmp_path,
    )
    make_table(bank, "t", parts=5, n=3)

    def cached(level: str) -> set[Path]:
        return {p for p in tmp_path.rglob("*.parquet") if level in p.parts}

    kept = {
        f"{bank.url}/{f.key}"
        for f in bank.catalog.files("t", "samples").files
        if f.part in ("part-1", "part-3")
    }
    sql = "SELECT sample_id FROM t WHERE part IN ('part-1', 'part-3') ORDER BY sample_id"
    first = bank.sql(sql).arrow()
    assert first.num_rows == 6
    assert {p.name for p in cached("samples")} == {Path(k).name for k in kept}
    assert not cached("tiles")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.parquet")}
    assert bank.sql(sql).arrow().equals(first)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.parquet")} == before
    bank.sql("SELECT tile FROM t.tiles WHERE part = 'part-2'").arrow()
    assert len(cached("tiles")) == 1
