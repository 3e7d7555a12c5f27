"""The fine-tuning of floods: what the archive holds, that events are kept apart, and that the measure rises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tensorbank as tb
from tensorbank_floods.demo import HELD_OUT, data_of, draw, fill, fine_tune
from tensorbank_floods.flood_archive import MASK, MISSING, FloodArchive
from tensorbank_floods.segmenter import iou_of_classes, mean_iou
from tensorbank_indexer import open_source

# Lightning and torch warn of each other.
pytestmark = [pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> tb.Bank:
    """Four samples of 32 x 32 pixels of each of twelve events."""
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    fill(bank, FloodArchive(n_samples=4, side=32))
    return bank


def test_samples_are_as_those_of_impactmesh(bank):
    (sample,) = [bank.read("event03_0002", table="floods")]
    shapes = {name: (pixels.shape, str(pixels.dtype)) for name, pixels in sample.items()}
    assert shapes == {
        "S2L2A": ((4, 12, 32, 32), "int16"),
        "S1RTC": ((4, 2, 32, 32), "float16"),
        "DEM": ((1, 1, 32, 32), "int16"),
        MASK: ((1, 1, 32, 32), "int8"),
    }


def test_unseen_pixels_have_no_class(tmp_path):
    FloodArchive(n_events=1, n_samples=24, side=32).write(tmp_path)
    source = open_source(str(tmp_path))
    (archive,), findings = source.archives()
    assert (source.format, findings) == ("impactmesh", [])
    samples = [raw.modalities for raw in source.read(source.scan(archive).samples)]
    classes = np.stack([m[MASK].pixels[0, 0] for m in samples])
    missing = np.stack([(m["S2L2A"].pixels == MISSING).all((0, 1)) for m in samples])
    assert np.unique(classes).tolist() == [-1, 0, 1, 2]
    np.testing.assert_array_equal(classes == -1, missing)


def test_events_are_trained_on_or_measured_and_never_both(bank):
    data = data_of(bank)
    seen = {}
    for split, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        seen[split] = {name.split("_")[0] for batch in loader for name in batch["filename"]["DEM"]}
    data.teardown("fit")
    assert sorted(seen["val"]) == sorted(HELD_OUT)
    assert len(seen["train"]) == 9
    assert seen["train"] & seen["val"] == set()


@pytest.mark.slow
def test_the_measure_rises_on_events_that_were_never_seen(bank, tmp_path: Path):
    told: list[tuple[str, int, int]] = []
    tuned = fine_tune(bank, n_epochs=5, width=8, progress=lambda *words: told.append(words))
    assert (tuned.n_train, tuned.n_val) == (36, 12)
    assert told == [("train", n, 5) for n in range(1, 6)]
    first, *_, last = (row["miou"] for row in tuned.history)
    assert last > max(first, 0.5)
    draw(bank, tuned, tmp_path / "floods.png")
    assert (tmp_path / "floods.png").stat().st_size > 50_000


def test_intersections_over_unions_by_hand():
    confusion = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    assert iou_of_classes(confusion) == pytest.approx({"0": 6 / 9, "1": 3 / 6})
    assert mean_iou(confusion) == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert mean_iou(torch.zeros(3, 3, dtype=torch.int64)) == 0.0
