"""The reader: every pixel as written, every damage named, whatever handles and positions are asked for."""

from __future__ import annotations

import itertools
import pickle
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.handmade import HANDLES, Handmade, check, make, modality, moved
from tensorbank import IntegrityError, InvalidInputError, NotFoundError, StorageError, StorageOptions
from tensorbank.fetch import FetchOptions, tries
from tensorbank.plans.handle import Handle
from tensorbank.reading.batch_in_progress import N_BAD_TRIES
from tensorbank.reading.codec import PROFILES
from tensorbank.reading.read_plan import plan_reads
from tensorbank.reading.sample_reader import SampleReader
from tensorbank.storage.store import Store

N = 23
OPTIONS = [
    FetchOptions(),
    FetchOptions(max_gap_bytes=0, max_amplification=1.0, max_read_bytes=1, n_threads=1),
    FetchOptions(max_gap_bytes=1 << 30, max_amplification=1e9, max_read_bytes=1 << 30),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), N)


@pytest.fixture
def own(tmp_path: Path) -> Handmade:
    """A part that the test may damage."""
    return make(tmp_path, N)


OF_OTHERS: set[threading.Thread] = set()  # threads of what tests of other modules have left open


@pytest.fixture(scope="module", autouse=True)
def _of_others():
    OF_OTHERS.update(threading.enumerate())


def close(reader: SampleReader) -> None:
    reader.close()
    assert not [t for t in set(threading.enumerate()) - OF_OTHERS if t.name.startswith("tensorbank-read")]


# -------------------------------------------------------- planning


@given(
    st.lists(st.integers(0, N - 1), min_size=1, max_size=40),
    st.integers(0, 2000),
    st.floats(1.0, 3.0),
    st.integers(1, 5000),
)
@settings(max_examples=60)
def test_every_run_is_in_one_read_and_reads_keep_their_limits(made, positions, gap, amplification, most):
    plan = made.plan
    options = FetchOptions(max_gap_bytes=gap, max_amplification=amplification, max_read_bytes=most)
    reads = plan_reads(plan.addresses, np.array(positions), options)
    expected = {
        (number, run, slot): (a.shard_keys[a.shard_of[p]], int(a.starts[p, run]), int(a.lengths[p, run]))
        for number, h in enumerate(plan.handles)
        for slot, p in enumerate(positions)
        for run in range(len(h.runs))
        if (a := plan.addresses[h.name]).shard_of[p] >= 0
    }
    pieces = [(p, read) for read in reads for p in read.pieces]
    assert sorted((p.handle, p.run, p.slot) for p, _ in pieces) == sorted(expected)
    for piece, read in pieces:
        key, start, length = expected[piece.handle, piece.run, piece.slot]
        assert (read.range.key, piece.start, piece.end - piece.start) == (key, start, length)
        assert read.range.start <= start
        assert start + length <= read.range.end
    spans = sorted((r.range.key, r.range.start, r.range.end) for r in reads)
    assert all(a[0] != b[0] or a[2] <= b[1] for a, b in itertools.pairwise(spans)), "reads overlap"
    for read in reads:
        covered = {at for p in read.pieces for at in range(p.start, p.end)}
        assert read.n_asked_bytes == len(covered)
        assert read.range.n_bytes <= amplification * len(covered) + 1e-6
        assert read.range.start == min(covered)
        assert read.range.end == max(covered) + 1


def test_a_sample_of_adjacent_blocks_is_one_request_a_modality(made):
    only = replace(made.plan, handles=(HANDLES[0],))
    assert len(plan_reads(only.addresses, np.array([7]), FetchOptions())) == 1


def test_nothing_to_read_is_no_read(made):
    assert len(plan_reads(made.plan.addresses, np.zeros(0, np.int64), FetchOptions())) == 0


# ---------------------------------------------------------- pixels


@pytest.mark.parametrize("options", OPTIONS, ids=["default", "block-by-block", "whole-shard"])
def test_every_tensor_is_the_truth(made, options):
    reader = SampleReader.of(made.plan, options)
    for positions in ([4], list(range(N)), [3, 3, 22, 0], list(range(N))[::-1]):
        check(reader.read(positions), made.truth, np.array(positions))
    close(reader)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_codec_profile(tmp_path, profile):
    made = make(tmp_path, 9, profile=profile)
    reader = SampleReader.of(made.plan)
    check(reader.read(range(9)), made.truth, np.arange(9))
    close(reader)


@given(st.permutations(range(6)), st.integers(1, 6), st.lists(st.integers(0, N - 1), min_size=1, max_size=9))
@settings(max_examples=40)
def test_any_choice_of_bands_in_any_order(tmp_path_factory, bands, n_bands, positions):
    handle = Handle("M", modality("S2L1C", "int16", 6), tuple(bands[:n_bands]))
    made = make(tmp_path_factory.mktemp("bands"), N, handles=(handle,))
    reader = SampleReader.of(made.plan, FetchOptions(n_threads=2))
    check(reader.read(positions), made.truth, np.array(positions))
    reader.close()


def test_what_a_sample_lacks_is_fill_value_and_masked(made):
    reader = SampleReader.of(made.plan)
    out = {h.name: np.ones((N, *h.shape), h.modality.dtype) for h in made.plan.handles}
    masks = reader.read_into(np.arange(N), out)
    absent = ~masks["series"]
    assert absent.sum() == 4
    assert np.isnan(out["series"][absent]).all()
    assert masks["S2"].all()
    assert (out["LULC"][~masks["LULC"]] == 0).all()
    close(reader)


