"""A deep verification reads every block that counts, makes its statistics anew, and goes on where it was interrupted."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

import tensorbank as tb
from tensorbank.cli.app import main
from tensorbank.engines import Workers
from tensorbank.verification import verify

IDS = [f"sample-{i:04d}" for i in range(8) if i != 5]


def flip(folder, sample_id: str, modality: str) -> None:
    """Change one bit of a block of a sample."""
    rows = tb.open(folder).sql(f"SELECT {modality}.ref AS r FROM t WHERE sample_id = '{sample_id}'").arrow()
    ref = rows["r"][0].as_py()
    path = folder / ref["key"]
    data = bytearray(path.read_bytes())
    data[ref["offset"] + ref["length"] - 9] ^= 8
    path.write_bytes(data)


def test_a_sound_bank_is_sound_to_its_blocks(sound_bank):
    steps = []
    report = verify(tb.open(sound_bank), "t", deep=True, n_threads=2, progress=lambda *s: steps.append(s))
    assert report.findings == []
    assert (report.n_samples, report.n_blocks) == (7, 7 * 3)
    assert steps[-1] == (7, 7)


def test_a_flip_in_a_block_is_found_by_a_deep_look_alone(bank_folder, capsys):
    flip(bank_folder, "sample-0002", "S1RTC")
    bank = tb.open(bank_folder)
    assert verify(bank, "t").sound
    (found,) = verify(bank, "t", deep=True).findings
    assert (found.kind, found.modality, found.sample_ids) == ("damaged-block", "S1RTC", ("sample-0002",))
    assert "band vh" in found.reason
    assert main(["verify", str(bank_folder), "--deep", "--json"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["findings"][0]["kind"] == "damaged-block"


def test_a_block_of_a_deleted_sample_does_not_count(bank_folder):
    bank = tb.open(bank_folder)
    older = bank.at({"t": 3}).sql("SELECT DEM.ref AS r FROM t WHERE sample_id = 'sample-0005'").arrow()
    ref = older["r"][0].as_py()
    path = bank_folder / ref["key"]
    data = bytearray(path.read_bytes())
    data[ref["offset"] + 20] ^= 8
    path.write_bytes(data)
    assert verify(bank, "t", deep=True).sound
    assert [f.kind for f in verify(bank.at({"t": 3}), "t", deep=True).findings] == ["damaged-block"]


WRONG = {
    "samples": ("vh", "p50", lambda v: v + 1),
    "samples mean": ("vh", "mean", lambda v: v + 0.5),
    "samples count": ("vh", "count", lambda v: v - 1),
    "tiles": ("vv", "max", lambda v: v - 1),
    "tiles std": ("vv", "std", lambda v: v * 1.01),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_statistics_under_a_right_checksum_are_found(bank_folder, rewrite, name):
    band, statistic, change = WRONG[name]
    level = name.split()[0]

    def edit(rows: pa.Table) -> pa.Table:
        values = rows["S1RTC"].to_pylist()
        values[0][band][statistic] = change(values[0][band][statistic])
        place = rows.schema.get_field_index("S1RTC")
        return rows.set_column(
            place, rows.schema.field(place), pa.array(values, rows.schema.field(place).type)
        )

    rewrite(bank_folder, level, edit)
    found = [f for f in verify(tb.open(bank_folder), "t", deep=True).findings if f.kind == "wrong-statistics"]
    assert [(f.modality, len(f.sample_ids)) for f in found] == [("S1RTC", 1)]
    assert f"S1RTC.{band}.{statistic}" in found[0].reason


def test_some_samples_alone_are_read(bank_folder):
    flip(bank_folder, "sample-0002", "DEM")
    bank = tb.open(bank_folder)
    other = verify(bank, "t", deep=True, where="sample_id <> 'sample-0002'")
    assert (other.findings, other.n_blocks) == ([], 6 * 3)
    assert not verify(bank, "t", deep=True, where="sample_id = 'sample-0002'").sound
    half = verify(bank, "t", deep=True, sample=0.5)
    assert 0 < half.n_blocks < 7 * 3
    assert half.n_blocks == verify(bank, "t", deep=True, sample=0.5).n_blocks
    for wrong in ({"sample": 0.0}, {"sample": 1.5}):
        with pytest.raises(tb.InvalidInputError):
            verify(bank, "t", deep=True, **wrong)
    with pytest.raises(tb.InvalidInputError):
        verify(bank, "t", where="true")


def test_what_was_verified_is_not_read_again(bank_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tensorbank.verification.blocks.block_check.ROWS", 2)
    bank, state = tb.open(bank_folder), tmp_path / "state" / "t.jsonl"
    flip(bank_folder, "sample-0002", "DEM")
    first = verify(bank, "t", deep=True, resume=state, n_threads=1)
    assert ([f.sample_ids for f in first.findings], first.n_known) == ([("sample-0002",)], 0)
    state.write_text(state.read_text()[:-5])  # as a process leaves it that was killed while it wrote
    n_sound = len(state.read_text().split()) - 1
    again = verify(bank, "t", deep=True, resume=state, n_threads=1)
    assert [f.sample_ids for f in again.findings] == [("sample-0002",)]
    assert again.n_known > 0
    assert again.n_known <= 2 * n_sound
    assert again.n_blocks + 3 * again.n_known == first.n_blocks


def test_processes_find_what_threads_find(bank_folder, rewrite, tmp_path, monkeypatch):
    """Several flaws in several units: of a block, of a row of samples, of a roll-up, and a shard that is gone."""
    monkeypatch.setattr("tensorbank.verification.blocks.block_check.ROWS", 2)
    bank = tb.open(bank_folder)
    rows = bank.sql("SELECT DEM.ref AS r FROM t WHERE sample_id = 'sample-0006'").arrow()
    (bank_folder / rows["r"][0].as_py()["key"]).unlink()
    flip(bank_folder, "sample-0000", "S1RTC")
    flip(bank_folder, "sample-0003", "DEM")

    def edit(samples: pa.Table) -> pa.Table:
        place = samples.schema.get_field_index("S1RTC")
        values = samples["S1RTC"].to_pylist()
        for value in values:
            value["vv"]["mean"] += 1.0
        return samples.set_column(
            place, samples.schema.field(place), pa.array(values, samples.schema.field(place).type)
        )

    rewrite(bank_folder, "samples", edit)
    expected = verify(bank, "t", deep=True, n_threads=1)
    assert len(expected.findings) > 6
    state = tmp_path / "t.jsonl"
    found = verify(bank, "t", deep=True, workers=Workers("processes", 2), resume=state)
    assert found.findings == expected.findings
    assert (found.n_blocks, found.n_bytes) == (expected.n_blocks, expected.n_bytes)
    assert state.exists()


def test_what_processes_found_sound_is_not_read_again(sound_bank, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tensorbank.verification.blocks.block_check.ROWS", 2)
    given = ["verify", str(sound_bank), "t", "--deep", "--resume", str(tmp_path / "t.jsonl"), "--json"]
    assert main([*given, "--engine", "processes", "--workers", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["n_blocks"] == 7 * 3
    assert main([*given, "--engine", "processes", "--workers", "2"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["n_blocks"], again["n_known"]) == (0, 7)


def test_workers_are_for_blocks_and_not_beside_threads(sound_bank, capsys):
    bank = tb.open(sound_bank)
    with pytest.raises(tb.InvalidInputError, match="only a deep verification"):
        verify(bank, "t", workers=Workers())
    with pytest.raises(tb.InvalidInputError, match="one of the two"):
        verify(bank, "t", deep=True, n_threads=1, workers=Workers())
    assert main(["verify", str(sound_bank), "t", "--deep", "--workers", "2"]) == 2
    assert "--engine" in capsys.readouterr().err
