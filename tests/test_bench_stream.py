"""Each section of the benchmark of streaming runs, on a bank and on amounts too small to tell anything."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more workers than cores
]


@pytest.fixture(scope="module")
def modules():
    """Import a module of the benchmark."""
    return importlib.import_module


@pytest.fixture(scope="module")
def setup(modules, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    made = modules("stream.setup")
    bank, table = made.make_bank(folder, n_samples=12, n_workers=1)
    return made.Setup(bank, table, folder, scale=0.0004, repeats=1, batch_size=2)


@pytest.fixture
def at_home(modules, monkeypatch):
    """Run in this process, which has torch already, what a fresh process should run."""
    for section in ("start", "memory"):
        monkeypatch.setattr(modules(f"stream.{section}"), "fresh", lambda work, *args: work(*args))


def judged(found):
    return {f.what: f.met for f in found if f.target is not None}


@pytest.mark.parametrize("section", ["wire", "cpu", "shuffle", "start", "memory"])
def test_a_section_of_times_and_memory_gives_figures(modules, setup, section, at_home):
    found = list(modules(f"stream.{section}").measure(setup))
    assert {f.section for f in found} == {section}
    for figure in found:
        assert np.isfinite(figure.value)
        assert figure.ratio is None or np.isfinite(figure.ratio)
        json.dumps(figure.to_dict())
    assert judged(found)


@pytest.mark.parametrize("section", ["projection", "cache", "elastic"])
def test_a_section_of_counts_meets_its_targets_at_any_size(modules, setup, section, monkeypatch):
    elastic = modules("stream.elastic")
    monkeypatch.setattr(elastic, "RANKS", (1, 3))
    monkeypatch.setattr(elastic, "WORKERS", (0, 2))
    monkeypatch.setattr(elastic, "READ", ((1, 0), (3, 0)))
    found = list(modules(f"stream.{section}").measure(setup))
    assert found
    assert all(judged(found).values()), found


def test_faults_leave_nothing_missing_and_nothing_wrong(modules, setup):
    found = {f.what: f for f in modules("stream.faults").measure(setup)}
    assert found["34 % of bodies cut, samples missing or wrong"].value == 0
    assert found["bit flips, samples handed out wrong"].value == 0
    assert found["bit flips caught"].met
    assert found["bit flips caught"].value > 0


def test_fresh_is_another_process(modules):
    assert modules("stream.fresh").fresh(os.getpid) != os.getpid()


def test_tuning_tries_its_grid(modules, setup, monkeypatch):
    tuning = modules("stream.tuning")
    monkeypatch.setattr(tuning, "NETWORKS", ((1, 400),))
    monkeypatch.setattr(tuning, "N_THREADS", (8,))
    monkeypatch.setattr(tuning, "N_CHOOSING", 1)
    (figure,) = tuning.measure(setup)
    assert figure.detail["best"] in figure.detail["tried_s"]
    assert len(figure.detail["tried_s"]) == 5


def test_a_wrong_and_a_missing_sample_are_counted(modules, setup):
    contents = modules("stream.contents")
    plan = setup.plan("NDVI, DEM")
    with plan.dataloader(batch_size=5, seed=1) as loader:
        batches = list(loader)
    truth = contents.truth_of(plan)
    assert contents.n_wrong(truth, plan, batches) == 0
    assert contents.n_wrong(truth, plan, batches[1:]) == 5
    assert contents.n_wrong(truth, plan, [*batches, batches[0]]) == 5
    batches[0]["DEM"][2, 0, 7, 7] += 1
    assert contents.n_wrong(truth, plan, batches) == 2  # one that is missing, one that nobody asked for


@pytest.mark.parametrize(("n", "size"), [(1000, 32), (250, 16), (90, 8)])
def test_the_groups_of_a_uniform_order_are_as_many_as_expected(modules, n, size):
    shuffle = modules("stream.shuffle")
    rng = np.random.default_rng(n)
    drawn = [rng.permutation(n)[:size] for _ in range(4000)]
    assert shuffle.distinct_groups(drawn) == pytest.approx(shuffle.uniform_groups(n, size), rel=0.01)


def test_verdicts_and_bars(modules, tmp_path):
    figure = modules("stream.figure")
    picture = modules("stream_picture")
    good = figure.Figure("wire", "a", 96.0, "MB/s", 100.0, 0.96, 0.95)
    bad = figure.Figure("start", "b", 400.0, "ms", 100.0, 4.0, 300.0, "<=", "value")
    none = figure.Figure("faults", "c", 0.0, "samples", target=0.0, bound="<=", judged="value")
    wrong = figure.Figure("faults", "c", 2.0, "samples", target=0.0, bound="<=", judged="value")
    told = figure.Figure("cpu", "d", 1.0, "s", 1.0, 1.0)
    assert [f.met for f in (good, bad, none, wrong, told)] == [True, False, True, False, None]
    assert [picture.attained(f) for f in (good, bad, none, wrong)] == [
        pytest.approx(0.96 / 0.95),
        0.75,
        1.0,
        0.0,
    ]
    picture.draw([good, bad, none, wrong, told], tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 10_000
    assert figure.paired([1.0, 2.0, 9.0], [2.0, 2.0, 3.0]) == 1.0


def test_the_script_prints_and_writes(setup, tmp_path):
    command = [sys.executable, str(BENCHMARKS / "bench_stream.py"), "--bank", str(setup.folder)]
    amounts = ["--quick", "--scale", "0.001", "--repeats", "1"]
    done = subprocess.run(
        [*command, "--only", "projection,device", *amounts, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "neighbouring bands" in done.stdout
    written = json.loads((tmp_path / "stream.json").read_text())
    assert {f["section"] for f in written["figures"]} >= {"projection"}
    assert [m["reason"] for m in written["missing"]] == ["no GPU"]
    assert written["machine"]["cores"] > 0
    assert (tmp_path / "stream.png").exists()
    again = [*command, "--only", "device", *amounts, "--out", str(tmp_path)]
    assert subprocess.run(again, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}).returncode == 0
    kept = json.loads((tmp_path / "stream.json").read_text())
    assert kept["figures"] == written["figures"], "of sections that were not run again"
    assert len(kept["missing"]) == 1
    refused = subprocess.run([*command, "--only", "wires"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "no such section: wires" in refused.stderr
