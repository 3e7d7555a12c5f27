"""Copies to the device. Their order is tested with an accelerator whose copies run as late as they may, which needs no GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from support.handmade import make
from tensorbank import IntegrityError
from tensorbank_loader import DataLoader, FetchOptions, pipeline
from tensorbank_loader.device import N_COPIES_AHEAD, N_STEPS_AHEAD

N = 23


class LateEvent:
    def __init__(self, stream: LateStream, upto: int) -> None:
        self.stream, self.upto = stream, upto

    def query(self) -> bool:
        return self.stream.n_done >= self.upto

    def synchronize(self) -> None:
        self.stream.log.append("host waits")
        self.stream.run(self.upto)


class LateStream:
    """A stream whose work runs only when somebody waits for it:
    what is changed or freed too early is then seen."""

    def __init__(self, log: list[object]) -> None:
        self.log, self.work, self.n_done = log, [], 0

    def record_event(self) -> LateEvent:
        return LateEvent(self, len(self.work))

    def wait_event(self, event: LateEvent) -> None:
        self.log.append(("waits for", event))
        event.stream.run(event.upto)

    def run(self, upto: int) -> None:
        while self.n_done < upto:
            self.work[self.n_done]()
            self.n_done += 1


def late(tensor: torch.Tensor, into: torch.Tensor) -> Callable[[], None]:
    """A copy that holds no reference to its source, as the copy engine of a GPU does not."""
    address, n_bytes = tensor.data_ptr(), tensor.nbytes

    def copy() -> None:
        if n_bytes:
            ctypes.memmove(into.data_ptr(), address, n_bytes)

    return copy


class LateAccelerator:
    pins = False

    def __init__(self) -> None:
        self.log: list[object] = []
        self.consumer, self.side = LateStream(self.log), None
        self.kept: list[object] = []
        self.using_side = False

    def new_stream(self) -> LateStream:
        self.side = LateStream(self.log)
        return self.side

    def current_stream(self) -> LateStream:
        return self.consumer

    @contextmanager
    def using(self, stream: LateStream) -> Iterator[None]:
        assert stream is self.side
        self.using_side = True
        yield
        self.using_side = False

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        assert self.using_side
        into = torch.full_like(tensor, 77)
        if tensor.nbytes < 4096:  # numbers beside the pixels: copied at once, as out of pageable memory
            return into.copy_(tensor)
        self.side.work.append(late(tensor, into))
        return into

    def keep(self, tensor: torch.Tensor, stream: LateStream) -> None:
        assert stream is self.consumer
        self.kept.append(tensor)


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> LateAccelerator:
    fake = LateAccelerator()
    monkeypatch.setattr(pipeline, "accelerator_of", lambda _: fake)
    return fake


@pytest.mark.parametrize("options", [None, FetchOptions(max_inflight_bytes=0)], ids=["wide", "narrow"])
def test_every_pixel_arrives_and_batches_keep_their_order(tmp_path, accelerator, options):
    """Host memory is used again between batches, and copies run late: one that lost its source would show."""
    made = make(tmp_path, 200)
    order = made.plan.table["sample_id"].to_pylist()
    with DataLoader(made.plan, batch_size=8, shuffle=False, options=options) as batches:
        for epoch in range(2):
            at = 0
            for batch in batches:
                n = len(batch["sample_id"])
                assert batch["sample_id"] == order[at : at + n]
                np.testing.assert_array_equal(batch["S2"].numpy(), made.truth["S2"][at : at + n, 0])
                np.testing.assert_array_equal(batch["series"].numpy(), made.truth["series"][at : at + n])
                at += n
                assert at == 200 or batches.state_dict()["position"] == at // 8
            assert at == 200, epoch
    waits = [entry for entry in accelerator.log if entry != "host waits"]
    assert len(waits) == len(set(waits)) == 50, "each batch is waited for once, by an event of its own"


def test_a_batch_is_waited_for_by_the_consumers_stream_and_its_memory_kept_from_reuse(tmp_path, accelerator):
    made = make(tmp_path, 64)
    n = 0
    for batch in DataLoader(made.plan, batch_size=8, shuffle=False):
        kept = {id(t) for t in accelerator.kept}
        assert {id(batch["S2"]), id(batch["mask"]["series"]), id(batch["count"])} <= kept
        assert accelerator.log[-1][0] == "waits for", "the host is not what waits last"
        n += 1
    assert n == 8


def test_few_batches_are_copied_ahead(tmp_path, accelerator):
    made = make(tmp_path, 120)
    n_handles = len(made.plan.handles)
    ahead = [
        len(accelerator.side.work) - accelerator.side.n_done
        for _ in DataLoader(made.plan, batch_size=8, shuffle=False)
    ]
    assert len(ahead) == 15
    assert max(ahead) <= N_COPIES_AHEAD * n_handles
    assert len(accelerator.side.work) >= 15, "large tensors of every batch are work of the side stream"


def test_the_host_is_few_steps_ahead_of_the_device(tmp_path, accelerator):
    """A consumer that never waits for its work would else fill the device with batches that are still to be used."""
    made = make(tmp_path, 120)
    consumer = accelerator.consumer
    for _ in DataLoader(made.plan, batch_size=8, shuffle=False):
        consumer.work.append(lambda: None)
        assert len(consumer.work) - consumer.n_done <= N_STEPS_AHEAD + 1
    assert len(consumer.work) == 15
    assert consumer.n_done < len(consumer.work), "the host waited for the last step"


def test_an_epoch_left_in_the_middle_waits_for_its_copies(tmp_path, accelerator):
    made = make(tmp_path, 120)
    with DataLoader(made.plan, batch_size=8, shuffle=False) as batches:
        next(iter(batches))
    assert accelerator.side.n_done == len(accelerator.side.work)


def test_an_error_of_the_next_batch_does_not_hold_back_this_one(tmp_path, accelerator):
    made = make(tmp_path, N)
    path = made.path_of("S2", 9)
    body = bytearray(path.read_bytes())
    body[int(made.plan.addresses["S2"].starts[9, 0]) + 40] ^= 1
    path.write_bytes(body)
    batches = DataLoader(made.plan, batch_size=4, shuffle=False)
    running = iter(batches)
    for _ in range(2):
        next(running)
    with pytest.raises(IntegrityError):
        next(running)
    assert batches.state_dict()["position"] == 2


def test_another_device_gets_tensors_masks_and_numbers(tmp_path):
    made = make(tmp_path, N)
    batches = list(DataLoader(made.plan, batch_size=4, device="meta"))
    assert [len(batch["sample_id"]) for batch in batches] == [4, 4, 4, 4, 4, 3]
    for batch in batches:
        moved = [batch["S2"], batch["mask"]["series"], batch["count"]]
        assert {t.device.type for t in moved} == {"meta"}
        assert isinstance(batch["sample_id"], list)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_every_pixel_arrives(tmp_path):
    made = make(tmp_path, N)
    at = {name: i for i, name in enumerate(made.plan.table["sample_id"].to_pylist())}
    with DataLoader(made.plan, batch_size=4, device="cuda") as batches:
        for _ in range(20):
            seen = []
            for batch in batches:
                seen += batch["sample_id"]
                expected = torch.from_numpy(made.truth["S2"][[at[i] for i in batch["sample_id"]]][:, 0])
                assert batch["S2"].device.type == "cuda"
                assert torch.equal(batch["S2"].cpu(), expected)
            assert sorted(seen) == sorted(at)
