"""The loader: what arrives, where it goes on, what it says when something is wrong, and that nothing is left behind."""

from __future__ import annotations

import gc
import json
import threading
import time
from dataclasses import replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
import torch

from support.handmade import HANDLES, Handmade, make, moved
from support.resume import assert_resumable
from support.waiting import wait_until
from tensorbank import IntegrityError, InvalidInputError, StorageOptions
from tensorbank.reading import BatchRead, SampleReader
from tensorbank.storage.store import Store
from tensorbank_loader import DataLoader, FetchOptions, StreamingDataset, World
from tensorbank_loader.batch.read_window import MIN_BATCHES_AHEAD

N = 23
NARROW = FetchOptions(max_inflight_bytes=0, n_threads=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), N)


OF_OTHERS: set[threading.Thread] = set()  # threads of what tests of other modules have left open


@pytest.fixture(scope="module", autouse=True)
def _of_others():
    OF_OTHERS.update(threading.enumerate())


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    gc.collect()
    wait_until(lambda: not readers(), lambda: f"these threads are left: {readers()}")


def readers() -> list[threading.Thread]:
    return [t for t in set(threading.enumerate()) - OF_OTHERS if t.name.startswith("tensorbank-read")]


def ids(batch: dict) -> list[str]:
    return list(batch["sample_id"])


def position_of(made: Handmade) -> dict[str, int]:
    return {name: i for i, name in enumerate(made.plan.table["sample_id"].to_pylist())}


def check_batch(made: Handmade, batch: dict) -> None:
    at = position_of(made)
    positions = [at[name] for name in ids(batch)]
    for handle in made.plan.handles:
        expected = made.truth[handle.name][positions]
        expected = expected[:, 0] if handle.modality.n_times == 1 else expected
        assert batch[handle.name].shape == expected.shape
        np.testing.assert_array_equal(batch[handle.name].numpy(), expected)
    rows = made.plan.table.take(pa.array(positions))
    assert batch["count"].tolist() == rows["count"].to_pylist()
    assert batch["maybe"] == rows["maybe"].to_pylist()
    cloud = [float("nan") if c is None else c for c in rows["cloud_cover"].to_pylist()]
    np.testing.assert_array_equal(batch["cloud_cover"].numpy(), cloud)
    assert batch["time"].tolist() == [1_000_000 * c for c in rows["count"].to_pylist()]


# ------------------------------------------------------ what arrives


