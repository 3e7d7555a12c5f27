"""Blocks: round trips, and every way a stored block can be wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.blosc import Blosc

from tensorbank import Band, IntegrityError, InvalidInputError, Modality
from tensorbank.reading.codec import PROFILES, codec_for, crc32c, decode_block, decode_run

M = Modality("M", "int16", (Band("a"),), 1, 24, 20)
PIXELS = np.arange(480, dtype=np.int16).reshape(24, 20)


LAND = np.cumsum(np.random.default_rng(3).integers(-40, 41, (132, 132)), axis=1).astype(np.int16)
"""Pixels that vary slowly along x, as a band at its own resolution does."""


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dtype", ["int16", "float16", "uint8", "float32", "int32"])
@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("side", [(24, 20), (24, 19), (1, 20), (3, 1)])
def test_round_trip_into_a_given_buffer(profile, dtype, factor, side):
    height, width = side
    pixels = np.arange(height * width).reshape(side).repeat(factor, axis=1)
    m = Modality("M", dtype, (Band("a"),), 1, *pixels.shape)
    block = pixels.astype(dtype)
    stored = codec_for(profile, m).encode(block)
    out = np.zeros_like(block)
    decode_block(memoryview(stored), out)
    np.testing.assert_array_equal(out, block)
    independent = np.frombuffer(Blosc().decode(stored[:-4]), dtype).reshape(pixels.shape)
    np.testing.assert_array_equal(independent, block)


def header(stored: bytes) -> tuple[str, str, int]:
    """Return codec, shuffle and typesize, as a Blosc buffer states them (README_CHUNK_FORMAT.rst of c-blosc)."""
    shuffle = {0: "noshuffle", 1: "shuffle", 4: "bitshuffle"}[stored[2] & 0b101]
    return {1: "lz4", 4: "zstd"}[stored[2] >> 5], shuffle, stored[3]


@pytest.mark.parametrize(
    ("profile", "fine", "doubled"),
    [
        ("balanced", ("lz4", "bitshuffle", 2), ("zstd", "shuffle", 4)),
        ("small", ("zstd", "bitshuffle", 2), ("zstd", "bitshuffle", 2)),
        ("hot", ("lz4", "shuffle", 2), ("lz4", "shuffle", 24)),
    ],
)
def test_pixels_in_equal_pairs_have_a_chain_of_their_own(profile, fine, doubled):
    m = Modality("M", "int16", (Band("a"),), 1, 264, 264)
    codec = codec_for(profile, m)
    coarse = LAND.repeat(2, axis=0).repeat(2, axis=1)
    assert header(codec.encode(np.tile(LAND, (2, 2)))) == fine
    stored = codec.encode(coarse)
    assert header(stored) == doubled
    assert header(codec.encode(np.roll(coarse, 1, axis=1))) == fine  # the pairs begin at odd pixels
    assert len(stored) <= len(replace(codec, doubled=None).encode(coarse))


@pytest.mark.parametrize(
    ("width", "typesize"), [(264, 24), (224, 32), (256, 32), (120, 24), (12, 24), (2, 4), (6, 12), (26, 4)]
)
def test_a_row_holds_whole_units_of_whole_pairs(width, typesize):
    m = Modality("M", "int16", (Band("a"),), 1, 16, width)
    found = codec_for("hot", m).doubled
    assert found is not None
    assert found.typesize == typesize


def test_classes_are_searched_for_runs():
    classes = Modality("M", "uint8", (Band("a"),), 1, 24, 20, classes=((0, "none"), (1, "some")))
    picture = Modality("M", "uint8", (Band("a"),), 1, 24, 20)
    block = PIXELS.astype(np.uint8) // 16
    assert header(codec_for("balanced", classes).encode(block))[1] != "bitshuffle"
    assert header(codec_for("balanced", picture).encode(block))[1] == "bitshuffle"


@given(st.lists(st.integers(0, 2**15 - 1), min_size=1, max_size=6))
def test_a_run_is_decoded_block_by_block(seeds):
    codec = codec_for("balanced", M)
    pixels = [np.random.default_rng(s).integers(0, s + 2, (24, 20)).astype(np.int16) for s in seeds]
    run = memoryview(b"".join(map(codec.encode, pixels)))
    outs = np.empty((len(seeds) + 1, 24, 20), np.int16)
    decode_run(run, outs[:-1])
    np.testing.assert_array_equal(outs[:-1], pixels)
    for data, n in ((run, len(seeds) + 1), (run, len(seeds) - 1), (run[:-1], len(seeds)), (run[1:], 1)):
        with pytest.raises(IntegrityError):
            decode_run(data, outs[:n])


def test_a_block_may_take_what_the_one_before_it_left():
    """Outs are asked for one by one: a buffer that is emptied in between serves all."""
    codec = codec_for("balanced", M)
    scratch, seen = np.empty((24, 20), np.int16), []

    def outs():
        for _ in range(3):
            yield scratch
            seen.append(scratch.copy())

    decode_run(memoryview(b"".join(codec.encode(PIXELS + np.int16(i)) for i in range(3))), outs())
    np.testing.assert_array_equal(seen, [PIXELS, PIXELS + 1, PIXELS + 2])


def test_a_hole_is_no_block():
    with pytest.raises(IntegrityError, match="not a block"):
        decode_run(memoryview(bytes(64)), np.empty((1, 24, 20), np.int16))


@given(st.integers(0), st.integers(0, 7))
def test_any_flipped_bit_is_noticed(position, bit):
    stored = bytearray(codec_for("balanced", M).encode(PIXELS))
    stored[position % len(stored)] ^= 1 << bit
    with pytest.raises(IntegrityError):
        decode_block(memoryview(bytes(stored)), np.empty_like(PIXELS))


def test_a_block_of_another_size_is_refused():
    stored = codec_for("balanced", M).encode(PIXELS)
    with pytest.raises(IntegrityError, match="960"):
        decode_block(memoryview(stored), np.empty((10, 10), np.int16))


def test_crc32c_is_castagnoli():
    assert crc32c(b"123456789") == 0xE3069283  # check value of the CRC catalogue


def test_an_unknown_profile_has_a_nearest_name():
    with pytest.raises(InvalidInputError, match="'balanced'"):
        codec_for("balance", M)


def test_importing_changes_nothing_in_numcodecs():
    """Blosc's threads are a setting of the user's whole process."""
    code = (
        "from numcodecs import blosc\n"
        "for there in (None, True, False):\n"
        "    blosc.use_threads = there\n"
        "    import tensorbank.bank, tensorbank.reading, tensorbank.verification\n"
        "    import tensorbank_indexer.ingestion, tensorbank_demo.landscape\n"
        "    assert blosc.use_threads is there\n"
        "    print('left alone')\n"
        "    import sys\n"
        "    for name in [n for n in sys.modules if n.startswith('tensorbank')]:\n"
        "        del sys.modules[name]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines() == ["left alone"] * 3, done.stderr
