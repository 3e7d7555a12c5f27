"""Copies to the device. The logic of the side stream is tested with stand-ins for streams, which need no GPU."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tensorbank import IntegrityError
from tensorbank_loader import DataLoader, FetchOptions, device

sys.path.insert(0, str(Path(__file__).parent))
from handmade import make

sys.path.pop(0)

N = 23


class FakeStream:
    """Notes what a stream would be told."""

    def __init__(self, *_: object) -> None:
        self.waited: list[object] = []

    def record_event(self) -> object:
        return object()

    def wait_event(self, event: object) -> None:
        self.waited.append(event)


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeStream:
    current = FakeStream()
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: current)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    monkeypatch.setattr(device, "_moved", lambda batch, _: batch)
    empty = torch.empty

    def pageable(*shape: object, **options: object) -> torch.Tensor:
        return empty(*shape, **{**options, "pin_memory": False})

    monkeypatch.setattr(torch, "empty", pageable)
    return current


@pytest.mark.parametrize("options", [None, FetchOptions(max_inflight_bytes=0)], ids=["wide", "narrow"])
def test_batches_keep_their_order_and_each_waits_for_its_copy(tmp_path, fake_cuda, options):
    made = make(tmp_path, N)
    order = made.plan.table["sample_id"].to_pylist()
    loader = DataLoader(made.plan, batch_size=4, shuffle=False, device="cuda", options=options)
    states = [(batch["sample_id"], loader.state_dict()["position"]) for batch in loader]
    assert states == [(order[i * 4 : i * 4 + 4], i + 1) for i in range(6)]
    assert len(fake_cuda.waited) == len(set(map(id, fake_cuda.waited))) == 6


def test_an_error_of_the_next_batch_does_not_hold_back_this_one(tmp_path, fake_cuda):
    made = make(tmp_path, N)
    path = made.path_of("S2", 9)
    body = bytearray(path.read_bytes())
    body[int(made.plan.addresses["S2"].starts[9, 0]) + 40] ^= 1
    path.write_bytes(body)
    loader = DataLoader(made.plan, batch_size=4, shuffle=False, device="cuda")
    batches = iter(loader)
    for _ in range(2):
        next(batches)
    with pytest.raises(IntegrityError):
        next(batches)
    assert loader.state_dict()["position"] == 2


def test_another_device_gets_tensors_masks_and_numbers(tmp_path):
    made = make(tmp_path, N)
    for batch in DataLoader(made.plan, batch_size=4, device="meta"):
        moved = [batch["S2"], batch["mask"]["series"], batch["count"]]
        assert {t.device.type for t in moved} == {"meta"}
        assert isinstance(batch["sample_id"], list)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_every_pixel_arrives(tmp_path):
    made = make(tmp_path, N)
    at = {name: i for i, name in enumerate(made.plan.table["sample_id"].to_pylist())}
    with DataLoader(made.plan, batch_size=4, device="cuda") as loader:
        for _ in range(20):
            for batch in loader:
                expected = torch.from_numpy(made.truth["S2"][[at[i] for i in batch["sample_id"]]][:, 0])
                assert batch["S2"].device.type == "cuda"
                assert torch.equal(batch["S2"].cpu(), expected)
