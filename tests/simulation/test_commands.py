"""``tensorbank simulate`` and ``tensorbank calibrate``: text, JSON, pictures, and words that are refused by name."""

from __future__ import annotations

import json

import pytest

import tensorbank as tb
from support.streamed_bank import make_bank
from tensorbank.cli.app import main
from tensorbank_simulation import DEFAULT_CALIBRATION, Calibration, commands, measurement

MADE_UP = ["simulate", "--samples", "20000", "--sample-bytes", "1000000", "--batch-size", "20"]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank") / "bank"
    make_bank(tb.create(str(folder)), "made", 40)
    return str(folder)


def test_an_epoch_as_text_and_as_json(capsys):
    given = [*MADE_UP, "--samples-per-s-per-gpu", "200", "--network-gbit", "10", "--rtt", "p50=20,p99=100"]
    assert main(given) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].startswith("an epoch of 1,000 steps takes 100."), text
    assert "what binds: step" in text
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_steps"] == 1000
    assert found["epoch_s"] == pytest.approx(20_000 / 200, rel=0.01)
    assert main([*given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found, "the same words, the same forecast"


def test_an_epoch_of_a_statement_by_a_calibration(bank, capsys, tmp_path):
    file = tmp_path / "machine.json"
    file.write_text(DEFAULT_CALIBRATION.to_json())
    words = [
        "simulate",
        bank,
        "SELECT S2 FROM made",
        "--batch-size",
        "8",
        "--gpus-per-node",
        "2",
        "--calibration",
        str(file),
    ]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_steps"], found["n_simulated_steps"]) == (3, 3)
    plan = tb.open(bank).sql("SELECT S2 FROM made").plan()
    assert found["egress_bytes"] == pytest.approx(plan.read_bytes, rel=0.05)


def test_a_picture_of_scaling(tmp_path, capsys):
    file = tmp_path / "scaling.png"
    assert main([*MADE_UP, "--samples-per-s-per-gpu", "200", "--nodes", "2", "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert 5_000 < file.stat().st_size < 100_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["simulate"], "--samples and --sample-bytes"),
        (["simulate", "/tmp", "SELECT 1", "--samples", "5"], "--samples and --sample-bytes"),
        ([*MADE_UP, "--rtt", "fast"], "rtt is 'fast'"),
        ([*MADE_UP, "--nodes", "0"], "--nodes"),
        ([*MADE_UP, "--throttle", "-1"], "requests_per_s is -1.0"),
        ([*MADE_UP, "--codec", "gzip"], "gzip"),
        ([*MADE_UP, "--samples-per-s-per-gpu", "0"], "samples-per-s-per-gpu"),
        ([*MADE_UP, "--calibration", "/no/such/file"], "/no/such/file"),
        ([*MADE_UP, "--no-shuffle"], "made up"),
        (
            ["simulate", "/tmp", "SELECT 1", "--ratio", "2", "--codec", "raw"],
            "--ratio, --codec cannot be chosen",
        ),
        (["simulate", "/tmp", "SELECT 1", "--reads-per-sample", "1"], "--reads-per-sample cannot be chosen"),
        (["simulate", "/tmp", "SELECT 1", "--blocks-per-sample", "9"], "--blocks-per-sample cannot"),
        (["calibrate", "/tmp/no-such-bank"], "no-such-bank"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(words, said, capsys):
    assert main(words) in (1, 2)
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_a_calibration_is_printed_and_written(bank, capsys, tmp_path, monkeypatch):
    """With few rounds on few samples: it is the whole way, if not the best of figures."""
    monkeypatch.setattr(measurement, "N_ROUNDS", 1)
    monkeypatch.setattr(measurement, "N_SMALL", 128)
    monkeypatch.setattr(measurement, "N_LARGE", 4)
    file = tmp_path / "machine.json"
    assert main(["calibrate", bank, "--seconds", "0.1", "-o", str(file)]) == 0
    text = capsys.readouterr().out
    found = Calibration.load(file)
    assert found.is_local
    assert "a disk of this machine" in text
    assert {"balanced", "small", "hot", "raw", "S1", "S2"} == set(found.decode_s_per_gb)
    assert all(s > 0 for s in found.decode_s_per_gb.values())
    assert main([*MADE_UP, "--calibration", str(file), "--rtt", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["core_s"] > 0


@pytest.mark.parametrize(("seconds", "said"), [(5, "5.0 s"), (600, "10.0 min"), (86_400, "24.0 h")])
def test_durations_are_said_in_the_unit_that_suits_them(seconds, said):
    assert commands._duration(seconds) == said
