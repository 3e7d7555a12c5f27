"""Own shards opened by three independent readers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import xarray
import zarr

from tensorbank import Band, InvalidInputError, Modality
from tensorbank.layout import array_document, group_document
from tensorbank.reading import ShardAssembler
from tensorbank.reading.codec import PROFILES, codec_for, crc32c

N_SAMPLES, PER_SHARD = 5, 4


def modality(dtype: str, bands: int = 3, times: int = 2) -> Modality:
    return Modality("M", dtype, tuple(Band(f"b{i}") for i in range(bands)), times, 16, 12)


def write(root: Path, m: Modality, pixels: dict[int, np.ndarray], profile: str) -> None:
    codec = codec_for(profile, m)
    (root / "M").mkdir(parents=True)
    document = array_document(
        m, [m], n_samples=N_SAMPLES, samples_per_shard=PER_SHARD, blosc=codec.configuration(), attributes={}
    )
    (root / "M" / "zarr.json").write_text(json.dumps(document))
    (root / "zarr.json").write_text(json.dumps(group_document({}, {"M": document})))
    for shard in range(2):
        assembler = ShardAssembler(PER_SHARD, m.n_blocks)
        for i, sample in pixels.items():
            if i // PER_SHARD == shard:
                assembler.add(i % PER_SHARD, [codec.encode(b) for t in sample for b in t])
        if not assembler.empty:
            path = root / "M" / "c" / str(shard) / "0/0/0/0"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"".join(assembler.finish()))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dtype", ["int16", "float16", "uint8", "float32"])
def test_every_reader_sees_what_was_written(tmp_path, dtype, profile):
    rng = np.random.default_rng(1)
    m = modality(dtype)
    expected = np.full((N_SAMPLES, *m.sample_shape), m.fill_value, dtype)
    for i in (0, 2, 4):  # 1 and 3 lack the modality
        expected[i] = rng.integers(0, 200, m.sample_shape).astype(dtype)
    expected[4] = expected[4, ..., ::2].repeat(2, axis=-1)  # blocks of another chain than the document states
    write(tmp_path, m, {i: expected[i] for i in (4, 2, 0)}, profile)

    np.testing.assert_array_equal(zarr.open_group(tmp_path, mode="r")["M"][:], expected)
    dataset = xarray.open_zarr(tmp_path, consolidated=True, mask_and_scale=False)
    np.testing.assert_array_equal(dataset["M"].values, expected)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / "M")}}
    np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), expected)


def test_every_reader_refuses_a_flipped_bit(tmp_path):
    m = modality("int16")
    pixels = np.random.default_rng(2).integers(0, 99, m.sample_shape).astype("int16")
    write(tmp_path, m, {0: pixels}, "balanced")
    path = tmp_path / "M/c/0/0/0/0/0"
    data = bytearray(path.read_bytes())
    data[40] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"(?i)checksum|crc"):
        zarr.open_group(tmp_path, mode="r")["M"][0]
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / "M")}}
    with pytest.raises(ValueError, match=r"(?i)checksum|crc|DATA_LOSS"):
        tensorstore.open(spec).result()[0].read().result()


def test_a_sample_is_one_run_and_the_index_says_so():
    assembler = ShardAssembler(4, 2)
    assert assembler.add(2, [b"aaa", b"bb"]) == (0, 5)
    assert assembler.add(0, [b"c", b"dddd"]) == (5, 10)
    data = b"".join(assembler.finish())
    index = data[10:-4]
    assert struct.unpack("<I", data[-4:])[0] == crc32c(index)
    pairs = np.frombuffer(index, "<u8").reshape(4, 2, 2)
    assert pairs[2].tolist() == [[0, 3], [3, 2]]
    assert pairs[0].tolist() == [[5, 1], [6, 4]]
    assert (pairs[[1, 3]] == 2**64 - 1).all()


def test_a_slot_is_filled_once_with_the_right_number_of_blocks():
    assembler = ShardAssembler(2, 2)
    assembler.add(0, [b"a", b"b"])
    for slot, blocks in ((0, [b"a", b"b"]), (1, [b"a"])):
        with pytest.raises(InvalidInputError):
            assembler.add(slot, blocks)