def test_a_reader_travels_and_can_be_used_again_after_close(made):
    reader = SampleReader.of(made.plan)
    reader.read([0])
    asked = reader.stats.bytes_asked
    close(reader)
    check(reader.read([1]), made.truth, np.array([1]))
    assert reader.stats.bytes_asked > asked, "counts go on"
    copy = pickle.loads(pickle.dumps(reader))
    check(copy.read([2]), made.truth, np.array([2]))
    reader.close()
    close(copy)


def test_buffers_and_positions_are_checked(made):
    reader = SampleReader.of(made.plan)
    with pytest.raises(InvalidInputError, match=r"\[0, 23\)"):
        reader.read([0, 23])
    with pytest.raises(InvalidInputError, match="-1"):
        reader.read([-1])
    out = {h.name: np.empty((1, *h.shape), h.modality.dtype) for h in made.plan.handles}
    with pytest.raises(InvalidInputError, match="QA needs"):
        reader.submit(np.array([0]), {**out, "QA": out["QA"].astype(np.int32)})
    with pytest.raises(InvalidInputError, match="twice"):
        Handle("S2", HANDLES[0].modality, (0, 0))
    reader.close()


# ---------------------------------------------------------- damage


def flip(made: Handmade, handle: str, position: int, *, offset: int = 40) -> None:
    path = made.path_of(handle, position)
    body = bytearray(path.read_bytes())
    body[int(made.plan.addresses[handle].starts[position, 0]) + offset] ^= 1
    path.write_bytes(body)


@pytest.mark.parametrize("offset", [0, 4, 13, 40])
def test_a_flipped_bit_names_object_range_and_sample(own, offset):
    flip(own, "S2", 6, offset=offset)
    start = int(own.plan.addresses["S2"].starts[6, 0])
    key = own.plan.addresses["S2"].shard_keys[own.plan.addresses["S2"].shard_of[6]]
    reader = SampleReader.of(own.plan)
    with pytest.raises(IntegrityError) as caught:
        reader.read(range(N))
    for part in (key, str(start), own.plan.table["sample_id"][6].as_py(), "number 6"):
        assert part in str(caught.value)
    assert reader.stats.refetches == N_BAD_TRIES - 1
    healthy = np.array([p for p in range(N) if p != 6])
    check(reader.read(healthy), own.truth, healthy)
    close(reader)


def test_zeros_in_place_of_blocks_are_noticed(own):
    path = own.path_of("S2", 6)
    path.write_bytes(b"\0" * path.stat().st_size)
    reader = SampleReader.of(own.plan)
    with pytest.raises(IntegrityError, match="not a block"):
        reader.read([6])
    close(reader)


def test_a_truncated_object_and_a_lost_one_are_errors(own, monkeypatch):
    monkeypatch.setattr(tries, "FIRST_PAUSE_S", 0.001)
    path = own.path_of("S2", 6)
    last = int(own.plan.addresses["S2"].starts[6, 0]) + 20
    path.write_bytes(path.read_bytes()[:last])
    reader = SampleReader.of(own.plan)
    with pytest.raises(StorageError, match="S2"):
        reader.read([6])
    path.write_bytes(b"")
    with pytest.raises(StorageError, match="S2"):
        reader.read([6])
    path.unlink()
    with pytest.raises(NotFoundError, match="S2"):
        reader.read([6])
    close(reader)


@pytest.mark.parametrize("every", [10_000, 7])
def test_bytes_that_were_bad_on_the_way_are_read_again(made, monkeypatch, every):
    sound = Store.get_range
    calls = itertools.count()

    def flaky(self: Store, key: str, start: int, end: int) -> memoryview:
        data = bytearray(sound(self, key, start, end))
        if next(calls) % every == 0:
            data[len(data) // 2] ^= 4
        return memoryview(bytes(data))

    monkeypatch.setattr(Store, "get_range", flaky)
    with closing(SampleReader.of(made.plan, FetchOptions(n_threads=1))) as reader:
        check(reader.read(range(N)), made.truth, np.arange(N))
        assert reader.stats.refetches == (1 if every > 1000 else -(-reader.stats.requests // every))


def test_a_read_that_is_bad_some_times_in_a_row_ends_no_epoch(made, monkeypatch):
    sound = Store.get_range
    n_bad: Counter[tuple[str, int]] = Counter()

    def flaky(self: Store, key: str, start: int, end: int) -> memoryview:
        data = bytearray(sound(self, key, start, end))
        if n_bad[key, start] < 5:
            n_bad[key, start] += 1
            data[20] ^= 4
        return memoryview(bytes(data))

    monkeypatch.setattr(Store, "get_range", flaky)
    apart = FetchOptions(max_gap_bytes=0, max_read_bytes=1)
    with closing(SampleReader.of(made.plan, apart)) as reader:
        check(reader.read(range(N)), made.truth, np.arange(N))
        assert reader.stats.refetches == 5 * len(n_bad) > 0


# ----------------------------------------------------- other stores


def test_over_http(made, moto_server):
    options = StorageOptions(
        moto_server.endpoint, moto_server.access_key, moto_server.secret_key, region="us-east-1"
    )
    plan = moved(made, f"s3://{moto_server.bucket}/reader", options)
    reader = SampleReader.of(plan)
    check(reader.read(range(N)), made.truth, np.arange(N))
    close(reader)
