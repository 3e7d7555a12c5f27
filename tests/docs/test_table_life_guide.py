"""The guide "A table's life" runs as printed, and says what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tensorbank as tb
from support.guides import read_blocks, run_guide

GUIDE = Path(__file__).parents[2] / "tensorbank" / "TABLE_LIFE.md"


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_the_guide_runs_as_printed(tmp_path):
    outputs = run_guide(GUIDE, tmp_path)
    printed = "".join(outputs.values())
    assert len(outputs) == sum(block.is_run for block in read_blocks(GUIDE)) > 10
    assert "12 samples added" in printed
    assert "12 have the pixels that they had" in printed
    operations = [entry.operation for entry in tb.open(tmp_path / "bank").table("terramesh").history()]
    assert operations[::-1] == [
        "create",
        "ingest",
        "refresh",
        "drop-modality",
        "add-modality",
        "add-modality",
        "add-columns",
        "update-columns",
        "delete",
        "restore",
        "sort",
        "sort",
    ]
    assert tb.open(tmp_path / "bank").table("terramesh").snapshot().n_samples == 12
    assert re.search(r"plan [0-9a-f]{32} of 12 samples: up to batch 2 of 6 in epoch 0", printed)
    assert "terramesh at version 1 stays: tag paper-v1" in printed
    assert "all sound" in printed
    assert "of other programs" not in printed
    assert tb.open(tmp_path / "bank").tables() == ["clear_skies", "terramesh"]
