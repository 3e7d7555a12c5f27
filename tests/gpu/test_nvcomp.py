"""The arguments of nvCOMP, as far as a machine without a GPU can tell: a stand-in follows the addresses, and the library itself
is asked what it answers without a device.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from numcodecs import blosc, lz4, zstd

from support.blosc_blocks import decoded, stored_block, streams_of, values
from tensorbank import IntegrityError, InvalidInputError
from tensorbank.errors import ErrorKind
from tensorbank_gpu import NvcompStreams, decode_blocks
from tensorbank_gpu.frames import Codec
from tensorbank_gpu.nvcomp_library import DeviceStreams, NvcompLibrary

N_BYTES = 4096


def at(address: int, n: int, kind: Any = ctypes.c_int64) -> np.ndarray:
    return np.ctypeslib.as_array((kind * n).from_address(address))


class StandIn:
    """The calls of nvCOMP on the memory of the host: every address is followed, as a GPU would."""

    def __init__(self, fails: int | None = None, short: int | None = None) -> None:
        self.fails, self.short = fails, short
        self.asked: list[tuple[int, int, int, int]] = []

    def temp_bytes(self, codec: Codec, n: int, largest_bytes: int, total_bytes: int) -> int:
        self.asked.append((codec, n, largest_bytes, total_bytes))
        return 16

    def decompress(self, codec: Codec, streams: DeviceStreams, cuda_stream: int) -> None:
        assert (cuda_stream, streams.temp_bytes) == (0, 16)
        n = streams.n
        at(streams.temp, 16, ctypes.c_uint8)[:] = 255
        found, statuses = at(streams.found_bytes, n), at(streams.statuses, n, ctypes.c_int32)
        sources, sizes = at(streams.sources, n), at(streams.source_bytes, n)
        dests, rooms = at(streams.dests, n), at(streams.dest_bytes, n)
        for i in range(n):
            source = bytes(at(int(sources[i]), int(sizes[i]), ctypes.c_uint8))
            if codec == Codec.LZ4:
                pixels = lz4.decompress(int(rooms[i]).to_bytes(4, "little") + source)
            else:
                pixels = zstd.decompress(source)
            at(int(dests[i]), len(pixels), ctypes.c_uint8)[:] = np.frombuffer(pixels, np.uint8)
            found[i] = len(pixels) - (i == self.short)
            statuses[i] = 12 if i == self.fails else 0


BLOCKS = [
    stored_block(values(N_BYTES, seed), cname, blosc.SHUFFLE, 2)
    for seed, cname in enumerate(("lz4", "zstd", "lz4hc"))
]


def test_addresses_and_sizes_are_those_of_the_streams():
    stored, batch = streams_of(BLOCKS, N_BYTES)
    calls = StandIn()
    (region,) = decode_blocks(torch.from_numpy(stored), batch, [(3, N_BYTES)], NvcompStreams(calls))
    np.testing.assert_array_equal(region.numpy(), decoded(BLOCKS, N_BYTES))
    np.testing.assert_array_equal(region.numpy(), [values(N_BYTES, seed) for seed in range(3)])
    assert calls.asked == [(Codec.LZ4, 4, N_BYTES // 2, 2 * N_BYTES), (Codec.ZSTD, 1, N_BYTES, N_BYTES)]


@pytest.mark.parametrize("fault", [{"fails": 0}, {"short": 0}], ids=["status", "size"])
def test_a_stream_that_does_not_decode_is_an_error(fault):
    stored, batch = streams_of(BLOCKS, N_BYTES)
    with pytest.raises(IntegrityError, match="2 of 5 streams"):
        decode_blocks(torch.from_numpy(stored), batch, [(3, N_BYTES)], NvcompStreams(StandIn(**fault)))


def test_nothing_is_asked_of_it_where_nothing_is_compressed():
    stored, batch = streams_of([stored_block(values(N_BYTES), "lz4", blosc.NOSHUFFLE, 1, level=0)], N_BYTES)
    calls = StandIn()
    (region,) = decode_blocks(torch.from_numpy(stored), batch, [(1, N_BYTES)], NvcompStreams(calls))
    np.testing.assert_array_equal(region.numpy(), [values(N_BYTES)])
    assert calls.asked == []


class Symbols:
    """A library whose functions note their arguments; ``version`` and ``input`` are what it says of itself."""

    def __init__(self, version: int = 6000, input_alignment: int = 1, status: int = 0) -> None:
        self.version, self.input_alignment, self.status = version, input_alignment, status
        self.called: dict[str, tuple[Any, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.called[name] = arguments
            if name == "nvcompGetProperties":
                arguments[0]._obj.version = self.version
            elif name.endswith("RequiredAlignments"):
                found = arguments[1]._obj
                found.input, found.output, found.temp = self.input_alignment, 1, 8
            else:
                return self.status
            return 0

        return call


@pytest.mark.parametrize(
    ("symbols", "reason"),
    [
        (Symbols(version=5001), "number 5001"),
        (Symbols(version=7000), "number 7000"),
        (Symbols(input_alignment=4), "lie anywhere"),
    ],
    ids=["older", "newer", "aligned"],
)
def test_another_library_is_refused(symbols, reason):
    with pytest.raises(InvalidInputError, match=reason) as caught:
        NvcompLibrary(symbols)
    assert caught.value.kind is ErrorKind.MISSING_PACKAGE


STREAMS = DeviceStreams(
    n=3,
    sources=0x10,
    source_bytes=0x20,
    dest_bytes=0x30,
    dests=0x40,
    found_bytes=0x50,
    statuses=0x60,
    temp=0x70,
    temp_bytes=8,
)


@pytest.mark.parametrize(("codec", "name"), [(Codec.LZ4, "LZ4"), (Codec.ZSTD, "Zstd")])
def test_arguments_stand_in_the_order_of_the_header(codec, name):
    """The headers are nvcomp/lz4.h and nvcomp/zstd.h of nvCOMP 6.0."""
    symbols = Symbols()
    NvcompLibrary(symbols).decompress(codec, STREAMS, 0x80)
    *before, options, statuses, stream = symbols.called[f"nvcompBatched{name}DecompressAsync"]
    assert [a.value for a in before] == [0x10, 0x20, 0x30, 0x50, 3, 0x70, 8, 0x40]
    assert (statuses.value, stream.value) == (0x60, 0x80)
    assert (ctypes.sizeof(options), bytes(options)) == (64, b"\x02" + bytes(63))


def test_a_call_that_fails_is_an_error():
    symbols = Symbols()
    library = NvcompLibrary(symbols)
    symbols.status = 1000
    with pytest.raises(InvalidInputError, match="DecompressAsync ends with status 1000") as caught:
        library.decompress(Codec.LZ4, STREAMS, 0)
    assert caught.value.kind is ErrorKind.NO_DEVICE


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nvidia.libnvcomp", None)
    with pytest.raises(InvalidInputError, match=r"tensorbank\[gpu\]") as caught:
        NvcompStreams.load()
    assert caught.value.kind is ErrorKind.MISSING_PACKAGE


def test_the_library_takes_what_it_is_given():
    """The extra, where it is installed: its version, that streams may lie anywhere, and the memory that it wants for a batch."""
    pytest.importorskip("nvidia.libnvcomp", reason="the extra gpu is not installed")
    library = NvcompLibrary.load()
    assert library.alignments(Codec.LZ4)[:2] == library.alignments(Codec.ZSTD)[:2] == (1, 1)
    assert library.temp_bytes(Codec.LZ4, 768, 69_696, 768 * 69_696) < 768 * 69_696
    wanted = library.temp_bytes(Codec.ZSTD, 384, 139_392, 384 * 139_392)
    assert 0 < wanted < 10 * 384 * 139_392
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInputError, match="DecompressAsync ends with status"):
            library.decompress(Codec.LZ4, STREAMS, 0)