@pytest.mark.parametrize("options", [None, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_every_tensor_of_every_batch_is_the_truth(made, batch_size, options):
    with DataLoader(made.plan, batch_size=batch_size, seed=3, options=options) as loader:
        seen = []
        for batch in loader:
            check_batch(made, batch)
            seen += ids(batch)
        assert sorted(seen) == sorted(position_of(made))
        stats = loader.stats()
    assert (stats.batches, stats.samples) == (len(loader), N) == (-(-N // batch_size), N)
    assert stats.tensor_bytes == N * sum(h.n_bytes for h in made.plan.handles)
    assert 0 < stats.bytes_asked <= stats.bytes_read <= 1.25 * stats.bytes_asked
    assert stats.wait_s > 0
    assert stats.decode_s > 0


def test_a_mask_is_there_for_handles_that_some_sample_lacks_and_for_no_other(made):
    n_missing = 0
    for batch in DataLoader(made.plan, batch_size=4):
        assert set(batch["mask"]) == {"series", "both", "LULC"}
        gone = ~batch["mask"]["series"]
        assert torch.isnan(batch["series"][gone]).all()
        n_missing += int(gone.sum())
    assert n_missing == 4
    complete = replace(made.plan, handles=HANDLES[:2])
    assert ["mask" in batch for batch in DataLoader(complete, batch_size=4)] == [False] * 6


def test_nothing_is_invented(made):
    only = replace(
        made.plan, handles=HANDLES[:1], table=made.plan.table.select(["S2.key", "S2.starts", "S2.lengths"])
    )
    assert [set(batch) for batch in DataLoader(only, batch_size=8)] == [{"S2"}] * 3


def test_every_batch_has_the_same_types(made):
    kinds = {tuple((k, type(v)) for k, v in batch.items()) for batch in DataLoader(made.plan, batch_size=1)}
    assert len(kinds) == 1


def test_without_shuffle_the_plans_order_and_with_drop_last_whole_batches(made):
    loader = DataLoader(made.plan, batch_size=5, shuffle=False, drop_last=True)
    batches = [ids(b) for b in loader]
    assert batches == [made.plan.table["sample_id"].to_pylist()[i : i + 5] for i in range(0, 20, 5)]
    assert len(loader) == len(batches)


def test_a_transform_sees_whole_batches(made):
    loader = DataLoader(made.plan, batch_size=5, transform=lambda b: b["S2"].float().mean((0, 2, 3)))
    assert [m.shape for m in loader] == [(4,)] * 5


def test_a_plan_of_no_samples_is_an_epoch_of_no_batches(made):
    nothing = replace(made.plan, table=made.plan.table.slice(0, 0))
    loader = DataLoader(nothing, batch_size=5)
    assert (list(loader), len(loader)) == ([], 0)


def test_over_http(made, s3_server):
    options = StorageOptions(
        s3_server.endpoint, s3_server.access_key, s3_server.secret_key, region="us-east-1"
    )
    plan = moved(made, f"s3://{s3_server.bucket}/loader", options)
    with DataLoader(plan, batch_size=8) as loader:
        seen = []
        for batch in loader:
            check_batch(made, batch)
            seen += ids(batch)
    assert sorted(seen) == sorted(position_of(made))


# ------------------------------------------------------------- order


@pytest.mark.parametrize("n_ranks", [2, 3, 5])
def test_ranks_share_the_batches_of_one(made, n_ranks):
    alone = [ids(b) for b in StreamingDataset(made.plan, global_batch_size=6, seed=1, world=World())]
    worlds = [World(rank, n_ranks) for rank in range(n_ranks)]
    shares = [
        [ids(b) for b in StreamingDataset(made.plan, global_batch_size=6, seed=1, world=w)] for w in worlds
    ]
    assert [list(chain(*(s[i] for s in shares))) for i in range(len(alone))] == alone


def test_batch_size_is_a_ranks_and_the_state_keeps_the_worlds(made):
    worlds = [World(rank, 2) for rank in range(2)]
    loaders = [DataLoader(made.plan, batch_size=3, seed=1, world=w) for w in worlds]
    alone = [ids(b) for b in DataLoader(made.plan, batch_size=6, seed=1)]
    assert [a + b for a, b in zip(*([ids(b) for b in x] for x in loaders), strict=True)] == alone
    assert loaders[0].state_dict()["global_batch_size"] == 6


def test_epochs_differ_and_can_be_chosen(made):
    loader = DataLoader(made.plan, batch_size=5, seed=1)
    first, second = ([ids(b) for b in loader] for _ in range(2))
    assert first != second
    loader.set_epoch(0)
    assert [ids(b) for b in loader] == first
    loader.set_epoch(1)
    assert [ids(b) for b in loader] == second


# ------------------------------------------------------------ resume


@pytest.mark.parametrize("options", [None, NARROW], ids=["wide", "narrow"])
def test_the_loader_resumes_at_every_batch_in_every_world(made, options):
    def make_one() -> DataLoader:
        return DataLoader(made.plan, batch_size=4, seed=5, world=World(), options=options)

    def ranks(n: int) -> list[DataLoader]:
        return [DataLoader(made.plan, batch_size=4 // n, seed=5, world=World(r, n)) for r in range(n)]

    assert assert_resumable(make_one, ids, others=[lambda: ranks(2), lambda: ranks(4)]) == 6


def test_the_dataset_resumes_at_every_batch_in_worlds_that_do_not_divide_it(made):
    def ranks(n: int) -> list[StreamingDataset]:
        return [StreamingDataset(made.plan, global_batch_size=5, seed=5, world=World(r, n)) for r in range(n)]

    assert assert_resumable(lambda: ranks(1)[0], ids, others=[lambda: ranks(2), lambda: ranks(3)]) == 5


def test_single_samples_resume_at_every_sample(made):
    assert assert_resumable(lambda: StreamingDataset(made.plan, seed=5), lambda s: s["sample_id"]) == N


def test_a_batch_whose_transform_failed_is_not_counted_as_had(made):
    loader = DataLoader(made.plan, batch_size=5, transform=lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(iter(loader))
    assert loader.state_dict()["position"] == 0
    loader.close()


@pytest.mark.parametrize(
    "other",
    [{"seed": 2}, {"shuffle": False}, {"shuffle": "window"}, {"drop_last": True}],
    ids=lambda o: next(iter(o)),
)
def test_a_state_of_another_order_is_refused(made, other):
    state = DataLoader(made.plan, batch_size=5, seed=1).state_dict()
    with pytest.raises(InvalidInputError, match=next(iter(other))):
        DataLoader(made.plan, **{"batch_size": 5, "seed": 1, **other}).load_state_dict(state)


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "0" * 32},
        {"version": 1},
        {"global_batch_size": 0},
        {"position": 99},
        {"epoch": -1},
        {"position": None},
        {"skip": 1},
    ],
    ids=str,
)
def test_a_state_that_is_none_of_ours_is_refused(made, change):
    loader = DataLoader(made.plan, batch_size=5)
    with pytest.raises(InvalidInputError):
        loader.load_state_dict({**loader.state_dict(), **change})
    with pytest.raises(InvalidInputError):
        loader.load_state_dict({})


# ------------------------------------------------- errors and the end


def damage(made: Handmade, position: int) -> str:
    path = made.path_of("S2", position)
    body = bytearray(path.read_bytes())
    body[int(made.plan.addresses["S2"].starts[position, 0]) + 40] ^= 1
    path.write_bytes(body)
    return path.relative_to(made.folder).as_posix()


def test_an_error_comes_at_its_batch_and_the_state_stays_before_it(tmp_path):
    own = make(tmp_path, N)
    key = damage(own, 12)  # without shuffle in the third batch of five
    loader = DataLoader(own.plan, batch_size=5, shuffle=False)
    batches = iter(loader)
    for _ in range(2):
        check_batch(own, next(batches))
    with pytest.raises(IntegrityError, match=key):
        next(batches)
    assert loader.state_dict()["position"] == 2
    assert not readers()
    damage(own, 12)  # and back again
    loader.load_state_dict(loader.state_dict())
    assert [len(ids(b)) for b in loader] == [5, 5, 3], "goes on where it failed"


def test_a_window_reads_no_further_than_its_budget(made, monkeypatch):
    asked = []
    sound = Store.get_range
    monkeypatch.setattr(Store, "get_range", lambda *a: asked.append(a) or sound(*a))
    loader = DataLoader(replace(made.plan, handles=HANDLES[:1]), batch_size=1, options=NARROW)
    batches = iter(loader)
    for n in range(1, 6):
        next(batches)
        time.sleep(0.05)
        assert n <= len(asked) <= n + 1, "one batch is read ahead, and waits"
    loader.close()


def test_closing_early_stops_the_threads_and_keeps_the_state(made):
    loader = DataLoader(made.plan, batch_size=2)
    batches = iter(loader)
    first = ids(next(batches))
    assert readers()
    loader.close()
    loader.close()
    assert not readers()
    assert next(batches, None) is None
    loader.load_state_dict(loader.state_dict())
    rest = [ids(b) for b in loader]
    assert len(rest) == 11
    assert first not in rest


def test_a_loader_that_is_forgotten_leaves_no_thread(made):
    for one in (DataLoader(made.plan, batch_size=2), StreamingDataset(made.plan, global_batch_size=2)):
        batches = iter(one)
        next(batches)
        assert readers()


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "float64", "int8"])
def test_all_dtypes_that_torch_has(tmp_path, dtype):
    handle = replace(HANDLES[0], modality=replace(HANDLES[0].modality, dtype=dtype))
    own = make(tmp_path, 5, handles=(handle,))
    (batch,) = DataLoader(own.plan, batch_size=5)
    assert len(ids(batch)) == 5
    check_batch(own, batch)


def test_plans_and_options_that_cannot_be_streamed_are_refused_at_once(made):
    with pytest.raises(InvalidInputError, match="no modality"):
        DataLoader(replace(made.plan, handles=()), batch_size=5)
    with pytest.raises(InvalidInputError, match="batch_size is 0"):
        DataLoader(made.plan, batch_size=0)
    with pytest.raises(InvalidInputError, match="StreamingDataset"):
        DataLoader(made.plan, batch_size=5, world=World(n_workers=2))
    with pytest.raises(InvalidInputError, match="less than a sample"):
        StreamingDataset(made.plan, global_batch_size=3, world=World(0, 4))
    with pytest.raises(InvalidInputError, match="drop_last"):
        StreamingDataset(made.plan, drop_last=True)
    table = made.plan.table.rename_columns({"count": "mask"})
    with pytest.raises(InvalidInputError, match="'mask'"):
        DataLoader(replace(made.plan, table=table), batch_size=5)


def test_the_state_is_small_and_json(made):
    assert len(json.dumps(DataLoader(made.plan, batch_size=5).state_dict())) < 1024


def test_the_next_epoch_is_on_its_way_when_one_ends(made):
    with (
        DataLoader(made.plan, batch_size=4, seed=3) as loader,
        DataLoader(made.plan, batch_size=4, seed=3) as other,
    ):
        list(loader)
        assert 0 < loader.stats().n_ahead <= MIN_BATCHES_AHEAD
        requests = loader.stats().requests
        other.set_epoch(1)
        assert [ids(b) for b in loader] == [ids(b) for b in other]
        loader.set_epoch(2)
        assert loader.stats().n_ahead > 0, "the epoch that follows anyway is not read anew"
        assert loader.stats().requests > requests
        loader.set_epoch(7)
        assert loader.stats().n_ahead == 0
        other.set_epoch(7)
        assert [ids(b) for b in loader] == [ids(b) for b in other]


def test_the_next_epoch_waits_until_all_of_this_one_has_come(made, monkeypatch):
    asked = []
    submit, ready = SampleReader.submit, BatchRead.ready

    def noted(self, positions, out, dates=None, wanted=None):
        asked.append(positions)
        return submit(self, positions, out, dates, wanted)

    monkeypatch.setattr(SampleReader, "submit", noted)
    monkeypatch.setattr(BatchRead, "ready", False)
    with DataLoader(made.plan, batch_size=4) as loader:
        n = len(loader)
        batches = iter(loader)
        for _ in range(n - 1):
            next(batches)
        assert len(asked) == n
        monkeypatch.setattr(BatchRead, "ready", ready)
        assert len(list(batches)) == 1
        assert len(asked) > n


def test_an_epoch_that_was_left_goes_on_with_what_was_read_ahead(made):
    with DataLoader(made.plan, batch_size=4, shuffle=None, on_iter="continue") as loader:
        first = ids(next(iter(loader)))
        had = loader.stats().n_ahead
        rest = [ids(b) for b in loader]
        assert had > 0
        assert [name for batch in [first, *rest] for name in batch] == made.plan.table[
            "sample_id"
        ].to_pylist()
        assert loader.stats().samples == N


class Slow:
    """A transform that waits until it may go on, and tells that it has been called."""

    def __init__(self) -> None:
        self.called, self.may = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, batch: dict) -> dict:
        self.called.release()
        assert self.may.acquire(timeout=60)
        return batch


def test_some_batches_are_transformed_ahead_and_no_more(made):
    slow = Slow()
    with DataLoader(made.plan, batch_size=4, shuffle=None, transform=slow, transform_ahead=2) as loader:
        slow.may.release(3)
        batches = iter(loader)
        first = ids(next(batches))
        for _ in range(3):  # the one in hand, and two more
            assert slow.called.acquire(timeout=60)
        ahead = loader._pipeline._batches
        wait_until(lambda: ahead.n_ahead == 2, "two batches are there")
        assert not slow.called.acquire(timeout=0.2), "there is no room for a fourth"
        assert loader.state_dict()["position"] == 1, "what is ahead was not had"
        slow.may.release(10)
        assert first + [name for b in batches for name in ids(b)] == made.plan.table["sample_id"].to_pylist()


@pytest.mark.parametrize("n", [1, 3])
def test_batches_made_ahead_are_those_made_in_turn_and_resume_as_they_do(made, n):
    def loader(**more: object):
        return DataLoader(
            made.plan, global_batch_size=4, seed=5, transform=lambda b: b | {"S2": b["S2"] + 1}, **more
        )

    with loader() as plain, loader(transform_ahead=n) as ahead:
        for _ in range(2):  # across the end of an epoch, too
            for one, other in zip(plain, ahead, strict=True):
                assert ids(one) == ids(other)
                assert torch.equal(one["S2"], other["S2"])
        assert ahead.stats().transform_s == 0 < plain.stats().transform_s
    three_ranks = [lambda: [loader(transform_ahead=n, world=World(rank, 3)) for rank in range(3)]]
    assert assert_resumable(lambda: loader(transform_ahead=n), ids, others=three_ranks) == 6


def test_an_error_of_a_transform_ahead_comes_at_its_batch(made):
    calls = []

    def third_fails(batch):
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError
        return batch

    loader = DataLoader(made.plan, batch_size=4, shuffle=None, transform=third_fails, transform_ahead=4)
    batches = iter(loader)
    had = [ids(next(batches)), ids(next(batches))]
    with pytest.raises(ZeroDivisionError):
        next(batches)
    assert loader.state_dict()["position"] == 2
    assert not makers()
    loader.load_state_dict(loader.state_dict())
    had += [ids(batch) for batch in loader]
    assert [name for batch in had for name in batch] == made.plan.table["sample_id"].to_pylist()
    loader.close()
    assert not makers()


def test_a_damaged_batch_is_told_at_its_place_though_it_was_read_ahead(tmp_path):
    own = make(tmp_path, N)
    key = damage(own, 12)
    loader = DataLoader(own.plan, batch_size=5, shuffle=False, transform_ahead=4)
    batches = iter(loader)
    for _ in range(2):
        check_batch(own, next(batches))
    with pytest.raises(IntegrityError, match=key):
        next(batches)
    assert loader.state_dict()["position"] == 2
    assert not makers()
    assert not readers()


def test_a_loader_that_waits_for_a_read_ahead_can_be_closed(made, monkeypatch):
    """The thread that transforms waits for a read that never comes while the loader is closed, or forgotten."""
    silent = threading.Event()
    sound = Store.get_range

    def stuck(*a: object):
        if silent.is_set():
            assert over.wait(60)
        return sound(*a)

    monkeypatch.setattr(Store, "get_range", stuck)
    for closes in (True, False):
        silent.clear()
        over = threading.Event()
        loader = DataLoader(
            replace(made.plan, handles=HANDLES[:1]), batch_size=1, options=NARROW, transform_ahead=1
        )
        batches = iter(loader)
        next(batches)
        silent.set()
        next(batches)
        assert makers()
        threading.Timer(0.3, over.set).start()
        if closes:
            loader.close()
            assert not makers()
        else:
            del loader, batches
            gc.collect()
            wait_until(lambda: not makers(), "the thread ends")


def makers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "tensorbank-transform" and t not in OF_OTHERS]


@pytest.mark.parametrize("n", [0, 2])
def test_a_batch_whose_transform_failed_comes_again(made, n):
    fails = [True]

    def once(batch):
        if fails and fails.pop():
            raise ZeroDivisionError
        return batch

    with DataLoader(made.plan, batch_size=4, shuffle=None, transform=once, transform_ahead=n) as loader:
        with pytest.raises(ZeroDivisionError):
            next(iter(loader))
        assert [name for batch in loader for name in ids(batch)] == made.plan.table["sample_id"].to_pylist()
