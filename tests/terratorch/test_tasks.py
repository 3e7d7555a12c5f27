"""TerraTorch's own tasks, models and writers on a data module of ours."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

import tensorbank as tb
from tensorbank_floods.demo import CONSTANTS
from tensorbank_floods.flood_archive import MASK, MISSING, PIXEL_M
from tensorbank_lightning import TensorBankDataModule

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

SIDE = 224
SELECT = f"SELECT sample_id, S2L2A, S1RTC, {MASK} FROM floods WHERE subset"


def data_of(bank: tb.Bank, **more: Any) -> TensorBankDataModule:
    """Return the splits: one flood is trained on, the other one is held out; of four dates the last one is read."""
    return TensorBankDataModule(
        bank,
        train=f"{SELECT} = 'event00'",
        val=f"{SELECT} = 'event01' ORDER BY sample_id",
        predict="SELECT sample_id, epsg, bounds, S2L2A, S1RTC FROM floods WHERE subset = 'event01' ORDER BY sample_id",
        mask=MASK,
        normalize={name: CONSTANTS[name] for name in ("S2L2A", "S1RTC")},
        nodata={"S2L2A": MISSING},
        times=[3],
        batch_size=2,
        **more,
    )


def task_of(**more: Any) -> Any:
    from terratorch.tasks import SemanticSegmentationTask

    model = {
        "backbone": "terramind_v1_tiny",
        "backbone_pretrained": False,
        "backbone_modalities": ["S2L2A", "S1RTC"],
        "necks": [
            {"name": "SelectIndices", "indices": [2, 5, 8, 11]},
            {"name": "ReshapeTokensToImage", "remove_cls_token": False},
            {"name": "LearnedInterpolateToPyramidal"},
        ],
        "decoder": "UNetDecoder",
        "decoder_channels": [64, 32, 16, 8],
        "num_classes": 3,
    }
    return SemanticSegmentationTask(
        model_factory="EncoderDecoderFactory",
        model_args={**model, **more},
        loss="ce",
        ignore_index=-1,
        lr=1e-3,
    )


def trainer_of(folder: Path, **more: Any) -> Any:
    import lightning
    from lightning.pytorch.loggers import CSVLogger

    given = {"max_epochs": 2, "logger": CSVLogger(folder, "log", "0"), "log_every_n_steps": 1, **more}
    return lightning.Trainer(accelerator="cpu", devices=1, enable_progress_bar=False, **given)


def logged(folder: Path, name: str) -> list[float]:
    with (folder / "log" / "0" / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_a_task_trains_and_validates(bank, folder, caplog):
    trainer_of(folder).fit(task_of(), datamodule=data_of(bank))
    losses, measures = logged(folder, "val/loss"), logged(folder, "val/mIoU")
    assert len(losses) == len(measures) == 2
    assert all(map(math.isfinite, (*losses, *measures)))
    assert "Unknown input modality" not in caplog.text


def test_a_validation_is_drawn(bank, folder, monkeypatch):
    from lightning.pytorch.loggers import TensorBoardLogger
    from torch.utils.tensorboard import SummaryWriter

    drawn = {}
    monkeypatch.setattr(
        SummaryWriter, "add_figure", lambda _, name, figure, **__: drawn.setdefault(name, figure)
    )
    trainer_of(folder, max_epochs=1, logger=TensorBoardLogger(folder)).fit(
        task_of(), datamodule=data_of(bank)
    )
    assert sorted(drawn) == ["image/event01_0000", "image/event01_0002"], "the first sample of each batch"
    for figure in drawn.values():
        assert [axis.get_title() for axis in figure.axes] == ["S2L2A", "S1RTC", "truth", "prediction"]


def test_low_rank_adapters_are_all_that_is_trained_of_the_backbone(bank, folder):
    adapters = {
        "method": "LORA",
        "replace_qkv": "qkv",
        "peft_config_kwargs": {"target_modules": ["qkv.q_linear", "qkv.v_linear"], "r": 4},
    }
    task = task_of(peft_config=adapters)
    before = {name: p.detach().clone() for name, p in task.model.encoder.named_parameters()}
    trainer_of(folder, max_epochs=1).fit(task, datamodule=data_of(bank))
    changed = {n for n, p in task.model.encoder.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert {name for name in changed if "lora_" not in name} == set()


def test_predictions_are_written_where_their_samples_lie(bank, folder):
    from terratorch.cli_tools import CustomWriter

    task, out = task_of(), folder / "predictions"
    trainer = trainer_of(folder, logger=False, callbacks=[CustomWriter(str(out), write_interval="batch")])
    trainer.out_dtype = "int16"
    found = trainer.predict(task, datamodule=data_of(bank))
    classes = torch.cat([prediction for (prediction, _), _ in found])
    files = sorted(out.glob("*.tif"))
    assert [file.name for file in files] == [f"event01_{n:04d}_pred.tif" for n in range(4)]
    for number, file in enumerate(files[:4]):
        with rasterio.open(file) as written:
            assert written.crs.to_epsg() == 32632
            # The centre of the first pixel, as the archive has it.
            assert written.xy(0, 0) == (520_000.0, 4_900_000.0 + 2_000.0 * number)
            assert written.xy(1, 1) == (520_000.0 + PIXEL_M, 4_900_000.0 + 2_000.0 * number - PIXEL_M)
            np.testing.assert_array_equal(written.read(1), classes[number].numpy())


def test_a_configuration_of_terratorch_names_the_data_module(bank, folder):
    from terratorch.cli_tools import build_lightning_cli

    config = folder / "floods.yaml"
    config.write_text(CONFIG.format(bank=bank.url, select=SELECT, mask=MASK))
    build_lightning_cli(["fit", "--config", str(config)])
    assert list(folder.rglob("*.ckpt"))


CONFIG = """
seed_everything: 0
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 1
  logger: false
  enable_progress_bar: false
  default_root_dir: out
data:
  class_path: tensorbank_lightning.TensorBankDataModule
  init_args:
    bank: {bank}
    train: {select} = 'event00'
    val: {select} = 'event01' ORDER BY sample_id
    mask: {mask}
    times: [3]
    batch_size: 2
    normalize:
      S1RTC: {{mean: [-12.0, -18.5], std: [5.0, 5.0]}}
    nodata: {{S2L2A: -9999}}
model:
  class_path: terratorch.tasks.SemanticSegmentationTask
  init_args:
    model_factory: EncoderDecoderFactory
    loss: ce
    ignore_index: -1
    model_args:
      backbone: terramind_v1_tiny
      backbone_pretrained: false
      backbone_modalities: [S2L2A, S1RTC]
      necks:
        - {{name: SelectIndices, indices: [2, 5, 8, 11]}}
        - {{name: ReshapeTokensToImage, remove_cls_token: false}}
        - {{name: LearnedInterpolateToPyramidal}}
      decoder: UNetDecoder
      decoder_channels: [64, 32, 16, 8]
      num_classes: 3
optimizer:
  class_path: torch.optim.AdamW
  init_args: {{lr: 1.e-3}}
"""
