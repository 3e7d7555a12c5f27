"""An ingest refuses before it writes, and says what changed or was added by others."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import tensorbank as tb
from tensorbank.bank import LocalEngine
from tensorbank.cli.app import main
from tensorbank.layout import RESERVED_WORDS, check_table_name
from tensorbank.removal import GRACE, collect
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_indexer.reports.report import IngestReport

INLINE = IngestOptions(n_workers=1, samples_per_shard=4)
STRICT = IngestOptions(n_workers=1, samples_per_shard=4, strict=True)


def load(root: Path, bank: tb.Bank, table: str = "t", options: IngestOptions = INLINE) -> IngestReport:
    return ingest(open_source(str(root)), bank, table, options)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def as_val(root: Path) -> Path:
    (root / "train").rename(root / "val")
    return root


def test_an_archive_of_other_dates_is_refused_before_anything_is_written(write_members, tmp_path):
    bank = tb.create(tmp_path / "bank")
    load(write_members(4, ("S1RTC", "S2L2A", "DEM"), name="one"), bank)
    before = files_of(tmp_path / "bank")
    odd = {
        i: {"pixels": {"DEM": np.full((1, 1, 32, 32), i, np.int16)}, "sample": f"282D_485L_3_{i}"}
        for i in range(4)
    }
    root = as_val(write_members(4, ("S1RTC", "S2L2A", "DEM"), odd, name="four", n_dates=4))
    with pytest.raises(tb.FormatError, match="S2L2A has 4 dates, in the table 1") as caught:
        load(root, bank)
    assert caught.value.kind == "other-table"
    assert "what fits: DEM" in str(caught.value)
    assert files_of(tmp_path / "bank") == before


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (np.zeros((1, 1, 32, 32), np.float32), "dtype float32, in the table int16"),
        (np.zeros((1, 1, 16, 32), np.int16), "pixels 16 x 32, in the table 32 x 32"),
        (np.zeros((1, 2, 32, 32), np.int16), "bands"),
    ],
)
def test_of_one_modality_that_does_not_fit_nothing_is_written(write_members, tmp_path, pixels, text):
    bank = tb.create(tmp_path / "bank")
    load(write_members(4, ("DEM",), name="one"), bank)
    before = files_of(tmp_path / "bank")
    odd = {i: {"pixels": {"DEM": pixels}, "sample": f"282D_485L_3_{i}"} for i in range(4)}
    with pytest.raises(tb.FormatError, match=text) as caught:
        load(as_val(write_members(4, ("DEM",), odd, name="two")), bank)
    assert caught.value.kind == "other-table"
    assert files_of(tmp_path / "bank") == before


def test_fewer_dates_and_most_of_the_modalities_do_fit(write_members, tmp_path):
    bank = tb.create(tmp_path / "bank")
    load(write_members(4, ("S1RTC", "DEM", "LULC"), name="one", n_dates=2), bank)
    odd: dict[int, Any] = {
        i: {"sample": f"282D_485L_3_{i}", "pixels": {"LULC": np.ones((1, 1, 8, 8), np.uint8)}}
        for i in range(4)
    }
    root = write_members(4, ("S1RTC", "DEM", "LULC"), odd, name="two")
    as_val(root)
    report = load(root, bank)
    assert report.n_added == 4
    assert [f.kind for f in report.findings if f.kind != "footprint-mismatch"] == ["other-shape"] * 4


@pytest.mark.parametrize("table_is_there", [False, True])
def test_strict_leaves_nothing_behind(write_members, tmp_path, table_is_there):
    bank = tb.create(tmp_path / "bank")
    if table_is_there:
        load(write_members(4, name="sound"), bank)
    before = files_of(tmp_path / "bank")
    odd = {i: {"sample": f"282D_485L_3_{i}", **({"epsg": 0} if i == 2 else {})} for i in range(4)}
    root = write_members(4, odd=odd, name="odd")
    as_val(root)
    with pytest.raises(tb.FormatError, match="bad-georeference") as caught:
        load(root, bank, options=STRICT)
    assert caught.value.kind == "strict"
    assert files_of(tmp_path / "bank") == before
    assert bank.tables() == (["t"] if table_is_there else [])


def test_strict_on_the_command_line_keeps_its_report_in_a_file(write_members, tmp_path, capsys):
    root = write_members(4, odd={1: {"epsg": 0}})
    report = tmp_path / "report.json"
    arguments = [
        "ingest",
        str(root),
        str(tmp_path / "bank"),
        "--table",
        "t",
        "--strict",
        "--workers",
        "1",
        "--report",
        str(report),
    ]
    assert main(arguments) == 1
    assert "bad-georeference" in capsys.readouterr().err
    assert '"bad-georeference"' in report.read_text()
    assert files_of(tmp_path / "bank") == {}


def test_sound_archives_pass_strict(write_members, tmp_path):
    report = load(write_members(4), tb.create(tmp_path / "bank"), options=STRICT)
    assert (report.n_added, report.findings) == (4, [])


def test_a_tar_that_was_replaced_is_named(write_members, tmp_path, capsys):
    bank = tb.create(tmp_path / "bank")
    root = write_members(4)
    load(root, bank)
    version = bank.table("t").snapshot().version
    other = write_members(4, odd={0: {"pixels": {"DEM": np.zeros((1, 1, 32, 32), np.int16)}}}, name="other")
    shutil.copy(other / "train/DEM/majortom_shard_000001.tar", root / "train/DEM/majortom_shard_000001.tar")
    report = load(root, bank)
    assert (report.n_found, report.n_present, report.n_added) == (4, 4, 0)
    (found,) = report.findings
    assert (found.kind, found.modality, found.archive) == (
        "changed-source",
        "DEM",
        "train/majortom_shard_000001",
    )
    assert "4 samples" in found.reason
    assert bank.table("t").snapshot().version == version
    arguments = ["ingest", str(root), str(tmp_path / "bank"), "--table", "t", "--workers", "1"]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "4 were there already" in said.out
    assert "changed-source: train/DEM/majortom_shard_000001.tar" in said.err
    assert "--refresh replaces these samples" in said.err


def test_a_tar_that_was_replaced_by_a_longer_one_is_named_too(write_members, tmp_path):
    bank = tb.create(tmp_path / "bank")
    root = write_members(4)
    load(root, bank)
    other = write_members(5, odd={0: {"pixels": {"DEM": np.zeros((1, 1, 32, 32), np.int16)}}}, name="other")
    shutil.copytree(other, root, dirs_exist_ok=True)
    report = load(root, bank)
    assert (report.n_present, report.n_added) == (4, 1)
    assert {found.kind for found in report.findings} == {"changed-source"}
    assert all("4 samples" in found.reason for found in report.findings)


def test_a_modality_that_came_later_is_named(write_members, tmp_path):
    bank = tb.create(tmp_path / "bank")
    root = write_members(4)
    load(root, bank)
    write_members(4, ("S1RTC", "DEM", "LULC"), name="more")
    shutil.copytree(tmp_path / "more/train/LULC", root / "train/LULC")
    report = load(root, bank)
    assert [(f.kind, f.modality) for f in report.findings] == [("new-source-file", "LULC")]
    assert report.n_present == 4


def test_a_source_that_did_not_change_has_no_findings(write_members, tmp_path):
    bank = tb.create(tmp_path / "bank")
    root = write_members(4)
    load(root, bank)
    again = load(root, bank)
    assert (again.n_present, again.findings) == (4, [])


def bank_in(where: str, tmp_path: Path, s3_server: Any) -> tb.Bank:
    if where == "folder":
        return tb.create(tmp_path / "bank")
    keys = {
        "access_key": s3_server.access_key,
        "secret_key": s3_server.secret_key,
        "region": s3_server.region,
    }
    return tb.create(f"{s3_server.url}/at-once-{uuid.uuid4().hex[:8]}", endpoint=s3_server.endpoint, **keys)


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_two_ingests_at_once_are_one(write_members, tmp_path, s3_server, where):
    """All wait for each other right before the commit, the narrowest place there is."""
    root = write_members(8)
    bank = bank_in(where, tmp_path, s3_server)
    together = threading.Barrier(3, timeout=60)
    reports: list[IngestReport | BaseException] = []

    def run() -> None:
        mine = tb.Bank(LocalEngine(pickle.loads(pickle.dumps(bank.catalog))))
        publish = mine.catalog.publish

        def later(*given: Any) -> Any:
            together.wait()
            return publish(*given)

        mine.catalog.publish = later  # type: ignore[method-assign]
        try:
            reports.append(load(root, mine))
        except BaseException as error:
            reports.append(error)
            together.abort()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [r for r in reports if not isinstance(r, IngestReport)] == []
    assert sorted(r.n_added for r in reports) == [0, 0, 8]
    assert sorted(r.n_elsewhere for r in reports) == [0, 8, 8]
    for report in reports:
        assert report.n_added + report.n_present == report.n_found == 8
        assert report.n_added or "8 were added by another ingest meanwhile" in report.summary()
    again = tb.Bank(LocalEngine(pickle.loads(pickle.dumps(bank.catalog))))
    assert again.table("t").snapshot().n_samples == 8
    assert len(again.sql("SELECT sample_id, DEM FROM t").plan()) == 8
    assert [o.key for o in bank.catalog.store.objects("t/tensors") if ".progress" in o.key] == []


def test_two_commands_at_once_both_end_well(write_members, tmp_path):
    root = write_members(8)
    command = [
        sys.executable,
        "-m",
        "tensorbank",
        "ingest",
        str(root),
        str(tmp_path / "bank"),
        "--table",
        "t",
    ]
    command += ["--workers", "1", "--samples-per-shard", "1", "--json"]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    reports = [json.loads(out) for out, _ in said]
    assert sorted(r["n_added"] for r in reports) == [0, 8]
    assert all(r["n_added"] + r["n_present"] == 8 for r in reports)
    assert tb.open(tmp_path / "bank").table("t").snapshot().n_samples == 8


@pytest.mark.parametrize("n_theirs", [4, 8])
def test_an_ingest_that_lost_its_samples_to_another_adds_the_rest(write_members, tmp_path, n_theirs):
    """Another run, of other options, commits some of the samples while this one writes."""
    root = write_members(8)
    bank = tb.create(tmp_path / "bank")
    commit = bank.catalog.publish
    theirs = []

    def after_another(*given: Any) -> Any:
        if not theirs:
            half = write_members(n_theirs, name="half")
            theirs.append(
                ingest(open_source(str(half)), tb.open(tmp_path / "bank"), "t", IngestOptions(n_workers=1))
            )
        return commit(*given)

    bank.catalog.publish = after_another  # type: ignore[method-assign]
    report = load(root, bank)
    assert theirs[0].n_added == n_theirs
    assert (report.n_added, report.n_present, report.n_elsewhere) == (8 - n_theirs, n_theirs, n_theirs)
    again = tb.open(tmp_path / "bank")
    assert (
        len(again.sql("SELECT DISTINCT sample_id FROM t").arrow())
        == again.table("t").snapshot().n_samples
        == 8
    )
    parts = set(again.table("t").parts())
    tensors = tmp_path / "bank/t/tensors"
    assert {p.name for p in tensors.iterdir() if p.suffix == "" and p.is_dir()} > parts, (
        "a run of the same part may need it"
    )
    collect(again.catalog, "t", dry_run=False, now=datetime.now(UTC) + 2 * GRACE)
    assert {p.name for p in tensors.iterdir() if p.is_dir()} == parts


def test_checkpoints_of_a_run_that_died_after_its_commit_are_removed(write_members, tmp_path, monkeypatch):
    from tensorbank_indexer.parts import checkpoint

    root = write_members(8)
    bank = tb.create(tmp_path / "bank")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "forget", lambda *_: None)
        patched.setattr(checkpoint, "parts_with", lambda *_: [])
        load(root, bank)
    left = tmp_path / "bank/t/tensors"
    assert list(left.glob("*.progress/*.arrow"))
    assert load(root, bank).n_present == 8
    assert not list(left.glob("*.progress/*"))


def test_nothing_to_add_needs_no_right_to_write(write_members, tmp_path, monkeypatch):
    root = write_members(4)
    bank = tb.create(tmp_path / "bank")
    load(root, bank)

    def refuse(*_: object) -> None:
        raise tb.StorageError("read-only")

    for name in ("put", "create", "delete"):
        monkeypatch.setattr(type(bank.catalog.store), name, refuse)
    assert load(root, bank).n_present == 4


BAD_MODALITIES = {
    "a column of every table": "season",
    "one in other case": "Cloud_Cover",
    "a column of tiles": "time_index",
    "a key of batches": "mask",
    "a word of SQL": "select",
    "a digit first": "2S",
}


@pytest.mark.parametrize("name", BAD_MODALITIES)
def test_a_modality_that_sql_cannot_name_is_refused_at_once(write_members, tmp_path, name, capsys):
    root = write_members(2)
    bad = BAD_MODALITIES[name]
    (root / "train/DEM").rename(root / "train" / bad)
    bank = tb.create(tmp_path / "bank")
    before = files_of(tmp_path / "bank")
    with pytest.raises(tb.InvalidInputError) as caught:
        load(root, bank)
    assert caught.value.kind == "bad-name"
    assert ascii(bad) in str(caught.value)
    assert files_of(tmp_path / "bank") == before
    assert main(["ingest", str(root), str(tmp_path / "bank"), "--table", "t", "--workers", "1"]) == 2
    assert ascii(bad) in capsys.readouterr().err


def test_modalities_that_differ_in_case_only_are_refused(write_members, tmp_path):
    bank = tb.create(tmp_path / "bank")
    load(write_members(2, ("DEM",)), bank)
    root = write_members(2, ("DEM",), {i: {"sample": f"282D_485L_9_{i}"} for i in range(2)}, name="lower")
    (root / "train/DEM").rename(root / "train/dem")
    as_val(root)
    with pytest.raises(tb.InvalidInputError, match="'dem' from 'DEM'") as caught:
        load(root, bank)
    assert caught.value.kind == "bad-name"


BAD_BANDS = [["vv", "VV"], ["mean", "vh"], ["P50", "vh"], ["ref", "vh"], ["valid", "vh"], ["bins", "vh"]]
BAD_BANDS += [["v v", "vh"], ["v'v", "vh"], ['v"v', "vh"], ["v,v", "vh"], ["443.5", "865.2"]]


@pytest.mark.parametrize("bands", BAD_BANDS, ids=ascii)
def test_bands_that_sql_cannot_tell_apart_are_refused_at_once(write_members, tmp_path, bands):
    bank = tb.create(tmp_path / "bank")
    before = files_of(tmp_path / "bank")
    with pytest.raises(tb.InvalidInputError):
        load(write_members(2, odd={i: {"bands": bands} for i in range(2)}), bank)
    assert files_of(tmp_path / "bank") == before


def test_odd_but_sound_names_of_bands_work_everywhere(write_members, tmp_path):
    bands = ["443_5", "B8-A+1"]
    bank = tb.create(tmp_path / "bank")
    root = write_members(4, ("S1RTC",), {i: {"bands": bands} for i in range(4)})
    assert load(root, bank).n_added == 4
    for condition in (
        'S1RTC."443_5".mean > -100',
        'S1RTC."B8-A+1".mean < 0',
        "pixels_any('S1RTC.443_5', '< 0')",
    ):
        query = bank.sql(f"SELECT sample_id, bands(S1RTC, ['B8-A+1']) FROM t WHERE {condition}")
        assert len(query.plan()) == len(query.arrow()) == 4, condition
    assert [b.name for b in bank.table("t").describe()["S1RTC"].bands] == bands
    (batch,) = list(bank.sql("SELECT S1RTC FROM t").dataloader(batch_size=4))
    assert batch["S1RTC"].shape == (4, 2, 32, 32)


@pytest.mark.parametrize(
    "name", ["select", "SELECT", "order", "group", "table", "a.b", 'a"b', "a b", "", "1a", "main", None, 5]
)
def test_names_of_tables_that_sql_cannot_say_are_refused_everywhere(write_members, tmp_path, name):
    bank = tb.create(tmp_path / "bank")
    with pytest.raises(tb.InvalidInputError):
        load(write_members(2), bank, name)
    assert files_of(tmp_path / "bank") == {}
    if name != "main":
        with pytest.raises(tb.InvalidInputError):
            bank.register(name, duckdb.sql("SELECT 1 AS a").to_arrow_table())
        with pytest.raises(tb.InvalidInputError):
            bank.query(name)


def test_the_words_of_sql_are_those_of_this_duckdb():
    connection = duckdb.connect()
    words = [w for (w,) in connection.sql("SELECT keyword_name FROM duckdb_keywords()").fetchall()]
    assert len(words) > 400
    for word in words:
        statements = (
            f"SELECT * FROM {word}.samples",
            f"SELECT {word}.B08.mean FROM t WHERE {word} IS NOT NULL",
        )
        parsed = [connection.execute("SELECT json_serialize_sql(?)", [s]).fetchone()[0] for s in statements]
        if any('"error":true' in p for p in parsed):
            assert word in RESERVED_WORDS
            with pytest.raises(tb.InvalidInputError):
                check_table_name(word)
    assert check_table_name("terramesh") == "terramesh"


def test_a_tile_needs_a_pixel(write_members, tmp_path):
    with pytest.raises(tb.InvalidInputError, match="n_tiles is 64"):
        load(write_members(2), tb.create(tmp_path / "bank"), options=IngestOptions(n_workers=1, n_tiles=64))


def test_the_licence_is_kept_with_the_part_and_shown(write_members, tmp_path, capsys):
    bank = tb.create(tmp_path / "bank")
    load(write_members(2), bank, options=IngestOptions(n_workers=1, licence="CC-BY-4.0, our own"))
    other = write_members(2, odd={i: {"sample": f"282D_485L_9_{i}"} for i in range(2)}, name="other")
    load(as_val(other), bank)
    ours, theirs = sorted(bank.table("t").provenance(), key=lambda p: p.source, reverse=True)
    assert ours.licence == "CC-BY-4.0, our own"
    assert theirs.licence.startswith("CC-BY-SA-4.0")
    assert (ours.source, theirs.source) == (str(tmp_path / "source"), str(tmp_path / "other"))
    assert main(["show", str(tmp_path / "bank"), "t"]) == 0
    said = capsys.readouterr().out
    assert "licence: CC-BY-4.0, our own\n" in said
    assert f"licence: {theirs.licence}\n" in said
    assert "attribution: TerraMesh" in said
    assert main(["show", str(tmp_path / "bank"), "t", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {p["licence"] for p in shown["provenance"]} == {ours.licence, theirs.licence}
