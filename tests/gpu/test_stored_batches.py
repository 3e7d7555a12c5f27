"""Stored blocks of banks, read undecoded and decoded through streams, against the loader and against what was written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tensorbank as tb
from support.array_source import Made, array_bank
from support.handmade import HANDLES, Handmade, check, make, modality
from tensorbank import IntegrityError, InvalidInputError, NotFoundError
from tensorbank.errors import ErrorKind
from tensorbank.fetch import FetchOptions
from tensorbank.plans.handle import Handle
from tensorbank.reading import SampleReader
from tensorbank.reading.codec import PROFILES
from tensorbank.storage.store import Store
from tensorbank_gpu import CpuStreams, StoredBatch, StoredReader, decode_on_device, decode_on_host
from tensorbank_indexer import IngestOptions, ingest, open_source

CPU = torch.device("cpu")
N = 23
DTYPES = ("uint8", "int8", "int16", "uint16", "float16", "int32", "uint32", "float32", "int64", "float64")
OF_DTYPES = tuple(Handle(dtype, modality(dtype, dtype, 3), (2, 0)) for dtype in DTYPES)


def by_streams(batch: StoredBatch) -> dict[str, torch.Tensor]:
    return decode_on_device(batch, CPU, CpuStreams())


def by_blosc(batch: StoredBatch) -> dict[str, torch.Tensor]:
    with ThreadPoolExecutor(2) as threads:
        return decode_on_host(batch, CPU, threads)


Way = Callable[[StoredBatch], dict[str, torch.Tensor]]
WAYS = pytest.mark.parametrize("way", [by_streams, by_blosc], ids=["streams", "blosc"])


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), N)


@WAYS
@pytest.mark.parametrize(
    "options",
    [
        FetchOptions(),
        FetchOptions(max_gap_bytes=0, max_amplification=1.0, max_read_bytes=1, n_threads=1),
        FetchOptions(max_gap_bytes=1 << 30, max_amplification=1e9, max_read_bytes=1 << 30),
    ],
    ids=["default", "block-by-block", "whole-shard"],
)
def test_every_tensor_is_the_truth(made, options, way):
    """Missing samples, samples that come twice, bands in another order, several dates, handles that share blocks."""
    with closing(StoredReader.of(made.plan, options)) as reader:
        for positions in ([4], list(range(N)), [3, 3, 22, 0, 3], list(range(N))[::-1]):
            check(arrays(way(reader.read(positions))), made.truth, np.array(positions))


@WAYS
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_and_dtype(tmp_path, profile, way):
    made = make(tmp_path, 9, handles=OF_DTYPES, profile=profile)
    with closing(StoredReader.of(made.plan)) as reader:
        tensors = way(reader.read(range(9)))
        check(arrays(tensors), made.truth, np.arange(9))
    assert [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()] == list(DTYPES)


@WAYS
def test_wide_pixels_lie_behind_an_odd_number_of_bytes(tmp_path, way):
    """Three pixels of one byte come first in the scratch buffer, and wide ones behind them as they are stored."""
    small = replace(modality("small", "uint8", 1), height=1, width=3)
    wide = replace(modality("wide", "float64", 1), height=1, width=3)
    handles = (Handle("small", small, (0,)), Handle("wide", wide, (0,)))
    made = make(tmp_path, 3, handles=handles, profile="raw")
    with closing(StoredReader.of(made.plan)) as reader:
        check(arrays(way(reader.read(range(3)))), made.truth, np.arange(3))


@WAYS
def test_nothing_and_what_is_missing_altogether(made, way):
    lacking = np.flatnonzero(made.plan.addresses["LULC"].shard_of < 0)
    assert len(lacking) == 2
    with closing(StoredReader.of(made.plan)) as reader:
        for positions in (np.zeros(0, np.int64), lacking):
            batch = reader.read(positions)
            check(arrays(way(batch)), made.truth, positions)
    assert batch.regions[4][0] == 0
    assert not batch.masks["LULC"].any()
    assert batch.masks["S2"].all()


def test_what_stands_in_its_place_is_not_moved_again(made):
    """Whole samples, each once and in order: the region is the tensor."""
    addresses = made.plan.addresses
    a, b, c = np.flatnonzero(np.all([addresses[h.name].shard_of >= 0 for h in HANDLES], axis=0))[:3]
    with closing(StoredReader.of(made.plan)) as reader:
        batch, twice = reader.read([b, a, c]), reader.read([b, b, c])
    assert [p.is_region for p in batch.layout.placements] == [True] * len(HANDLES)
    assert [p.is_region for p in twice.layout.placements] == [False] * len(HANDLES)
    assert twice.n_bytes == batch.n_bytes * 2 // 3


# ---------------------------------------------------------------- banks

PIXELS = {
    "land": np.cumsum(np.random.default_rng(1).integers(-40, 41, (1, 3, 66, 66)), axis=3).astype(np.int16),
    "radar": np.random.default_rng(2).normal(size=(1, 2, 66, 66)).astype(np.float32),
    "classes": (np.arange(66 * 66).reshape(1, 1, 66, 66) // 700).astype(np.uint8),
}
PIXELS["coarse"] = PIXELS["land"][:, :2, :33, :33].repeat(2, axis=2).repeat(2, axis=3)
BANDS = {name: [f"b{i}" for i in range(pixels.shape[1])] for name, pixels in PIXELS.items()}


@pytest.mark.parametrize("profile", PROFILES)
def test_an_ingested_bank_comes_as_the_loader_delivers_it(tmp_path, profile):
    """Bands whose pixels stand in pairs have another chain than those beside them."""
    samples = {
        f"s{i}": Made(
            {
                m: pixels + np.asarray(i, pixels.dtype)
                for m, pixels in PIXELS.items()
                if i != 3 or m != "radar"
            }
        )
        for i in range(6)
    }
    bank = array_bank(tmp_path, "t", samples, BANDS, profile=profile)
    plan = bank.sql("SELECT sample_id, land, radar, classes, coarse FROM t").plan()
    with plan.dataloader(batch_size=6, shuffle=False) as loader:
        (delivered,) = loader
    with closing(StoredReader.of(plan)) as reader:
        batch = reader.read(range(6))
    tensors = by_streams(batch)
    assert sorted(tensors) == sorted(PIXELS)
    np.testing.assert_equal(
        {name: t.squeeze(1).numpy() for name, t in tensors.items()},
        {name: delivered[name].numpy() for name in tensors},
    )
    assert [t.dtype for t in tensors.values()] == [delivered[name].dtype for name in tensors]
    streams = batch.streams()
    kinds = {"balanced": (True, True), "small": (False, True), "hot": (True, False), "raw": (False, False)}
    assert (len(streams.lz4) > 0, len(streams.zstd) > 0) == kinds[profile]
    assert (len(streams.copies) == len(batch.layout.rows)) == (profile == "raw")


@pytest.fixture(scope="module")
def tiles(make_archives, tmp_path_factory):
    source, _ = make_archives("ssl4eo-wds", "--locations", "6", "--per-tar", "3", "--split", "val")
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    ingest(open_source(str(source)), bank, "t", IngestOptions(n_workers=1, samples_per_shard=4))
    return bank


@WAYS
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT S2L2A, bands(S1GRD, ['vh']) AS S1GRD, DEM FROM t",
        "SELECT bands(S2L2A, ['B08', 'B02']) AS S2L2A FROM t.tiles WHERE y0 < 100 ORDER BY sample_id, tile",
    ],
    ids=["samples-of-dates", "tiles"],
)
@pytest.mark.parametrize("by_date", [False, True])
def test_real_patches_come_as_the_reader_delivers_them(tiles, sql, by_date, way):
    plan = tiles.sql(sql).plan(by_date=by_date)
    at = np.arange(min(len(plan), 40))[::-1]
    with closing(SampleReader.of(plan)) as reader, closing(StoredReader.of(plan)) as stored:
        out = {h.name: np.empty((len(at), *h.shape), h.modality.dtype) for h in plan.handles}
        masks = reader.read_into(at, out)
        batch = stored.read(at)
    found = way(batch)
    assert len(found) == len(out) > 0
    for name, expected in out.items():
        np.testing.assert_array_equal(found[name].numpy(), expected)
        np.testing.assert_array_equal(batch.masks[name], masks[name])


# ---------------------------------------------------------------- reading ahead


@pytest.mark.parametrize("n_ahead", [1, 3])
def test_batches_come_in_order_and_few_are_asked_for_ahead(made, n_ahead):
    order = np.random.default_rng(4).permutation(N)
    taken: list[int] = []

    def batches():
        for number in range(6):
            taken.append(number)
            yield order[number * 4 : number * 4 + 4]

    with closing(StoredReader.of(made.plan)) as reader:
        for number, batch in enumerate(reader.stream(batches(), n_ahead=n_ahead)):
            check(arrays(by_streams(batch)), made.truth, order[number * 4 : number * 4 + 4])
            assert len(taken) == min(number + n_ahead + 1, 6)
    assert taken == list(range(6))


def test_an_error_comes_at_its_batch_and_a_stream_can_be_left(made):
    with closing(StoredReader.of(made.plan)) as reader:
        stream = reader.stream([[0], [N], [1]])
        check(arrays(by_streams(next(stream))), made.truth, np.array([0]))
        with pytest.raises(InvalidInputError, match="positions"):
            next(stream)
        with closing(reader.stream([[p] for p in range(N)])) as left:
            check(arrays(by_blosc(next(left))), made.truth, np.array([0]))
        check(arrays(by_streams(reader.read([2]))), made.truth, np.array([2]))
        with pytest.raises(InvalidInputError, match="n_ahead"):
            next(reader.stream([[0]], n_ahead=0))
    assert not [t for t in threading.enumerate() if t.name.startswith("tensorbank-stored")]


# ---------------------------------------------------------------- damage


def test_what_is_damaged_is_named(tmp_path):
    made = make(tmp_path, N)
    path, start = made.path_of("S2", 6), int(made.plan.addresses["S2"].starts[6, 0])
    body = bytearray(path.read_bytes())
    body[start + 40] ^= 1
    path.write_bytes(body)
    with closing(StoredReader.of(made.plan)) as reader:
        with pytest.raises(IntegrityError, match=f"{path.name}.* is damaged in bytes .{start}, .*checksum"):
            reader.read(range(N))
        assert reader.fetcher.stats.refetches == 9
        healthy = np.array([p for p in range(N) if p != 6])
        check(arrays(by_streams(reader.read(healthy))), made.truth, healthy)


def test_a_fault_on_the_way_is_read_again(made, monkeypatch):
    sound = Store.get_range
    asked = []

    def flaky(self: Store, key: str, start: int, end: int) -> memoryview:
        asked.append(key)
        data = bytearray(sound(self, key, start, end))
        if len(asked) == 1:
            data[30] ^= 1
        return memoryview(bytes(data))

    monkeypatch.setattr(Store, "get_range", flaky)
    with closing(StoredReader.of(made.plan, FetchOptions(n_threads=1))) as reader:
        check(arrays(by_streams(reader.read([0, 1]))), made.truth, np.array([0, 1]))
        assert reader.fetcher.stats.refetches == 1


def test_what_is_gone_is_said(tmp_path: Path):
    made = make(tmp_path, N)
    made.path_of("S2", 0).unlink()
    with closing(StoredReader.of(made.plan)) as reader, pytest.raises(NotFoundError):
        reader.read([0])


def test_a_block_of_another_size_is_refused(made):
    """Blocks of another modality, in a plan that says that they are its own."""
    taller = Handle("S2", modality("S2", "int32", 4), HANDLES[0].bands)
    other = make(made.folder.parent / "other", N, handles=(HANDLES[0],))
    addresses = type(other.plan.addresses)([taller], other.plan.addresses.by_handle, N)
    with closing(StoredReader(addresses, StoredReader.of(other.plan).fetcher)) as reader:
        batch = reader.read([0])
    with pytest.raises(IntegrityError, match="another number of bytes") as caught:
        by_streams(batch)
    assert caught.value.kind is ErrorKind.INTEGRITY
    with pytest.raises(IntegrityError, match="decodes to"):
        by_blosc(batch)


def test_what_a_reader_cannot_do_is_refused(made):
    with pytest.raises(InvalidInputError, match="on_error"):
        StoredReader.of(made.plan, FetchOptions(on_error="skip"))
    with closing(StoredReader.of(made.plan)) as reader, pytest.raises(InvalidInputError, match=r"\[0, 23\)"):
        reader.read([23])
