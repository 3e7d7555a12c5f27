"""The commands that add, replace and drop a modality."""

from __future__ import annotations

import json

import numpy as np

import tensorbank as tb
from tensorbank.cli import main
from tensorbank_indexer import IngestOptions, ingest, open_source


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_modality_is_added_replaced_and_dropped(write_members, pixels_of, tmp_path, capsys):
    bank = tmp_path / "bank"
    first = write_members(3, ("S1RTC",), name="first")
    ingest(open_source(str(first)), tb.create(bank), "t", IngestOptions(n_workers=1))
    dem = [pixels_of(i, "DEM") + 1 for i in range(2)]
    second = write_members(2, ("DEM",), {i: {"pixels": {"DEM": p}} for i, p in enumerate(dem)}, name="second")
    whole = write_members(3, ("DEM", "S1RTC"), name="whole")
    table = ("--table", "t", "--modality", "DEM", "--workers", "1")

    code, out, _ = call(capsys, "add-modality", second, bank, *table, "--json")
    told = json.loads(out)
    assert (code, told["n_given"], told["n_kept"], told["n_without"], told["changed"]) == (0, 2, 0, 1, True)
    np.testing.assert_array_equal(tb.open(bank).read("282D_485L_0_1")["DEM"], dem[1])

    code, out, _ = call(capsys, "replace-modality", whole, bank, *table, "--report", tmp_path / "report.json")
    assert (code, out.startswith("t: DEM of 3 samples stored; ")) == (0, True)
    assert json.loads((tmp_path / "report.json").read_text())["n_given"] == 3
    np.testing.assert_array_equal(tb.open(bank).read("282D_485L_0_1")["DEM"], pixels_of(1, "DEM"))

    code, out, _ = call(capsys, "replace-modality", whole, bank, *table)
    assert (code, "nothing to change" in out) == (0, True)

    code, out, _ = call(capsys, "drop-modality", bank, "t", "DEM", "--json")
    assert (code, json.loads(out)["changed"]) == (0, True)
    code, out, _ = call(capsys, "drop-modality", bank, "t", "DEM")
    assert (code, "already" in out) == (0, True)
    assert set(tb.open(bank).read("282D_485L_0_1")) == {"S1RTC"}


def test_wrong_words_are_told_in_a_sentence(write_members, tmp_path, capsys):
    bank = tmp_path / "bank"
    source = write_members(1, ("S1RTC", "DEM"), name="first")
    ingest(open_source(str(source)), tb.create(bank), "t", IngestOptions(n_workers=1))
    table = ("--table", "t", "--modality")
    code, _, err = call(capsys, "replace-modality", source, bank, *table, "S1GRD")
    assert code == 2
    assert "no modality 'S1GRD'" in err
    code, _, err = call(capsys, "add-modality", source, bank, *table, "NDVI")
    assert code == 2
    assert "no sample with NDVI" in err
    code, _, err = call(capsys, "drop-modality", bank, "t", "NDVI")
    assert (code, err.count("\n")) == (2, 1), "one sentence"
    code, _, err = call(capsys, "replace-modality", source, bank, *table, "DEM", "--where", "nonsense >")
    assert (code, err.splitlines()[-1].startswith("error: ")) == (2, True)
