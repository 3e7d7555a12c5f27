"""The examples of recipes run on small made-up banks, and do what they are said to do."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import tensorbank as tb
from support.array_source import Made, array_bank
from tensorbank_indexer import IngestOptions, ingest, open_source

EXAMPLES = Path(__file__).parents[2] / "loader" / "examples"
S2 = ("B02", "B03", "B04", "B8A", "B11", "B12")
DAY_S = 86_400
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return ``example("time_series", BANK, TABLE, ...)``, which runs a program and returns what its ``main`` does."""

    def run(name: str, *arguments: object) -> Any:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return names_of(name).main()

    return run


def names_of(name: str) -> SimpleNamespace:
    """Return the names that an example defines."""
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / f"{name}.py")))


def falls(losses: list[float]) -> bool:
    """Return True if the last quarter of some losses is below the first."""
    n = max(len(losses) // 4, 1)
    return float(np.mean(losses[-n:])) < float(np.mean(losses[:n]))


@pytest.fixture(scope="module")
def days_of_series() -> dict[str, list[int]]:
    """The dates of the samples of a series, 5 to 90 days apart, in days since 1970."""
    rng = np.random.default_rng(5)
    return {f"s{number:02d}": (18_300 + np.cumsum(rng.integers(5, 90, 6))).tolist() for number in range(24)}


@pytest.fixture(scope="module")
def series(days_of_series, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of 24 samples of six dates, whose values follow the season."""
    rng = np.random.default_rng(6)
    samples = {}
    for number, (name, dates) in enumerate(days_of_series.items()):
        days = np.array(dates)
        season = 1000 + 800 * np.sin(2 * np.pi * days / 365.25)
        noise = rng.normal(0, 30, (6, len(S2), 32, 32))
        pixels = (season[:, None, None, None] + 100 * np.arange(len(S2))[:, None, None] + noise).astype(
            np.int16
        )
        times = [int(day) * DAY_S for day in days]
        samples[name] = Made({"S2L2A": pixels}, times, lon=5.0 + number, lat=40.0 + number / 2)
    folder = tmp_path_factory.mktemp("series")
    array_bank(folder / "bank", "t", samples, {"S2L2A": S2})
    return folder / "bank"


def test_time_series_are_told_their_days(series, days_of_series, example):
    days_of = names_of("time_series").days_before_last
    plan = tb.open(series).sql("SELECT sample_id, S2L2A, S2_times FROM t").plan(by_date=True)
    n = 0
    with plan.dataloader(batch_size=8, times=3, seed=1) as loader:
        for batch in loader:
            days = days_of(batch)
            assert days.shape == (8, 3)
            assert (days[:, -1] == 0).all()
            # Pixels follow the season, so that they tell the date: an independent look at the alignment.
            for row, name, drawn, told in zip(
                batch["S2L2A"], batch["sample_id"], batch["time_index"].tolist(), days.tolist(), strict=True
            ):
                true = np.array(days_of_series[name])[drawn]
                assert told == (true[-1] - true).tolist()
                expected = 1000 + 800 * np.sin(2 * np.pi * true / 365.25)
                np.testing.assert_allclose(row[:, 0].float().mean((1, 2)), expected, atol=5)
                n += 1
    assert n == 24
    losses = example("time_series", series, "t", "--dates", 4, "--batch-size", 8, "--epochs", 8)
    assert len(losses) == 24
    assert falls(losses)


def test_prithvi_has_true_dates_and_places_or_none(series, days_of_series, example):
    inputs = names_of("prithvi").inputs
    plan = tb.open(series).sql("SELECT sample_id, S2L2A, S2_times, lon, lat FROM t").plan(by_date=True)
    generator = torch.Generator().manual_seed(0)
    with_dates = with_place = 0
    with plan.dataloader(batch_size=24, times=4, seed=1) as loader:
        for _ in range(6):
            (batch,) = loader
            given = inputs(batch, "S2L2A", 32, generator)
            assert given["x"].shape == (24, 6, 4, 32, 32)
            assert (given["x"][:, 2, 3] == batch["S2L2A"][:, 3, 2] / 1e4).all(), "bands before dates"
            for number, (when, where) in enumerate(
                zip(given["temporal_coords"].tolist(), given["location_coords"].tolist(), strict=True)
            ):
                days = [
                    days_of_series[batch["sample_id"][number]][i]
                    for i in batch["time_index"][number].tolist()
                ]
                dates = [date(1970, 1, 1) + timedelta(days=day) for day in days]
                true = [[d.year, (d - date(d.year, 1, 1)).days] for d in dates]
                assert when in ([[0.0, 0.0]] * 4, true)
                assert where in (
                    [0.0, 0.0],
                    pytest.approx([float(batch["lat"][number]), float(batch["lon"][number])]),
                )
                with_dates += when == true
                with_place += where != [0.0, 0.0]
    assert 70 < with_dates < 130, "70 % of 144"
    assert 70 < with_place < 130
    assert falls(example("prithvi", series, "t", "--size", 32, "--batch-size", 8, "--epochs", 6))


def test_images_find_their_texts(series, example, tmp_path):
    """Even samples are bright and odd ones are dark; a text of a pair says which."""
    rng = np.random.default_rng(1)
    words = {0: "dark forest lake", 1: "bright desert sand", 2: "blue sea", 3: "red roof town"}
    samples, rows = {}, []
    for number in range(32):
        base = np.zeros((1, len(S2), 32, 32)) + 300
        base[0, number % 4] += 2000
        name = f"s{number:02d}"
        samples[name] = Made({"S2L2A": (base + rng.normal(0, 20, base.shape)).astype(np.int16)})
        rows += [(name, f"a {words[number % 4]} of number {k}", "caption") for k in range(2)]
        rows.append((name, "is there water?", "question"))
    array_bank(tmp_path / "bank", "t", samples, {"S2L2A": S2})
    columns = dict(zip(("sample_id", "text", "task"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "texts.parquet")
    losses = example("image_text", tmp_path / "bank", "t", tmp_path / "texts.parquet", "--epochs", 12)
    assert len(losses) == 24
    assert losses[0] > 2.3, "at first a text of 16 is found by chance"
    assert losses[-1] < 1.9, "of four kinds, four of each in a batch: log 4 at best"


def test_texts_are_of_one_task_and_drawn_anew(series):
    sql = names_of("image_text").SQL.format(table="t")
    bank = tb.open(series)
    ids = [f"s{n:02d}" for n in range(6)]
    texts = pa.table(
        {
            "sample_id": ids * 5,
            "text": [f"{name} {k}" for k in range(5) for name in ids],
            "task": ["caption"] * 24 + ["question"] * 6,
        }
    )
    bank.register("texts", texts)
    drawn = [bank.sql(sql, task="caption", seed=seed).arrow() for seed in range(8)]
    for rows in drawn:
        assert sorted(rows["sample_id"].to_pylist()) == ids
        pairs = zip(rows["sample_id"].to_pylist(), rows["text"].to_pylist(), strict=True)
        assert all(text.startswith(name) and not text.endswith("4") for name, text in pairs)
    assert len({frozenset(rows["text"].to_pylist()) for rows in drawn}) == 8, "of 4 ** 6"
    again = bank.sql(sql, task="caption", seed=0).arrow()
    assert sorted(again["text"].to_pylist()) == sorted(drawn[0]["text"].to_pylist())


@pytest.fixture(scope="module")
def floods(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Made]]:
    """A bank of patches of nine floods: a sample for each phase, the flood is dark afterwards only; archives have no order."""
    rng = np.random.default_rng(3)
    samples: dict[str, Made] = {}
    rows = []
    for event in range(9):
        for patch in range(3):
            river, flood = np.zeros((2, 24, 24), bool)
            river[:, (row := int(rng.integers(2, 16))) : row + 3] = True
            flood[int(rng.integers(0, 12)) :, :12] = True
            mask = np.where(river, 1, np.where(flood, 2, 0)).astype(np.uint8)
            for number, phase in enumerate(("before_2", "before_1", "after")):
                water = river | (flood & (phase == "after"))
                db = np.where(water, -20.0, -8.0)[None, None] + rng.normal(0, 1, (1, 2, 24, 24))
                pixels = {"S1GRD": db.astype(np.float16)}
                if phase == "after":
                    pixels["WATER"] = mask[None, None]
                name = f"{rng.integers(1 << 40):012x}"
                samples[name] = Made(pixels, [(18_000 + 10 * event + 4 * number) * DAY_S], lon=event * 3.0)
                rows.append((name, f"event-{event}", patch, phase))
    folder = tmp_path_factory.mktemp("floods") / "bank"
    bank = array_bank(folder, "t", samples, {"S1GRD": ("vv", "vh"), "WATER": ("class",)})
    columns = map(list, zip(*rows, strict=True))
    bank.table("t").add_columns(
        pa.table(dict(zip(("sample_id", "event", "patch", "phase"), columns, strict=True)))
    )
    return folder, samples


def test_triplets_are_of_one_patch_in_the_order_of_time(floods):
    folder, samples = floods
    bank = tb.open(folder)
    rows = bank.sql("SELECT sample_id, event, patch, phase FROM t").arrow().to_pylist()
    name_of = {(r["event"], r["patch"], r["phase"]): r["sample_id"] for r in rows}
    place_of = {r["sample_id"]: (r["event"], r["patch"]) for r in rows}
    n = 0
    with bank.sql(names_of("flood_triplets").SQL.format(table="t")).dataloader(batch_size=9) as loader:
        for batch in loader:
            for number, name in enumerate(batch["sample_id"]):
                for phase in ("before_2", "before_1", "after"):
                    true = samples[name_of[(*place_of[name], phase)]].pixels["S1GRD"][0]
                    np.testing.assert_array_equal(batch[phase][number].numpy(), true)
                np.testing.assert_array_equal(
                    batch["WATER"][number].numpy(), samples[name].pixels["WATER"][0]
                )
                n += 1
    assert n == 27


def test_floods_of_other_events_are_found(floods, example):
    found = example("flood_triplets", floods[0], "t", "--epochs", 12)
    assert found["n_train"] + found["n_held_out"] == 27
    assert found["n_train"] % 3 == found["n_held_out"] % 3 == 0, "events are held out whole"
    assert found["n_held_out"] > 0
    assert found["right"] > 0.9, "water before is a river, water after alone is the flood"


def test_dead_bands_and_those_of_other_wavelengths_are_not_read(example, tmp_path):
    rng = np.random.default_rng(2)
    nm = np.arange(400, 1000, 30)
    names = [f"B{number:03d}_{w:04d}nm" for number, w in enumerate(nm, 1)]
    samples = {}
    for number in range(16):
        brightness = rng.uniform(500, 3000, (16, 16))
        spectra = brightness * (1 + np.sin(nm / 150)[:, None, None] / 2)
        spectra[5] = spectra[11] = 0
        samples[f"s{number:02d}"] = Made({"ENMAP": spectra[None].astype(np.int16)})
    array_bank(tmp_path / "bank", "t", samples, {"ENMAP": names})
    bands, losses = example("hyperspectral", tmp_path / "bank", "t", "--to-nm", 880, "--epochs", 12)
    assert bands == [
        n for n, w in zip(names, nm, strict=True) if 420 <= w < 880 and n not in (names[5], names[11])
    ]
    assert falls(losses)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Made]]:
    """A bank of 20 cells: 1 to 4 dates of one sensor, 1 to 3 of another, which some lack; all sensors show a cell's level."""
    rng = np.random.default_rng(8)
    samples = {}
    for number in range(20):
        level = 200 + 150 * number
        pixels = {
            "S1GRD": (level + rng.normal(0, 5, (int(rng.integers(1, 5)), 2, 16, 16))).astype(np.float32),
            "DEM": (level / 2 + rng.normal(0, 5, (1, 1, 16, 16))).astype(np.float32),
        }
        if number % 4:
            pixels["S2L1C"] = (level + rng.normal(0, 5, (int(rng.integers(1, 4)), 3, 16, 16))).astype(
                np.int16
            )
        samples[f"c{number:02d}"] = Made(pixels, [(18_000 + k) * DAY_S for k in range(4)])
    folder = tmp_path_factory.mktemp("cells") / "bank"
    bands = {"S1GRD": ("vv", "vh"), "S2L1C": ("B02", "B03", "B04"), "DEM": ("elevation",)}
    array_bank(folder, "t", samples, bands)
    return folder, samples


def test_what_is_padding_does_not_count(cells, example):
    folder, samples = cells
    made = names_of("ragged_cells")
    torch.manual_seed(0)
    model = made.Cells({"S1GRD": 2, "S2L1C": 3, "DEM": 1}).eval()
    plan = tb.open(folder).sql("SELECT sample_id, S1GRD, S2L1C, DEM FROM t").plan()
    with plan.dataloader(batch_size=20) as loader:
        (batch,) = loader
    for sensor in ("S1GRD", "S2L1C", "DEM"):
        known = made.there(batch, sensor)
        lengths = [len(samples[name].pixels.get(sensor, ())) for name in batch["sample_id"]]
        assert known.sum(1).tolist() == lengths
        found = model(batch, sensor)
        for number, name in enumerate(batch["sample_id"]):
            true = samples[name].pixels.get(sensor)
            if true is None:
                assert (found[number] == 0).all()
            else:
                alone = model({sensor: torch.from_numpy(true[None])}, sensor)
                torch.testing.assert_close(found[number], alone[0], rtol=1e-3, atol=1e-3)
    assert len(example("ragged_cells", folder, "t", "--epochs", 4)) > 5


@pytest.fixture(scope="module")
def covers(make_archives, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank in TerraMesh's format."""
    source, _ = make_archives("terramesh", "--samples", "24", "--per-tar", "12", "--subset", "majortom")
    folder = tmp_path_factory.mktemp("covers") / "bank"
    report = ingest(open_source(str(source)), tb.create(folder), "t", IngestOptions(n_workers=1))
    assert report.n_added == 24
    return folder


def test_weights_of_classes_are_those_of_their_pixels(covers):
    made = names_of("annotated")
    bank = tb.open(covers)
    query = bank.sql("SELECT sample_id, LULC FROM t")
    weights = made.class_weights(query, bank.table("t").schema["LULC"])
    with query.dataloader(batch_size=24) as loader:
        (batch,) = loader
    counts = batch["LULC"].flatten().long().bincount(minlength=len(weights)).double()
    inverse = torch.where(counts > 0, counts.sum() / counts.clamp(min=1), torch.zeros(()).double())
    torch.testing.assert_close(weights.double(), inverse / inverse[inverse > 0].mean(), rtol=1e-4, atol=1e-6)
    assert (weights > 0).sum() > 2


def test_labels_turn_with_their_image():
    turned = names_of("annotated").turned
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(2 * 16).reshape(2, 4, 4)
    seen = set()
    for _ in range(40):
        image, also = turned(labels[:, None].float(), labels, generator)
        assert (image[:, 0] == also).all()
        seen.add(tuple(also[0].flatten().tolist()))
    assert len(seen) == 8, "all that a square allows"


def test_a_segmentation_is_scored_on_other_places(covers, example):
    found = example("annotated", covers, "t", "--epochs", 1, "--batch-size", 8)
    assert found["n_train"] + found["n_test"] == 24
    assert 0 < found["mean_iou"] < 1
    score = names_of("annotated").mean_iou
    assert score(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])) == pytest.approx((3 / 4 + 4 / 5) / 2)


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Path, dict[str, bool]]:
    """A bank of 48 samples, bright in one band or dark; 8 of the labels in the column ``label`` are wrong. And which."""
    rng = np.random.default_rng(6)
    samples, rows, wrong = {}, [], {}
    for number in range(48):
        name, bright = f"s{number:02d}", number % 2
        pixels = rng.normal(800, 40, (1, len(S2), 16, 16))
        pixels[0, 3] += 1200 * bright
        samples[name] = Made({"S2L2A": pixels.astype(np.int16)}, lon=number / 2)
        wrong[name] = number % 12 in (0, 7)
        rows.append({"sample_id": name, "label": bright ^ wrong[name], "kind": bright})
    bank = array_bank(tmp_path / "bank", "t", samples, {"S2L2A": S2})
    bank.table("t").add_columns(pa.Table.from_pylist(rows))
    return tmp_path / "bank", wrong


