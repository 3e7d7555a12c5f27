"""The choice between device and host: by what was measured, and never for pixels that differ."""

from __future__ import annotations

import itertools
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from numcodecs import blosc

from support.blosc_blocks import sealed
from support.handmade import Handmade, check, make
from tensorbank import IntegrityError
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_gpu import (
    Choice,
    CpuStreams,
    MeasuredDecoder,
    Spans,
    StoredBatch,
    StoredReader,
    StreamBatch,
    Trial,
    Way,
    quicker,
)
from tensorbank_gpu.choice import N_TRIALS
from tensorbank_gpu.stored_layout import Placement, StoredLayout, StoredRuns

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), 9)


@pytest.fixture
def batch(made) -> StoredBatch:
    with closing(StoredReader.of(made.plan)) as reader:
        return reader.read(range(9))


class Streams(CpuStreams):
    """A decoder that counts its batches, does something wrong from one of them on, or fails."""

    def __init__(self, wrong_from: int | None = None, error: Exception | None = None) -> None:
        self.n, self.wrong_from, self.error = 0, wrong_from, error

    def decode(self, stored: torch.Tensor, batch: StreamBatch, scratch: torch.Tensor) -> None:
        self.n += 1
        if self.error is not None:
            raise self.error
        super().decode(stored, batch, scratch)
        if self.wrong_from is not None and self.n >= self.wrong_from:
            scratch[int(batch.lz4.dest_offsets[0])] ^= 1


def clock(device_s: float, host_s: float):
    """A clock that is read three times a batch."""
    steps = itertools.accumulate(itertools.cycle([1.0, device_s, host_s]))
    return lambda: next(steps)


@pytest.mark.parametrize(
    ("device_s", "host_s", "way"), [(0.2, 0.5, Way.DEVICE), (0.5, 0.2, Way.HOST)], ids=["device", "host"]
)
def test_the_quicker_way_stays(made, batch, device_s, host_s, way):
    streams = Streams()
    with closing(MeasuredDecoder(CPU, streams, clock=clock(device_s, host_s))) as decoder:
        for _ in range(N_TRIALS):
            assert decoder.choice is None
            check({n: t.numpy() for n, t in decoder.decode(batch).items()}, made.truth, np.arange(9))
        choice = decoder.choice
        assert choice is not None
        for _ in range(3):
            check({n: t.numpy() for n, t in decoder.decode(batch).items()}, made.truth, np.arange(9))
        assert streams.n == N_TRIALS + (3 if way is Way.DEVICE else 0)
        assert decoder.choice is choice
    assert choice.way is way
    assert (
        choice.reason
        == f"a batch takes {device_s * 1e3:.1f} ms on the device and {host_s * 1e3:.1f} ms on the host"
    )
    measured = [(round(t.device_s, 6), round(t.host_s, 6)) for t in choice.trials]
    assert measured == [(device_s, host_s)] * (N_TRIALS - 1), "the first one is not timed"


def test_the_median_decides():
    trials = [Trial(9.0, 2.0), Trial(1.0, 2.0), Trial(1.0, 2.0)]
    assert quicker(trials) == Choice(
        Way.DEVICE, "a batch takes 1000.0 ms on the device and 2000.0 ms on the host", tuple(trials)
    )
    assert quicker([Trial(1.0, 1.0)]).way is Way.HOST


@pytest.mark.parametrize("wrong_from", [1, 3])
def test_a_device_that_decodes_to_other_pixels_is_not_used(made, batch, wrong_from):
    streams = Streams(wrong_from=wrong_from)
    with closing(MeasuredDecoder(CPU, streams, clock=clock(0.1, 0.5))) as decoder:
        for _ in range(6):
            check({n: t.numpy() for n, t in decoder.decode(batch).items()}, made.truth, np.arange(9))
        assert decoder.choice == Choice(Way.HOST, "the device decodes to other pixels than the host")
    assert streams.n == wrong_from


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("out of memory"),
        InvalidInputError("status 1000", kind=ErrorKind.NO_DEVICE),
        IntegrityError("1 of 2"),
    ],
    ids=["torch", "nvcomp", "streams"],
)
def test_a_device_that_fails_is_not_used_again(made, batch, error):
    streams = Streams(error=error)
    with closing(MeasuredDecoder(CPU, streams)) as decoder:
        for _ in range(2):
            check({n: t.numpy() for n, t in decoder.decode(batch).items()}, made.truth, np.arange(9))
        assert decoder.choice is not None
        assert (decoder.choice.way, streams.n) == (Way.HOST, 1)
        assert str(error) in decoder.choice.reason


def test_blocks_of_a_codec_that_devices_do_not_decode_are_decoded_on_the_host(tmp_path: Path):
    """Only those: another batch may be of our own blocks."""
    made = make(tmp_path, 9, profile="hot")
    with closing(StoredReader.of(made.plan)) as reader:
        ours = reader.read(range(9))
    pixels = made.truth["S2"][0, 0]
    stored = b"".join(sealed(blosc.compress(band, b"zlib", 1, blosc.SHUFFLE)) for band in pixels)
    zero, four = np.array([0]), np.arange(4)
    runs = StoredRuns(Spans(zero, np.array([len(stored)])), zero, zero, zero, np.array([4]))
    whole = Placement((1, 1, *pixels.shape), 4, four, four, None)
    foreign = StoredBatch(
        torch.frombuffer(bytearray(stored), dtype=torch.uint8),
        StoredLayout(runs, np.zeros(4, np.int64), four, (whole,)),
        made.plan.handles[:1],
        {},
    )
    streams = Streams()
    with closing(MeasuredDecoder(CPU, streams)) as decoder:
        check({"S2": decoder.decode(foreign)["S2"].numpy()}, {"S2": made.truth["S2"]}, np.array([0]))
        assert (decoder.choice, streams.n) == (None, 0)
        decoder.decode(ours)
        assert streams.n == 1


def test_damage_is_an_error_whoever_decodes(batch):
    broken = StoredBatch(batch.data.clone(), batch.layout, batch.handles, batch.masks)
    broken.data[60] ^= 1
    with closing(MeasuredDecoder(CPU, Streams(error=IntegrityError("1 of 2")))) as decoder:
        with pytest.raises(IntegrityError, match="checksum of block"):
            decoder.decode(broken)
        assert decoder.choice is None


def test_without_a_gpu_the_host_decodes_and_says_so(made, batch):
    with closing(MeasuredDecoder.open(CPU)) as decoder:
        assert decoder.choice == Choice(Way.HOST, "cpu is no GPU that nvCOMP works on")
        check({n: t.numpy() for n, t in decoder.decode(batch).items()}, made.truth, np.arange(9))
