"""Blocks: round trips, and every way a stored block can be wrong."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.blosc import Blosc

from tensorbank import Band, IntegrityError, InvalidInputError, Modality
from tensorbank.reading.codec import PROFILES, codec_for, crc32c, decode_block, decode_run

M = Modality("M", "int16", (Band("a"),), 1, 24, 20)
PIXELS = np.arange(480, dtype=np.int16).reshape(24, 20)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dtype", ["int16", "float16", "uint8", "float32", "int32"])
def test_round_trip_into_a_given_buffer(profile, dtype):
    m = Modality("M", dtype, (Band("a"),), 1, 24, 20)
    block = PIXELS.astype(dtype)
    stored = codec_for(profile, m).encode(block)
    out = np.zeros_like(block)
    decode_block(memoryview(stored), out)
    np.testing.assert_array_equal(out, block)
    independent = np.frombuffer(Blosc().decode(stored[:-4]), dtype).reshape(24, 20)
    np.testing.assert_array_equal(independent, block)


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
