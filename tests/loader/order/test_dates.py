"""Choices of dates: which are drawn, that just those are read, and that hardware changes nothing."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.augmentation import RandomHorizontalFlip
from torch.utils.data import DataLoader as TorchDataLoader

import tensorbank as tb
from tensorbank import InvalidInputError
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.reading.sample_reader import SampleReader
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_loader import Augment, DataLoader, StreamingDataset, World
from tensorbank_loader.batch.memory import BatchMemory
from tensorbank_loader.batch.plan_form import PlanForm
from tensorbank_loader.order.dates import DateChoice, draw_dates

N_DATES = 4
SQL = (
    "SELECT sample_id, S2L2A.ref.row AS row, S2_times, S1_times, cloud_covers, "
    "bands(S2L2A, ['B08', 'B02']) AS S2L2A, S1GRD, DEM FROM t"
)


@pytest.fixture(scope="module")
def table(make_archives, tmp_path_factory):
    """A bank of 7 locations with 4 dates, and its arrays as zarr-python opens them."""
    source, _ = make_archives("ssl4eo-wds", "--locations", "7", "--per-tar", "7", "--split", "val")
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    report = ingest(open_source(str(source)), bank, "t", IngestOptions(n_workers=1, samples_per_shard=4))
    assert report.n_added == 7
    ((_, url),) = bank.table("t").parts().items()
    group = zarr.open_group(url.removeprefix("file://"), mode="r")
    return bank, {name: group[name][:] for name in ("S2L2A", "S1GRD", "DEM")}


@pytest.fixture(scope="module")
def plan(table):
    return table[0].sql(SQL).plan(by_date=True)


def check(batch: dict, table, k: int) -> None:
    """Check that every tensor and column is that of the dates that the batch names."""
    bank, arrays = table
    rows = {r["row"]: r for r in bank.sql(SQL).arrow().to_pylist()}
    assert batch["time_index"].shape == (len(batch["sample_id"]), k)
    assert batch["time_index"].dtype == torch.int64
    for i, (row, dates) in enumerate(zip(batch["row"].tolist(), batch["time_index"].tolist(), strict=True)):
        expected = {
            "S2L2A": arrays["S2L2A"][row][dates][:, [7, 1]],
            "S1GRD": arrays["S1GRD"][row][dates],
            "DEM": arrays["DEM"][row],
        }
        for name, pixels in expected.items():
            pixels = pixels[0] if len(pixels) == 1 else pixels
            np.testing.assert_array_equal(batch[name][i].numpy(), pixels, err_msg=name)
        for name in ("S2_times", "S1_times"):
            assert batch[name].dtype == torch.int64
            stamps = [round(rows[row][name][d].timestamp() * 1e6) for d in dates]
            assert batch[name][i].tolist() == stamps
        assert batch["cloud_covers"][i].tolist() == [rows[row]["cloud_covers"][d] for d in dates]


def choices(batches) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (name, tuple(dates))
        for b in batches
        for name, dates in zip(b["sample_id"], b["time_index"].tolist(), strict=True)
    ]


# ---------------------------------------------------------- drawing


@given(st.integers(1, 9), st.data())
@settings(max_examples=80)
def test_drawn_dates_are_a_function_of_seed_epoch_and_position(n, data):
    k = data.draw(st.integers(1, n))
    key = {"seed": data.draw(st.integers(0, 2**63)), "epoch": data.draw(st.integers(0, 2**31))}
    positions = np.array(data.draw(st.lists(st.integers(0, 2**40), min_size=1, max_size=30)))
    drawn = draw_dates(positions, n, k, **key)
    assert drawn.shape == (len(positions), k)
    assert drawn.dtype == np.int64
    assert ((drawn >= 0) & (drawn < n)).all()
    assert (np.diff(drawn, axis=1) > 0).all()
    alone = [draw_dates(positions[i : i + 1], n, k, **key)[0] for i in range(len(positions))]
    np.testing.assert_array_equal(drawn, alone)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_all_choices_are_equally_likely_and_those_of_epochs_and_seeds_independent(k):
    m = 60_000
    draws = [draw_dates(np.arange(m), N_DATES, k, seed=s, epoch=e) for s, e in ((7, 0), (7, 1), (8, 0))]
    subsets = list(itertools.combinations(range(N_DATES), k))
    codes = [[subsets.index(tuple(d)) for d in draw.tolist()] for draw in draws]
    expected = m / len(subsets)
    for code in codes:
        counts = np.array([Counter(code)[i] for i in range(len(subsets))])
        assert ((counts - expected) ** 2 / expected).sum() < 25  # 5 degrees of freedom: p = 1e-4
    for a, b in itertools.combinations(codes, 2):
        same = np.mean(np.array(a) == np.array(b))
        assert abs(same - 1 / len(subsets)) < 0.01
    # neighbours do not go in step
    assert abs(np.mean(np.array(codes[0])[1:] == np.array(codes[0])[:-1]) - 1 / len(subsets)) < 0.01


# ------------------------------------------------------- delivering


@pytest.mark.parametrize("times", [1, 2, 3, 4, [2], [3, 0], (0, 1, 2, 3)])
def test_batches_hold_the_chosen_dates_of_tensors_and_columns(table, plan, times):
    k = times if isinstance(times, int) else len(times)
    with DataLoader(plan, batch_size=3, seed=5, times=times) as loader:
        epochs = [list(loader) for _ in range(2)]
    assert [[len(batch["row"]) for batch in epoch] for epoch in epochs] == [[3, 3, 1]] * 2
    for batch in epochs[0] + epochs[1]:
        check(batch, table, k)
        if not isinstance(times, int):
            assert batch["time_index"].tolist() == [list(times)] * len(batch["sample_id"])
    if isinstance(times, int) and 0 < k < N_DATES:
        assert dict(choices(epochs[0])) != dict(choices(epochs[1]))


def test_all_dates_come_without_a_choice(table, plan):
    _, arrays = table
    for by in (plan, table[0].sql(SQL).plan()):
        (batch,) = DataLoader(by, batch_size=7, shuffle=None)
        assert len(batch["row"]) == 7
        assert "time_index" not in batch
        assert len(batch["S2_times"][0]) == N_DATES
        for row, tensor in zip(batch["row"].tolist(), batch["S2L2A"], strict=True):
            np.testing.assert_array_equal(tensor.numpy(), arrays["S2L2A"][row][:, [7, 1]])


@pytest.mark.parametrize("times", [1, 2, [2], [3, 1]])
def test_only_the_chosen_dates_are_read(plan, times):
    form = PlanForm.of(plan, DateChoice.of(plan, times if isinstance(times, int) else tuple(times), 1))
    positions = np.array([5, 0, 6])
    dates = form.dates(positions, epoch=3)
    exact = FetchOptions(max_gap_bytes=0, max_amplification=1.0)
    tensors = form.allocate(positions, BatchMemory())
    with closing(SampleReader.of(plan, exact)) as reader:
        reader.submit(positions, {name: t.numpy() for name, t in tensors.items()}, dates).wait()
        read = reader.stats.bytes_read
    expected = plan.addresses["DEM"].lengths[positions].sum()
    for i, position in enumerate(positions):
        # B02 and B08 lie apart: two runs a date; both bands of S1GRD are one
        expected += plan.addresses["S2L2A"].lengths[position].reshape(N_DATES, 2)[dates[i]].sum()
        expected += plan.addresses["S1GRD"].lengths[position][dates[i]].sum()
    assert read == expected


def test_a_missing_modality_is_masked_whatever_dates_are_chosen(plan):
    keys = plan.table["S1GRD.key"].to_pylist()
    keys[2] = None
    index = plan.table.schema.get_field_index("S1GRD.key")
    gappy = plan.table.set_column(index, "S1GRD.key", pa.array(keys).dictionary_encode())
    gappy = replace(plan, table=gappy)
    (batch,) = DataLoader(gappy, batch_size=7, shuffle=None, times=2)
    assert batch["mask"]["S1GRD"].tolist() == [i != 2 for i in range(7)]
    assert torch.isnan(batch["S1GRD"][2]).all()
    assert batch["S1GRD"].shape[:2] == (7, 2)


@pytest.mark.parametrize("times", [1, 2])
def test_transforms_see_the_chosen_dates(plan, times):
    one = Augment([RandomHorizontalFlip(p=1.0)], modalities=["S2L2A", "S1GRD"])
    with (
        DataLoader(plan, batch_size=7, seed=2, times=times) as plain,
        DataLoader(plan, batch_size=7, seed=2, times=times, transform=torch.nn.Sequential(one)) as flipped,
    ):
        (a,), (b,) = plain, flipped
    for name in ("S2L2A", "S1GRD"):
        torch.testing.assert_close(b[name], a[name].flip(-1), check_dtype=False, equal_nan=True)
    assert torch.equal(a["time_index"], b["time_index"])


def test_columns_without_a_value_for_each_date_stay_lists(table):
    query = table[0].sql(
        "SELECT S2L2A, S2_times[:3] AS three, [1.5, 2.5, 3.5, 4.5] AS box, cloud_covers AS clouds, S2_times AS stamps, "
        "CASE WHEN S2L2A.ref.row = 1 THEN NULL ELSE S1_times END AS gaps FROM t"
    )
    (batch,) = query.dataloader(batch_size=7, times=1)
    assert {len(v) for v in batch["three"]} == {3}
    assert batch["box"] == [[1.5, 2.5, 3.5, 4.5]] * 7
    assert {len(v) for v in batch["clouds"]} == {N_DATES}
    assert batch["gaps"].count(None) == 1
    assert batch["stamps"].shape == (7, 1)


# --------------------------------------------------- any hardware


def run(plan, world: World, *, epoch: int, times, size: int = 5) -> list[list]:
    dataset = StreamingDataset(plan, global_batch_size=size, seed=3, world=world, times=times)
    dataset.set_epoch(epoch)
    return [choices([b]) for b in dataset]


@pytest.mark.parametrize("times", [1, 2])
def test_every_world_draws_the_same(plan, times):
    for epoch in range(2):
        alone = run(plan, World(), epoch=epoch, times=times)
        assert [len(batch) for batch in alone] == [5, 2]
        for n_ranks in (2, 3, 5):
            shares = [run(plan, World(r, n_ranks), epoch=epoch, times=times) for r in range(n_ranks)]
            assert [list(itertools.chain(*parts)) for parts in zip(*shares, strict=True)] == alone
        single = StreamingDataset(plan, seed=3, world=World(), times=times)
        single.set_epoch(epoch)
        one_by_one = [(s["sample_id"], tuple(s["time_index"].tolist())) for s in single]
        assert sorted(one_by_one) == sorted(itertools.chain(*alone))


def test_workers_draw_the_same(plan):
    dataset = StreamingDataset(plan, global_batch_size=3, seed=3, world=World(), times=2)
    alone = [choices([b]) for b in dataset]
    assert len(alone) == 3
    dataset.set_epoch(0)
    loader = TorchDataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert [choices([b]) for b in loader] == alone


def test_a_run_goes_on_with_its_dates_at_any_step(plan):
    with DataLoader(plan, batch_size=2, seed=9, times=2) as loader:
        whole = [choices([b]) for _ in range(2) for b in loader]
    assert len(whole) == 8
    for done in range(1, len(whole)):
        with DataLoader(plan, batch_size=2, seed=9, times=2) as loader:
            had = list(itertools.islice((choices([b]) for _ in range(2) for b in loader), done))
            saved = json.dumps(loader.state_dict())
        assert len(saved) < 1024
        with DataLoader(plan, batch_size=2, seed=9, times=2) as loader:
            loader.load_state_dict(json.loads(saved))
            rest = []
            while len(had) + len(rest) < len(whole):
                rest += [choices([b]) for b in loader]
        assert had + rest == whole


def test_a_state_of_other_dates_is_refused(plan):
    with DataLoader(plan, batch_size=2, times=2) as loader:
        state = loader.state_dict()
    for other in (None, 1, [0, 1]):
        with DataLoader(plan, batch_size=2, times=other) as loader:
            with pytest.raises(InvalidInputError, match="times") as caught:
                loader.load_state_dict(state)
            assert caught.value.kind == "other-state"
    with DataLoader(plan, batch_size=2, times=(0, 1)) as loader:
        loader.load_state_dict(DataLoader(plan, batch_size=2, times=[0, 1]).state_dict())


def test_the_order_of_samples_does_not_depend_on_the_choice(plan):
    orders = []
    for times in (None, 1, [3]):
        with DataLoader(plan, batch_size=3, seed=4, times=times) as loader:
            orders.append([b["sample_id"] for b in loader])
    assert orders[0] == orders[1] == orders[2]


# ------------------------------------------------------ selections


def test_a_selection_streams_as_its_query_does(table):
    bank, _ = table
    selection = bank.query("t").select("sample_id", "S2L2A")
    for options in ({"global_batch_size": 4}, {"batch_size": 4}, {"global_batch_size": 4, "times": 2}):
        with selection.dataloader(**options) as loader, selection.query.dataloader(**options) as other:
            found = [b["sample_id"] for b in loader]
            assert found == [b["sample_id"] for b in other]
            assert sorted(itertools.chain(*found)) == sorted(
                bank.sql("SELECT sample_id FROM t").df()["sample_id"]
            )
    with pytest.raises(InvalidInputError, match="either batch_size"):
        selection.dataloader()


def test_a_selection_is_split_as_its_query_is(table):
    selection = table[0].query("t").select("sample_id", "DEM")
    fractions = {"train": 0.6, "val": 0.4}
    parts = selection.split_by("sample_id", fractions, seed=3)
    assert parts == selection.query.split_by("sample_id", fractions, seed=3)
    names = [set(part.arrow()["sample_id"].to_pylist()) for part in parts.values()]
    assert len(names[0]) + len(names[1]) == len(names[0] | names[1]) == 7
    for wrong in ({"train": 0.0}, {"train": "most"}, {"train": 0.8, "val": 0.3}, {}, None, [("train", 1.0)]):
        with pytest.raises(InvalidInputError, match="fraction"):
            selection.split_by("sample_id", wrong)
    with pytest.raises(InvalidInputError, match="seed"):
        selection.split_by("sample_id", fractions, seed="a")
    with pytest.raises(InvalidInputError, match="group"):
        selection.split_by(7, fractions)


# ----------------------------------------------------------- mixes


@pytest.mark.parametrize("homogeneous", [False, True])
def test_a_mix_of_plans_by_date(table, homogeneous):
    bank, _ = table
    plans = [bank.sql(f"{SQL} WHERE S2L2A.ref.row {half}").plan(by_date=True) for half in ("< 3", ">= 3")]
    mix = tb.mix(zip(plans, (0.5, 0.5), strict=True), seed=1, homogeneous=homogeneous)
    with mix.dataloader(batch_size=2, times=2) as loader:
        batches = list(loader)
    assert {int(m) for b in batches for m in b["mixed_from"]} == {0, 1}
    for batch in batches:
        check(batch, table, 2)


# -------------------------------------------------------- refusals


@pytest.mark.parametrize("times", [0, 5, -1, [], [0, 0], [4], [-1], "two", 1.5, ["a"]])
def test_dates_that_are_not_there_are_refused(plan, times):
    with pytest.raises(InvalidInputError, match="times") as caught:
        DataLoader(plan, batch_size=2, times=times)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_chosen_from_is_refused_with_the_way_out(table):
    bank, _ = table
    with pytest.raises(InvalidInputError, match=r"query\.plan\(by_date=True\)"):
        bank.sql(SQL).plan().dataloader(batch_size=2, times=1)
    with pytest.raises(InvalidInputError, match="leave it out"):
        bank.sql("SELECT DEM FROM t").dataloader(batch_size=2, times=1)
    with pytest.raises(InvalidInputError, match="rename"):
        bank.sql("SELECT S2L2A, 1 AS time_index FROM t").dataloader(batch_size=2, times=1)
    mix = tb.mix([bank.sql("SELECT S2L2A FROM t")])
    with pytest.raises(InvalidInputError, match=r"query\.plan\(by_date=True\)"):
        mix.dataloader(batch_size=2, times=1)


def test_modalities_of_different_numbers_of_dates_are_refused(plan):
    handles = (
        plan.handles[0],
        replace(plan.handles[1], modality=replace(plan.handles[1].modality, n_times=2)),
    )
    with pytest.raises(InvalidInputError, match="different numbers"):
        DateChoice.of(replace(plan, handles=handles), 1, 0)


def test_the_reader_refuses_dates_that_do_not_fit(plan):
    with closing(SampleReader.of(plan)) as reader:
        out = {h.name: np.empty((1, *h.shape), h.modality.dtype) for h in plan.handles}
        for dates in ([[4]], [[-1]], [0], [[0], [1]]):
            with pytest.raises(InvalidInputError, match="dates of 1 samples"):
                reader.submit(np.array([0]), out, np.array(dates))
