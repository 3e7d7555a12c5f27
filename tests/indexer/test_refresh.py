"""Archives that change after their ingest: told, replaced on request, and never silently."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tensorbank as tb
from tensorbank.cli import main
from tensorbank_indexer import IngestOptions, ingest, open_source

REFRESH = IngestOptions(n_workers=1, refresh=True)


def load(root, bank, options=None):
    return ingest(open_source(str(root)), bank, "t", options or IngestOptions(n_workers=1))


def pixels(bank, modality, version=None) -> dict[str, np.ndarray]:
    table = bank.table("t") if version is None else bank.table("t").at(version)
    rows = (bank if version is None else bank.at({"t": version})).sql("SELECT sample_id FROM t").arrow()
    ids = rows["sample_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return {i: table.read(i).get(modality) for i in ids}


@pytest.fixture
def reissued(write_members, tmp_path):
    """A bank of four samples, and its archive whose DEM is another one now: 100 everywhere for two of the samples."""
    bank = tb.create(tmp_path / "bank")
    root = write_members(4)
    load(root, bank)
    hundred = np.full((1, 1, 32, 32), 100, np.int16)
    odd = {i: {"pixels": {"DEM": hundred}} for i in (0, 2)}
    other = write_members(4, odd=odd, name="other")
    shutil.copy(other / "train/DEM/majortom_shard_000001.tar", root / "train/DEM/majortom_shard_000001.tar")
    return bank, root


def test_a_reissued_archive_is_replaced_on_request_only(reissued):
    bank, root = reissued
    before, radar = pixels(bank, "DEM"), pixels(bank, "S1RTC")
    plan = bank.sql("SELECT DEM FROM t").plan()
    told = load(root, bank)
    assert (told.n_present, told.n_changed, told.n_replaced) == (4, 4, 0)
    dry = load(root, bank, IngestOptions(n_workers=1, refresh=True, dry_run=True))
    assert (dry.n_changed, dry.n_replaced, bank.table("t").snapshot().version) == (4, 0, 1)
    report = load(root, bank, REFRESH)
    assert (report.n_found, report.n_added, report.n_present, report.n_replaced) == (4, 0, 0, 4)
    after = pixels(bank, "DEM")
    assert after.keys() == before.keys()
    changed = [i for i in after if (after[i] == 100).all()]
    assert len(changed) == 2
    for i in after:
        assert i in changed or np.array_equal(after[i], before[i])
        assert np.array_equal(pixels(bank, "S1RTC")[i], radar[i])
    assert all(np.array_equal(v, before[i]) for i, v in pixels(bank, "DEM", version=1).items())
    assert bank.at({"t": 1}).sql("SELECT DEM FROM t").plan().fingerprint == plan.fingerprint
    entry = bank.table("t").history()[0]
    assert (entry.operation, entry.details["n_replaced"], entry.details["n_archives"]) == ("refresh", 4, 1)
    assert entry.details["source"] == open_source(str(root)).root
    again = load(root, bank, REFRESH)
    assert (again.n_present, again.n_changed, again.n_replaced, again.findings) == (4, 0, 0, [])
    assert bank.table("t").snapshot().version == 2
    tiles = bank.sql("SELECT count(*) AS n, count(DISTINCT sample_id) AS m FROM t.tiles").arrow().to_pylist()
    assert tiles == [{"n": 64, "m": 4}]


def test_the_command_says_what_changed_and_how_to_replace_it(reissued, capsys):
    bank, root = reissued
    arguments = ["ingest", str(root), bank.url, "--table", "t", "--workers", "1"]
    assert main([*arguments, "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["n_changed"] == 4
    assert "changed-source: train/DEM/majortom_shard_000001.tar" in said.err
    assert "the archives of 4 samples have changed" in said.err
    assert main([*arguments, "--refresh"]) == 0
    assert "4 were replaced" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "changed" not in capsys.readouterr().err


def test_an_archive_that_was_completed_is_told_and_taken(write_members, tmp_path):
    bank = tb.create(tmp_path / "bank")
    root = write_members(4)
    load(root, bank)
    write_members(4, ("S1RTC", "DEM", "LULC"), name="more")
    shutil.copytree(tmp_path / "more/train/LULC", root / "train/LULC")
    told = load(root, bank)
    assert [(f.kind, f.modality) for f in told.findings] == [("new-source-file", "LULC")]
    assert (told.n_present, told.n_changed) == (4, 4)
    assert "LULC" not in bank.table("t").schema
    report = load(root, bank, REFRESH)
    assert report.n_replaced == 4
    assert "LULC" in bank.table("t").schema
    assert all(v is not None for v in pixels(bank, "LULC").values())


def test_two_that_refresh_at_once_do_it_once(reissued):
    bank, root = reissued
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(load, root, tb.open(bank.url), REFRESH) for _ in range(2)]
        reports = [job.result(120) for job in jobs]
    assert sorted(r.n_replaced for r in reports) in ([0, 4], [4, 4])
    assert len(pixels(bank, "DEM")) == 4
    assert [h.operation for h in bank.table("t").history()].count("refresh") == 1


def test_a_sample_that_is_damaged_now_keeps_what_the_table_has(reissued):
    bank, root = reissued
    before = pixels(bank, "DEM")
    for path in root.rglob("*.tar"):
        data = bytearray(path.read_bytes())
        start = data.find(b"zarr") + 2000
        data[start : start + 3000] = bytes(3000)
        path.write_bytes(data)
    load(root, bank, REFRESH)
    after = pixels(bank, "DEM")
    assert after.keys() == before.keys()
    assert all(v is not None or before[i] is None for i, v in after.items())