def test_wrong_labels_are_left_out_by_weight(labelled, example):
    folder, wrong = labelled
    left_out = example("noisy_labels", folder, "t", "--wrong", 1 / 6, "--batch-size", 8, "--epochs", 12)
    assert sorted(left_out) == sorted(name for name, is_wrong in wrong.items() if is_wrong)
    assert len(tb.open(folder).table("t").history()) == 3 + 12, "each epoch is a version"


def test_what_is_asked_for_is_least_sure(covers, example, tmp_path):
    folder = tmp_path / "bank"
    shutil.copytree(covers, folder)
    asked = example("few_shot", folder, "t", "--rounds", 2, "--each", 4)
    assert len(asked) == len(set(asked)) == 12
    rows = tb.open(folder).sql("SELECT sample_id, cell_id, uncertainty FROM t").arrow().to_pylist()
    assert all(0 <= row["uncertainty"] <= 1 for row in rows)
    best: dict[str, float] = {}
    for row in rows:
        if row["sample_id"] not in asked[:8]:
            best[row["cell_id"]] = max(row["uncertainty"], best.get(row["cell_id"], 0.0))
    of = {row["sample_id"]: row["uncertainty"] for row in rows}
    assert [of[name] for name in asked[8:]] == sorted(best.values(), reverse=True)[:4]


