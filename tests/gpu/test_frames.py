"""Frames as batches of streams: what Blosc wrote comes back, and what nobody wrote is refused before it is decoded."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import blosc, lz4

from support.blosc_blocks import decoded, sealed, stored_block, streams_of, values
from tensorbank import FormatError, IntegrityError
from tensorbank.errors import ErrorKind
from tensorbank_gpu import Shuffle, Spans, walk_runs
from tensorbank_gpu.zstd_frames import UNKNOWN, content_bytes

CNAMES = ["lz4", "lz4hc", "zstd"]
SHUFFLES = [blosc.NOSHUFFLE, blosc.SHUFFLE, blosc.BITSHUFFLE]
N_BYTES = 2 * 24 * 20
"""The bytes of a block of 24 x 20 pixels of two bytes."""


@pytest.mark.parametrize("cname", CNAMES)
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("typesize", [1, 2, 3, 4, 8, 16, 17, 24, 32, 255])
def test_blocks_of_any_header_come_back(cname, shuffle, typesize):
    for n_bytes in (1, 7, 127, 128, 1000, 4096, 4097, 70_001):
        data = [values(n_bytes, seed, high) for seed, high in ((1, 4), (2, 256), (3, 2))]
        for block_bytes in (0, 128, 1000):
            blocks = [stored_block(d, cname, shuffle, typesize, block_bytes) for d in data]
            np.testing.assert_array_equal(decoded(blocks, n_bytes), data)


@given(
    st.integers(1, 5000),
    st.integers(1, 40),
    st.sampled_from(CNAMES),
    st.sampled_from(SHUFFLES),
    st.integers(0, 3000),
    st.integers(2, 256),
    st.integers(0, 9),
)
@settings(max_examples=200)
def test_any_block_comes_back(n_bytes, typesize, cname, shuffle, block_bytes, high, level):
    data = values(n_bytes, n_bytes, high)
    found = decoded([stored_block(data, cname, shuffle, typesize, block_bytes, level)], n_bytes)
    np.testing.assert_array_equal(found, [data])


def test_a_batch_is_arrays_of_places():
    """Two blocks that are split, one of one stream, one that is copied; those alike lie side by side in the scratch buffer."""
    data = [values(N_BYTES, seed) for seed in range(4)]
    blocks = [
        stored_block(data[0], "lz4hc", blosc.SHUFFLE, 2),
        stored_block(data[1], "zstd", blosc.BITSHUFFLE, 2),
        stored_block(data[2], "lz4", blosc.SHUFFLE, 2),
        stored_block(data[3], "lz4", blosc.NOSHUFFLE, 2, level=0),
    ]
    stored, batch = streams_of(blocks, N_BYTES)
    assert (len(batch.lz4), len(batch.zstd), len(batch.copies), batch.n_streams) == (4, 1, 1, 5)
    assert batch.lz4.dest_bytes.tolist() == [N_BYTES // 2] * 4
    assert batch.zstd.dest_bytes.tolist() == batch.copies.dest_bytes.tolist() == [N_BYTES]
    assert [(g.shuffle, g.typesize, g.rows.tolist(), g.start) for g in batch.groups] == [
        (Shuffle.NONE, 2, [3], 0),
        (Shuffle.BYTES, 2, [0, 2], N_BYTES),
        (Shuffle.BITS, 2, [1], 3 * N_BYTES),
    ]
    at = int(batch.copies.source_offsets[0])
    np.testing.assert_array_equal(stored[at : at + N_BYTES], data[3])
    covered = sorted(
        (a, a + n)
        for s in (batch.lz4, batch.zstd, batch.copies)
        for a, n in zip(s.dest_offsets.tolist(), s.dest_bytes.tolist(), strict=True)
    )
    assert covered[0][0] == 0
    assert [end for _, end in covered] == [start for start, _ in covered[1:]] + [batch.n_bytes]


def test_runs_are_walked_together():
    """A run is as long as it is, with bytes between them that belong to none, one of them empty."""
    blocks = [stored_block(values(N_BYTES, seed), "lz4", blosc.SHUFFLE, 2) for seed in range(5)]
    gap = b"\xff" * 7
    stored = np.frombuffer(gap + b"".join(blocks[:2]) + gap + b"".join(blocks[2:]) + gap, np.uint8)
    middle = 7 + len(blocks[0] + blocks[1])
    runs = Spans(np.array([7, 3, middle + 7]), np.array([middle, 3, len(stored) - 7]))
    found = walk_runs(stored, runs, np.array([2, 0, 3]))
    parts = [stored[a:b].tobytes() for a, b in zip(found.starts, found.ends, strict=True)]
    assert parts == [block[:-4] for block in blocks]


@pytest.mark.parametrize("n_blocks", [0, 1, 3])
def test_a_run_of_another_number_of_blocks_is_refused(n_blocks):
    blocks = [stored_block(values(N_BYTES), "lz4", blosc.SHUFFLE, 2)] * 2
    stored = np.frombuffer(b"".join(blocks), np.uint8)
    with pytest.raises(IntegrityError, match="run"):
        walk_runs(stored, Spans(np.array([0]), np.array([len(stored)])), np.array([n_blocks]))


def test_a_hole_is_no_block():
    with pytest.raises(IntegrityError, match="not a block"):
        walk_runs(np.zeros(64, np.uint8), Spans(np.array([0]), np.array([64])), np.array([1]))


def test_a_wrong_checksum_is_refused():
    block = bytearray(stored_block(values(N_BYTES), "lz4", blosc.SHUFFLE, 2))
    block[100] ^= 1
    with pytest.raises(IntegrityError, match="block 1 has another checksum"):
        decoded([stored_block(values(N_BYTES), "zstd", blosc.SHUFFLE, 2), bytes(block)], N_BYTES)


FRAMES = {
    "split": blosc.compress(values(N_BYTES), b"lz4", 5, blosc.SHUFFLE, N_BYTES, 2),
    "cut": blosc.compress(values(N_BYTES), b"lz4hc", 5, blosc.BITSHUFFLE, 260, 2),
    "zstd": blosc.compress(values(N_BYTES), b"zstd", 1, blosc.SHUFFLE, N_BYTES, 4),
    "copied": blosc.compress(values(N_BYTES, 0, 256), b"lz4", 0, blosc.NOSHUFFLE, N_BYTES, 2),
}
"""Frames whose checksums will be right whatever is in them: what follows is about a writer who means harm."""


def by_blosc(frame: bytes) -> np.ndarray | None:
    """Decode a frame by Blosc; None where it refuses."""
    out = np.zeros(N_BYTES, np.uint8)
    try:
        blosc.decompress(frame, out)
    except (RuntimeError, ValueError):
        return None
    return out


def by_streams(frame: bytes) -> np.ndarray | None:
    try:
        return decoded([sealed(frame)], N_BYTES)[0]
    except (IntegrityError, FormatError):
        return None


@pytest.mark.parametrize("name", FRAMES)
def test_each_value_of_each_byte_of_a_header_is_taken_as_blosc_takes_it(name):
    """Lengths are left as they are: Blosc believes that of the buffer, and reads behind its end."""
    frame = FRAMES[name]
    different = []
    for at in (*range(4), *range(8, 12)):
        for value in range(256):
            changed = bytearray(frame)
            changed[at] = value
            mine, blosc_s = by_streams(bytes(changed)), by_blosc(bytes(changed))
            if mine is not None and not np.array_equal(mine, blosc_s):
                different.append((at, value, "decoded otherwise"))
            if mine is None and blosc_s is not None and not _stricter(bytes(changed)):
                different.append((at, value, "refused"))
    assert different == []


def _stricter(frame: bytes) -> bool:
    """True for frames that Blosc reads and we refuse: of codecs for the CPU, or with bytes that it leaves undefined."""
    flags, typesize, block_bytes = frame[2], frame[3], int.from_bytes(frame[8:12], "little")
    return flags >> 5 not in (1, 4) or block_bytes % typesize != 0


@given(
    st.sampled_from(sorted(FRAMES)),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), min_size=1, max_size=4),
)
@settings(max_examples=500)
def test_damage_that_has_a_right_checksum_is_refused_or_decoded(name, changes):
    """Nothing but these errors, and no byte outside of the frame: neighbours that are there change nothing."""
    frame = bytearray(FRAMES[name])
    for at, value in changes:
        frame[at] = value
    alone = by_streams(bytes(frame))
    if int.from_bytes(frame[12:16], "little") != len(frame):
        assert alone is None
        return
    sound = sealed(FRAMES["split"])
    try:
        together = decoded([sound, sealed(bytes(frame)), sound], N_BYTES)
    except (IntegrityError, FormatError):
        assert alone is None
    else:
        np.testing.assert_array_equal(together, [values(N_BYTES), alone, values(N_BYTES)])


@pytest.mark.parametrize(
    ("name", "at", "value", "reason"),
    [
        ("split", 0, 3, "another version of Blosc"),
        ("split", 1, 2, "streams of another version"),
        ("split", 2, 0x21 | 0x08, "Blosc 1 does not know"),
        ("split", 3, 0, "elements of no bytes"),
        ("split", 5, 0, "another number of bytes"),
        ("split", 11, 0x7F, "impossible size"),
        ("split", 9, 0, "block"),
        ("copied", 6, 1, "another number of bytes"),
        ("split", 19, 0x7F, "starts after its end"),
        ("split", 23, 0x7F, "ends after its end"),
        ("split", 23, 0xFF, "ends after its end"),
    ],
)
def test_what_is_wrong_is_said(name, at, value, reason):
    frame = bytearray(FRAMES[name])
    frame[at] = value
    with pytest.raises(IntegrityError, match=reason) as caught:
        decoded([sealed(bytes(frame))], N_BYTES)
    assert caught.value.kind is ErrorKind.INTEGRITY


def test_no_stream_goes_into_what_is_behind_its_frame():
    """One byte too far is too far: there a checksum and another frame follow, which could be read."""
    stream = lz4.compress(values(N_BYTES))[4:]
    end = 24 + len(stream)

    def blocks(at: int, n: int) -> list[bytes]:
        head = struct.pack("<BBBBIII", 2, 1, 1 << 5 | 0x10, 1, N_BYTES, N_BYTES, end)
        return [sealed(head + struct.pack("<II", at, n) + stream), sealed(FRAMES["split"])]

    np.testing.assert_array_equal(decoded(blocks(20, len(stream)), N_BYTES), [values(N_BYTES)] * 2)
    with pytest.raises(IntegrityError, match="block 0 has a stream that ends after its end"):
        decoded(blocks(20, len(stream) + 1), N_BYTES)
    with pytest.raises(IntegrityError, match="block 0 has a stream that starts after its end"):
        decoded(blocks(end - 3, len(stream)), N_BYTES)


def test_a_frame_of_more_pieces_than_bytes_takes_no_memory():
    frame = bytearray(FRAMES["split"])
    frame[8:12] = struct.pack("<I", 1)
    with pytest.raises(IntegrityError, match="more pieces than it has bytes"):
        decoded([sealed(bytes(frame))], N_BYTES)


@pytest.mark.parametrize("cname", ["blosclz", "zlib"])
def test_other_codecs_are_for_the_cpu(cname):
    with pytest.raises(FormatError, match="codec number") as caught:
        decoded([stored_block(values(N_BYTES, high=1), cname, blosc.SHUFFLE, 2)], N_BYTES)
    assert caught.value.kind is ErrorKind.CODEC


# ------------------------------------------------------------------ zstd


def zstd_sizes(*frames: bytes) -> list[int]:
    ends = np.cumsum([len(f) for f in frames])
    starts = ends - [len(f) for f in frames]
    return content_bytes(np.frombuffer(b"".join(frames), np.uint8), Spans(starts, ends)).tolist()


@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 65_791, 65_792, 70_000, 300_000])
def test_the_size_that_a_zstd_frame_states_is_read(n):
    from numcodecs import zstd

    assert zstd_sizes(zstd.compress(values(n), 1), zstd.compress(values(n + 1), 3)) == [n, n + 1]


MAGIC = b"\x28\xb5\x2f\xfd"


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        (MAGIC + b"\x00\x58" + bytes(9), UNKNOWN),  # a window, and no size
        (MAGIC + b"\x20\x07", 7),
        (MAGIC + b"\x40\x58\x01\x00", 257),
        (MAGIC + b"\x61\xaa\x00\x01", 512),  # a dictionary of one byte in between
        (MAGIC + b"\xe0" + b"\xff" * 8, 2**63 - 1),
        (MAGIC + b"\xe0" + b"\xff" * 7, UNKNOWN),  # a byte is missing
        (MAGIC + b"\x28\x07", UNKNOWN),  # a reserved bit
        (b"\x27\xb5\x2f\xfd\x20\x07", UNKNOWN),
        (MAGIC, UNKNOWN),
        (b"", UNKNOWN),
    ],
)
def test_sizes_are_read_as_the_specification_says(frame, size):
    assert zstd_sizes(frame, MAGIC + b"\x20\x03") == [size, 3]


def frame_of_stream(stream: bytes) -> bytes:
    """A Blosc buffer of one zstd stream."""
    head = struct.pack("<BBBBIII", 2, 1, 4 << 5 | 0x10, 1, N_BYTES, N_BYTES, 24 + len(stream))
    return sealed(head + struct.pack("<II", 20, len(stream)) + stream)


def test_a_zstd_stream_must_fit_its_place():
    from numcodecs import zstd

    right = zstd.compress(values(N_BYTES), 1)
    np.testing.assert_array_equal(decoded([frame_of_stream(right)], N_BYTES), [values(N_BYTES)])
    for n in (N_BYTES - 1, N_BYTES + 1):
        with pytest.raises(IntegrityError, match="another size than its place"):
            decoded([frame_of_stream(zstd.compress(values(n), 1))], N_BYTES)
    with pytest.raises(FormatError, match="does not state its size") as caught:
        decoded([frame_of_stream(MAGIC + b"\x00\x58" + bytes(9))], N_BYTES)
    assert caught.value.kind is ErrorKind.CODEC
