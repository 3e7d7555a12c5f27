"""TerraTorch on the processor, and a bank of made-up floods: ``make test-terratorch`` makes it and runs the tests."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import tensorbank as tb

# torchvision's wheel is built for CUDA, and finds none of its operators beside torch for the processor. Its own registration of
# their meaning, on import, asks that they are declared; nothing here calls them.
OPERATORS = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import terratorch.tasks  # noqa: F401 - a minute, once, and of no test's own time


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> tb.Bank:
    """Eight samples of two floods, 224 x 224 pixels, four dates."""
    from tensorbank_floods.demo import fill
    from tensorbank_floods.flood_archive import FloodArchive

    bank = tb.create(tmp_path_factory.mktemp("bank"))
    fill(bank, FloodArchive(n_events=2, n_samples=4, side=224))
    return bank


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
