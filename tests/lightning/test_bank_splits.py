"""The data module on a bank: splits that are SQL, places of predictions, and a configuration of LightningCLI."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio

import tensorbank as tb
from tensorbank import InvalidInputError
from tensorbank_floods.demo import fill
from tensorbank_floods.flood_archive import MASK, N_DATES, PIXEL_M, FloodArchive
from tensorbank_floods.segmenter import Segmenter
from tensorbank_lightning import TensorBankDataModule

# Lightning and torch warn of each other.
pytestmark = [pytest.mark.filterwarnings("ignore")]

SIDE = 16
SELECT = f"SELECT sample_id, S2L2A, S1RTC, {MASK} FROM floods WHERE subset"
PLACED = "SELECT sample_id, epsg, bounds, S1RTC FROM floods ORDER BY sample_id"


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> tb.Bank:
    """Three samples of each of two floods."""
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    fill(bank, FloodArchive(n_events=2, n_samples=3, side=SIDE))
    return bank


def test_files_of_predictions_lie_where_their_samples_do(bank):
    data = TensorBankDataModule(bank, predict=PLACED, batch_size=4)
    names, places = [], []
    for batch in data.predict_dataloader():
        assert set(batch["image"]) == {"S1RTC"}
        for name in batch["filename"]["S1RTC"]:
            with rasterio.open(name) as file:
                assert (file.crs.to_epsg(), file.shape, file.nodata) == (32632, (SIDE, SIDE), 255)
                assert not file.read().any()
                names.append(Path(name).name)
                places.append((file.xy(0, 0), file.xy(1, 1)))
    assert names == [f"event{event:02d}_{n:04d}.tif" for event in range(2) for n in range(3)]
    firsts = [
        (500_000.0 + 20_000.0 * event, 4_900_000.0 + 2_000.0 * n) for event in range(2) for n in range(3)
    ]
    assert places == [((x, y), (x + PIXEL_M, y - PIXEL_M)) for x, y in firsts]
    folder = Path(name).parent
    data.teardown("predict")
    assert not folder.exists()


def test_a_sample_without_a_place_is_named(bank):
    unplaced = "SELECT sample_id, NULL::INTEGER AS epsg, bounds, S1RTC FROM floods ORDER BY sample_id"
    data = TensorBankDataModule(bank, predict=unplaced)
    with pytest.raises(
        InvalidInputError, match=r"sample event00_0000 has no georeference.*WHERE epsg IS NOT NULL"
    ):
        next(iter(data.predict_dataloader()))
    data.teardown("predict")


def test_dates_are_chosen_and_the_mask_of_one_date_stays(bank):
    data = TensorBankDataModule(bank, f"{SELECT} = 'event00'", mask=MASK, times=[3], batch_size=3)
    (batch,) = data.train_dataloader()
    data.teardown("fit")
    shapes = {name: tuple(pixels.shape) for name, pixels in batch["image"].items()}
    assert shapes == {"S2L2A": (3, 12, SIDE, SIDE), "S1RTC": (3, 2, SIDE, SIDE)}
    assert tuple(batch["mask"].shape) == (3, SIDE, SIDE)


def test_a_configuration_of_lightnings_command_line_is_enough(bank, tmp_path: Path):
    from lightning.pytorch.cli import LightningCLI

    config = tmp_path / "floods.yaml"
    config.write_text(f"""
trainer: {{max_epochs: 1, accelerator: cpu, devices: 1, logger: false, enable_checkpointing: false, enable_progress_bar: false}}
data:
  class_path: tensorbank_lightning.TensorBankDataModule
  init_args:
    bank: {bank.url}
    train: {SELECT} = 'event00'
    val: {SELECT} = 'event01' ORDER BY sample_id
    mask: {MASK}
    normalize: {{S1RTC: {{mean: [-12, -18.5], std: [5, 5]}}}}
    nodata: {{S2L2A: -9999}}
    batch_size: 2
    drop_last: false
model: {{n_channels: {{S2L2A: 48, S1RTC: 8}}, width: 4}}
""")
    from lightning.pytorch import LightningDataModule

    cli = LightningCLI(
        Segmenter,
        LightningDataModule,
        subclass_mode_data=True,
        save_config_callback=None,
        args=["fit", "--config", str(config)],
    )
    assert isinstance(cli.datamodule, TensorBankDataModule)
    assert cli.trainer.global_step == 2
    assert [row["epoch"] for row in cli.model.history] == [0]


def test_published_constants_normalise_what_is_selected(bank):
    profile = TensorBankDataModule(
        bank, f"{SELECT} = 'event00'", mask=MASK, normalize="terramind-v1", batch_size=3
    )
    plain = TensorBankDataModule(bank, f"{SELECT} = 'event00'", mask=MASK, batch_size=3)
    (normal,), (stored,) = profile.train_dataloader(), plain.train_dataloader()
    for data in (profile, plain):
        data.teardown("fit")
    vv = (stored["image"]["S1RTC"][:, 0] + 10.93) / 4.391  # TerraMind's published mean and deviation
    assert normal["image"]["S1RTC"][:, 0].numpy() == pytest.approx(vv.numpy(), abs=1e-3)


@pytest.mark.parametrize("ask", ["plot", "val_dataset", "test_dataset"])
def test_a_sample_is_drawn_by_what_the_query_says_of_its_bands(bank, ask):
    data = TensorBankDataModule(bank, val=f"{SELECT} = 'event01'", mask=MASK, batch_size=2)
    batch = next(iter(data.val_dataloader()))
    data.teardown("validate")
    image = {name: pixels[0] for name, pixels in batch["image"].items()}
    sample = {"image": image, "mask": batch["mask"][0], "prediction": batch["mask"][0]}
    figure = data.plot(sample, "val") if ask == "plot" else getattr(data, ask).plot(sample)
    titles = [f"{name}, the last of {N_DATES} dates" for name in ("S2L2A", "S1RTC")]
    assert [axis.get_title() for axis in figure.axes] == [*titles, "truth", "prediction"]
    shape = figure.axes[0].images[0].get_array().shape
    assert shape == (SIDE, SIDE, 3), "red, green and blue are found by the names of twelve bands"
    codes = sorted({int(code) for code in batch["mask"][0].unique()} - {-1})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [str(code) for code in codes]
