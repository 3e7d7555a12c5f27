"""`tensorbank verify` finds the damage that was done, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tensorbank as tb
from tensorbank.cli import main
from tensorbank.verify import verify
from tensorbank_indexer import IngestOptions, ingest, open_source


@pytest.fixture(scope="module")
def sound(make_archives, tmp_path_factory) -> Path:
    source, _ = make_archives("terramesh", "--samples", "6", "--per-tar", "6")
    folder = tmp_path_factory.mktemp("bank")
    ingest(open_source(str(source)), tb.create(folder), "t", IngestOptions(n_workers=1, profile="hot"))
    return folder


@pytest.fixture
def bank(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "bank"))


def test_a_sound_table_is_sound(bank, capsys):
    report = verify(tb.open(bank), "t")
    assert report.sound
    assert report.n_samples == 6
    assert report.n_blocks == 6 * (12 + 13 + 3 + 2 + 1 + 1 + 1 + 1)
    assert main(["verify", str(bank)]) == 0
    assert "all sound" in capsys.readouterr().out


def test_one_flipped_bit_is_one_damaged_tensor(bank, capsys):
    opened = tb.open(bank)
    row = opened.sql(
        "SELECT sample_id, S2L2A.ref AS r FROM t ORDER BY S2L2A.ref.row LIMIT 1 OFFSET 3"
    ).arrow()
    ref = row["r"][0].as_py()
    shard = bank / ref["key"]
    data = bytearray(shard.read_bytes())
    data[ref["offset"] + ref["length"] // 2] ^= 16
    shard.write_bytes(data)
    (damage,) = verify(opened, "t").damage
    assert (damage.sample_id, damage.modality, damage.key) == (
        row["sample_id"][0].as_py(),
        "S2L2A",
        ref["key"],
    )
    assert main(["verify", str(bank), "t", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [d["sample_id"] for d in printed["damage"]] == [damage.sample_id]


def test_a_lost_shard_damages_all_its_tensors(bank):
    opened = tb.open(bank)
    key = opened.sql("SELECT DEM.ref.key AS k FROM t LIMIT 1").arrow()["k"][0].as_py()
    (bank / key).unlink()
    report = verify(opened, "t")
    assert {d.modality for d in report.damage} == {"DEM"}
    assert len(report.damage) == 6
