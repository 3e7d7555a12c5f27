"""Columns of every type, in batches and in single samples that torch puts together."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pytest
import torch.utils.data

from support.handmade import HANDLES, Handmade, make
from tensorbank import InvalidInputError
from tensorbank_loader import DataLoader, StreamingDataset, World
from tensorbank_loader.batch.collation import collate

N = 5
DAY = dt.date(2021, 7, 1)
NOON = dt.datetime(2021, 7, 1, 12, tzinfo=dt.UTC)
TENSORS = {
    "int": pa.array(range(N), pa.int16()),
    "unsigned": pa.array(range(N), pa.uint8()),
    "bool": pa.array([True, False] * 2 + [True]),
    "float": pa.array([0.5, None, 1.5, 2.5, 3.5], pa.float32()),
    "stamp": pa.array([NOON] * N, pa.timestamp("ms", tz="UTC")),
}
LISTS = {
    "text": ["a", "b", None, "", "e"],
    "some_int": pa.array([1, None, 3, 4, 5], pa.int64()),
    "some_bool": pa.array([True, None, False, True, True]),
    "some_stamp": pa.array([NOON, None, NOON, NOON, NOON], pa.timestamp("us", tz="UTC")),
    "date": pa.array([DAY] * N, pa.date32()),
    "some_date": pa.array([DAY, None, DAY, DAY, DAY], pa.date32()),
    "decimal": pa.array([Decimal("1.50")] * N, pa.decimal128(5, 2)),
    "time": pa.array([dt.time(1, 2)] * N, pa.time64("us")),
    "duration": pa.array([dt.timedelta(days=1)] * N, pa.duration("us")),
    "list": pa.array([[1, 2], [], None, [3], [4, 5]], pa.list_(pa.int32())),
    "struct": pa.array([{"a": 1, "b": None}] * N),
    "binary": pa.array([b"x"] * N),
    "null": pa.nulls(N),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    own = make(tmp_path_factory.mktemp("part"), N, handles=HANDLES[4:5])
    table = own.plan.table.select(["LULC.key", "LULC.starts", "LULC.lengths", "sample_id"])
    for name, values in {**TENSORS, **LISTS}.items():
        table = table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
    return replace(own, plan=replace(own.plan, table=table))


def expected_of(made: Handmade, name: str) -> list:
    values = made.plan.table[name].to_pylist()
    if name == "stamp":
        return [round(v.timestamp() * 1e6) for v in values]
    return [math.nan if v is None else v for v in values] if name == "float" else values


def check(made: Handmade, batch: dict) -> None:
    assert set(batch) == {"LULC", "mask", "sample_id", *TENSORS, *LISTS}
    assert batch["LULC"].shape == (N, 1, 12, 10)
    assert batch["mask"]["LULC"].shape == (N,)
    for name in (*TENSORS, *LISTS):
        found = batch[name]
        assert isinstance(found, torch.Tensor if name in TENSORS else list), name
        found = found.tolist() if isinstance(found, torch.Tensor) else found
        assert str(found) == str(expected_of(made, name)), name


def samples(made: Handmade) -> StreamingDataset:
    return StreamingDataset(made.plan, shuffle=None, world=World())


def test_batches(made):
    with DataLoader(made.plan, batch_size=N, shuffle=None, world=World()) as loader:
        (batch,) = loader
    check(made, batch)


@pytest.mark.parametrize("options", [{}, {"collate_fn": collate}], ids=["by default", "by name"])
def test_single_samples_that_torch_collates(made, options):
    (batch,) = torch.utils.data.DataLoader(samples(made), batch_size=N, **options)
    check(made, batch)


def test_single_samples_that_a_worker_collates(made):
    loader = torch.utils.data.DataLoader(
        samples(made), batch_size=N, num_workers=1, multiprocessing_context="forkserver"
    )
    (batch,) = loader
    check(made, batch)


def test_single_samples_that_are_not_collated(made):
    found = list(torch.utils.data.DataLoader(samples(made), batch_size=None))
    assert [s["text"] for s in found] == LISTS["text"]
    assert [s["some_int"] for s in found] == LISTS["some_int"].to_pylist()


def test_a_transform_of_samples_is_collated_by_torch_as_ever(made):
    dataset = StreamingDataset(made.plan, shuffle=None, world=World(), transform=lambda s: s["int"] * 2)
    (batch,) = torch.utils.data.DataLoader(dataset, batch_size=N)
    assert batch.tolist() == [0, 2, 4, 6, 8]


def test_what_cannot_be_put_together_is_named():
    alike = {"x": torch.zeros(2), "mask": {"S2": torch.tensor(True)}}
    with pytest.raises(InvalidInputError, match=r"column 'x'.*\(2,\).*\(3,\)"):
        collate([alike, {**alike, "x": torch.zeros(3)}])
    with pytest.raises(InvalidInputError, match=r"column 'mask\.S2'"):
        collate([alike, {**alike, "mask": {"S2": torch.zeros(2)}}])
    with pytest.raises(InvalidInputError, match="column 'y' is in some samples"):
        collate([alike, {**alike, "y": 1}])


def test_a_column_that_python_cannot_hold_is_named(made):
    far = pa.array([10**18, None, 0, 0, 0], pa.timestamp("s"))
    plan = replace(made.plan, table=made.plan.table.append_column("far", far))
    loader = DataLoader(plan, batch_size=N, world=World())
    with pytest.raises(InvalidInputError, match=r"column 'far', of type timestamp\[s\]"), loader:
        list(loader)


def test_nothing_else_is_called_as_a_batch_calls_its_masks(tmp_path):
    """Though no sample of this plan lacks anything, so that this batch would have no masks."""
    own = make(tmp_path, N, handles=HANDLES[:1])
    (handle,) = own.plan.handles
    renamed = replace(handle, name="mask")
    names = [name.replace("S2.", "mask.") for name in own.plan.table.column_names]
    plan = replace(own.plan, handles=(renamed,), table=own.plan.table.rename_columns(names))
    with pytest.raises(InvalidInputError, match="the batch has 'mask' already; rename the modality with AS"):
        DataLoader(plan, batch_size=N)
    column = own.plan.table.append_column("mask", pa.array(range(N)))
    with pytest.raises(InvalidInputError, match="the batch has 'mask' already; rename the column with AS"):
        DataLoader(replace(own.plan, table=column), batch_size=N)