def test_images_of_a_label_find_each_other(labelled, example):
    folder, _ = labelled
    scores = example("retrieval", folder, "t", "--label", "kind", "--at", 5)
    assert scores["embeddings"] > 0.95
    assert scores["binary codes"] > 0.8
    rows = tb.open(folder).sql("SELECT sample_id, kind, embedding, code FROM t").arrow().to_pylist()
    by_hand = []
    for query in rows:
        one = np.array(query["embedding"])
        angle = [
            -(one @ (v := np.array(r["embedding"]))) / np.linalg.norm(one) / np.linalg.norm(v) for r in rows
        ]
        order = [n for n in sorted(range(len(rows)), key=angle.__getitem__) if rows[n] is not query][:5]
        right = [rows[n]["kind"] == query["kind"] for n in order]
        hits = [sum(right[: k + 1]) / (k + 1) for k in range(5) if right[k]]
        by_hand.append(sum(hits) / len(hits) if hits else 0.0)
    assert scores["embeddings"] == pytest.approx(np.mean(by_hand), abs=1e-3)


def test_the_precision_of_answers():
    precision = names_of("retrieval").average_precision
    assert precision(np.array([True, False, True])) == pytest.approx((1 + 2 / 3) / 2)
    assert precision(np.array([False, False])) == 0
