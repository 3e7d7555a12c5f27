"""The benchmark of pretraining runs, on amounts too small to tell anything, and its arithmetic is right."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def bench():
    return importlib.import_module("bench_pretrain")


def test_busy_is_what_is_not_waited(bench):
    steps = bench.Steps(n=4, total_s=10.0, wait_s=2.0)
    assert steps.busy == pytest.approx(0.8)
    assert steps.step_s == pytest.approx(2.0)


def test_every_section_gives_figures(bench, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(bench, "DEMANDS", (0.5,))
    amounts = bench.Amounts(n_samples=8, batch_size=4, n_steps=2, n_rounds=1, n_epochs=1)
    folder, table = bench.make_bank(tmp_path, n_samples=amounts.n_samples, n_workers=1)
    found = list(bench.measured(folder.resolve(), table, amounts, bench.SECTIONS))
    by_section = {name: [f for f in found if f.section == name] for name in bench.SECTIONS}
    (busy,) = by_section["busy"]
    assert 0 < busy.value <= 1
    without, with_budget, ratio = by_section["budget"]
    assert with_budget.value < without.value, "some samples use nothing of some modality"
    assert ratio.value == pytest.approx(with_budget.value / without.value)
    assert without.met, "what is sent is what is needed"
    assert with_budget.met
    (gpu,) = by_section["gpu"]
    if not torch.cuda.is_available():
        assert gpu.reason == "no GPU"
