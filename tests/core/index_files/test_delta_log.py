"""Logs that are damaged, foreign or incomplete, told apart from a table that is not there: in a folder, and as copies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import deltalake
import pytest

import tensorbank as tb
from support.handmade_index import SCHEMA, make_table, part_of
from tensorbank import FormatError, IntegrityError, NotFoundError, StorageError, TensorBankError
from tensorbank.catalog.catalog import Catalog
from tensorbank.index_files.delta_log import check_commit, data_path, needed, require_readable
from tensorbank.index_files.mirror import IndexMirror
from tensorbank.storage.store import Store


class Far(Store):
    """A store of a folder that is treated as one elsewhere: its logs are copied."""

    @property
    def local_path(self) -> Path | None:
        return None

    def _open(self, *, writing: bool = False):
        if self._client is None:
            self._client = Store(self.url)._open(writing=True)
        return self._client


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A table of three versions."""
    folder = tmp_path_factory.mktemp("made") / "bank"
    make_table(tb.create(folder), "t", parts=2, n=3)
    return folder


@pytest.fixture
def log(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "bank")
    return tmp_path / "bank/t/index/samples/_delta_log"


def commit(log: Path, version: int) -> Path:
    return log / f"{version:020}.json"


def edit(path: Path, change: Callable[[dict], None]) -> None:
    """Change the actions of a commit, which is another program's then: it has no checksum."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [line for line in lines if "commitInfo" not in line]
    for line in lines:
        change(line)
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")


def with_protocol(log: Path, **protocol: object) -> None:
    edit(commit(log, 0), lambda line: line.update(protocol=protocol) if "protocol" in line else None)


def with_features(log: Path, *features: str) -> None:
    with_protocol(
        log, minReaderVersion=3, minWriterVersion=7, readerFeatures=[*features], writerFeatures=[*features]
    )


def with_columns_by_id(log: Path) -> None:
    with_protocol(log, minReaderVersion=2, minWriterVersion=5)
    edit(
        commit(log, 0),
        lambda line: (
            line["metaData"]["configuration"].update({"delta.columnMapping.mode": "name"})
            if "metaData" in line
            else None
        ),
    )


def with_deletion_vector(log: Path) -> None:
    vector = {
        "storageType": "u",
        "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^",
        "offset": 4,
        "sizeInBytes": 40,
        "cardinality": 1,
    }
    edit(commit(log, 1), lambda line: line["add"].update(deletionVector=vector) if "add" in line else None)
    commit(log, 1).write_text(commit(log, 1).read_text().replace('"deletionVector": {', '"deletionVector":{'))


def with_path(path: str) -> Callable[[Path], None]:
    return lambda log: edit(
        commit(log, 1), lambda line: line["add"].update(path=path) if "add" in line else None
    )


def with_parts_of_a_checkpoint(log: Path) -> None:
    """Write a large checkpoint in parts and remove the commits before it, as other programs do."""
    deltalake.DeltaTable(log.parent).create_checkpoint()
    (log / f"{2:020}.checkpoint.parquet").rename(log / f"{2:020}.checkpoint.{1:010}.{1:010}.parquet")
    commit(log, 0).unlink()
    commit(log, 1).unlink()


def with_a_second_kind_of_checkpoint(log: Path) -> None:
    (log / f"{2:020}.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json").write_text("{}")
    commit(log, 0).unlink()


def with_a_cut_checkpoint(log: Path) -> None:
    deltalake.DeltaTable(log.parent).create_checkpoint()
    path = log / f"{2:020}.checkpoint.parquet"
    path.write_bytes(path.read_bytes()[:200])


def cut(log: Path) -> None:
    data = commit(log, 1).read_bytes()
    commit(log, 1).write_bytes(data[: len(data) // 2])


def a_bad_line(log: Path) -> None:
    commit(log, 1).write_text('{"add": nonsense}\n' + commit(log, 1).read_text())


CASES: dict[str, tuple[Callable[[Path], object], type[TensorBankError], str, str]] = {
    "an unknown feature": (lambda log: with_features(log, "fooBar"), FormatError, "log-format", "fooBar"),
    "deletion vectors": (
        lambda log: with_features(log, "deletionVectors"),
        FormatError,
        "log-format",
        "deletionVectors",
    ),
    "v2 checkpoints": (
        lambda log: with_features(log, "v2Checkpoint"),
        FormatError,
        "log-format",
        "v2Checkpoint",
    ),
    "reader version 4": (
        lambda log: with_protocol(log, minReaderVersion=4, minWriterVersion=8),
        FormatError,
        "log-format",
        "reader version 4",
    ),
    "columns under other names": (with_columns_by_id, FormatError, "log-format", "columnMapping"),
    "a deletion vector": (with_deletion_vector, FormatError, "log-format", f"{1:020}.json hides rows"),
    "a checkpoint of parts": (
        with_parts_of_a_checkpoint,
        FormatError,
        "log-format",
        "checkpoint of several files",
    ),
    "a checkpoint of another kind": (
        with_a_second_kind_of_checkpoint,
        FormatError,
        "log-format",
        "checkpoint of several files",
    ),
    "a cut checkpoint": (with_a_cut_checkpoint, IntegrityError, "damaged-log", f"{2:020}.checkpoint.parquet"),
    "a cut commit": (cut, IntegrityError, "damaged-log", f"{1:020}.json"),
    "an empty commit": (
        lambda log: commit(log, 1).write_bytes(b""),
        IntegrityError,
        "damaged-log",
        f"{1:020}.json",
    ),
    "a page for a commit": (
        lambda log: commit(log, 2).write_bytes(b"<html></html>"),
        IntegrityError,
        "damaged-log",
        f"{2:020}.json",
    ),
    "a bad line": (a_bad_line, IntegrityError, "damaged-log", f"{1:020}.json"),
    "a missing commit": (lambda log: commit(log, 1).unlink(), IntegrityError, "damaged-log", f"{1:020}.json"),
    "a missing first commit": (
        lambda log: commit(log, 0).unlink(),
        IntegrityError,
        "damaged-log",
        f"{0:020}.json",
    ),
    "a file elsewhere": (
        with_path("../../../../other/x.parquet"),
        FormatError,
        "foreign-file",
        "other/x.parquet",
    ),
    "a quoted file elsewhere": (with_path("..%2F..%2Fx.parquet"), FormatError, "foreign-file", "x.parquet"),
    "an absolute file": (with_path("/etc/passwd"), FormatError, "foreign-file", "/etc/passwd"),
    "a file at a URL": (with_path("s3://other/x.parquet"), FormatError, "foreign-file", "s3://other"),
}


@pytest.mark.parametrize("near", [True, False], ids=["folder", "copies"])
@pytest.mark.parametrize("case", CASES)
def test_a_log_that_cannot_be_read_is_never_a_table_that_is_not_there(case, near, log, tmp_path):
    spoil, sort, kind, word = CASES[case]
    spoil(log)
    url = (tmp_path / "bank").as_uri()
    store = Store(url) if near else Far(url)
    catalog = Catalog(store, IndexMirror(store, tmp_path / "cache"))
    for call in (lambda: catalog.schema("t"), lambda: catalog.files("t", "samples")):
        with pytest.raises(sort) as caught:
            call()
        assert not isinstance(caught.value, NotFoundError)
        assert (type(caught.value), caught.value.kind) == (sort, kind)
        assert word in str(caught.value)
        assert "t/index/samples" in str(caught.value)
        assert "\n" not in str(caught.value)
    if near and case not in (
        "a deletion vector",
    ):  # what writes sees it, too, and takes it for no empty table
        for call in (
            lambda: catalog.membership(catalog.version("t")),
            lambda: catalog.commit("t", part_of("t", "p9", 2)),
        ):
            with pytest.raises(sort) as caught:
                call()
            assert caught.value.kind == kind


def test_a_table_that_is_not_there_is(made, tmp_path):
    store = Store(made.as_uri())
    catalog = Catalog(store, IndexMirror(store, tmp_path))
    for call in (
        lambda: catalog.schema("tt"),
        lambda: catalog.membership(catalog.version("tt")),
        lambda: catalog.history("tt"),
    ):
        with pytest.raises(NotFoundError, match=r"There is only t|mean 't'") as caught:
            call()
        assert caught.value.kind == "unknown-table"


def test_a_file_that_is_gone_is_no_missing_table(log, tmp_path):
    for path in log.parent.glob("*.parquet"):
        path.unlink()
    store = Store((tmp_path / "bank").as_uri())
    catalog = Catalog(store, IndexMirror(store, tmp_path))
    with pytest.raises(IntegrityError, match="is gone, though its commit is there") as caught:
        catalog.path(catalog.files("t", "samples").files[0])
    assert caught.value.kind == "no-object"


def test_a_damaged_copy_is_fetched_anew(log, tmp_path):
    store = Far((tmp_path / "bank").as_uri())
    mirror = IndexMirror(store, tmp_path / "cache")
    copy = mirror.log("t/index/samples").folder / "_delta_log" / commit(log, 1).name
    data = copy.read_bytes()
    for damaged in (b"x" + data[1:], data[:100] + b"\xff" * 100 + data[200:]):
        copy.write_bytes(damaged)
        assert Catalog(store, IndexMirror(store, tmp_path / "cache")).files("t", "samples").n_rows == 6
        assert copy.read_bytes() == data


def test_files_beside_the_commits_are_no_matter(log, tmp_path):
    """Checksums, compacted commits and staged ones, as other programs leave them."""
    (log / f"{1:020}.crc").write_text("{}")
    (log / f"{0:020}.{1:020}.compacted.json").write_text("nonsense")
    (log / "_staged_commits").mkdir()
    (log / "_staged_commits" / f"{3:020}.80a083e8.json").write_text("{}")
    (log / ".s3-optimization-1").write_bytes(b"")
    far = Far((tmp_path / "bank").as_uri())
    assert Catalog(far, IndexMirror(far, tmp_path / "cache")).files("t", "samples").n_rows == 6


def test_history_reaches_beyond_a_checkpoint(log, tmp_path):
    deltalake.DeltaTable(log.parent).create_checkpoint()
    for store in (Store((tmp_path / "bank").as_uri()), Far((tmp_path / "bank").as_uri())):
        catalog = Catalog(store, IndexMirror(store, tmp_path / "cache"))
        assert [(e.version, e.n_rows, e.part) for e in catalog.history("t")] == [
            (2, 3, "part-1"),
            (1, 3, "part-0"),
            (0, 0, None),
        ]


def test_what_exists_is_not_made_again(log, tmp_path):
    """Not even a probe is written: a bank that must not be written can be opened as it is."""
    writes = []

    class Watched(Store):
        def create(self, key, data):
            writes.append(key)
            super().create(key, data)

    store = Watched((tmp_path / "bank").as_uri())
    catalog = Catalog(store, IndexMirror(store, tmp_path / "cache"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "bank").rglob("*")}
    catalog.create("t", SCHEMA)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "bank").rglob("*")} == before
    assert writes == []
    catalog.create("u", SCHEMA)
    assert len(writes) == 2
    assert catalog.tables() == ["t", "u"]


def test_a_table_whose_making_was_cut_off_is_completed(log, tmp_path):
    shutil.rmtree(log.parent)
    bank = tb.create(tmp_path / "bank")
    assert bank.tables() == []
    bank.catalog.create("t", SCHEMA)
    assert bank.catalog.files("t", "samples").n_rows == 0


def test_a_full_disk_while_a_log_is_copied_is_told(log, tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    store = Far((tmp_path / "bank").as_uri())
    with pytest.raises(StorageError, match="the disk is full") as caught:
        Catalog(store, IndexMirror(store, tmp_path / "cache")).schema("t")
    assert caught.value.kind == "disk-full"
    assert str(tmp_path / "cache") in str(caught.value)


def test_needed_files_of_a_log():
    def commits(*versions: int) -> list[str]:
        return [f"{v:020}.json" for v in versions]

    def checkpoint(version: int) -> str:
        return f"{version:020}.checkpoint.parquet"

    assert needed(commits(0, 1, 2), 1, "t") == commits(0, 1)
    assert needed([*commits(0, 1, 2, 3), checkpoint(2)], 3, "t") == [checkpoint(2), *commits(2, 3)]
    assert needed([*commits(3), checkpoint(2)], 3, "t") == [checkpoint(2), *commits(3)]
    assert needed([*commits(0, 1, 2, 3), checkpoint(2)], 1, "t") == commits(0, 1)
    assert needed([*commits(0, 1), f"{1:020}.checkpoint.{1:010}.{2:010}.parquet"], 1, "t") == commits(0, 1)
    for names in (commits(0, 2), commits(1, 2), [*commits(4), checkpoint(2)]):
        with pytest.raises(IntegrityError):
            needed(names, max(int(n[:20]) for n in names), "t")


def test_what_is_read_as_it_is_is_read():
    require_readable(1, None, {}, "t")
    require_readable(3, ["timestampNtz"], {"delta.columnMapping.mode": "none"}, "t")
    assert data_path("part-0%200.parquet", "t") == "part-0 0.parquet"
    check_commit(b'{"add":{}}\n', "x")
