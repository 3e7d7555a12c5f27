"""The block cache on its own: what is kept, verified, shared, evicted, and what happens to a process that dies in it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorbank import StorageError
from tensorbank.cache import range_cache, range_index
from tensorbank.cache.cached_range import CachedRange, match
from tensorbank.cache.intervals import disjoint, touching
from tensorbank.cache.locks import IntervalLocks
from tensorbank.cache.range_cache import RangeCache
from tensorbank.cache.range_index import RangeIndex

OBJECT = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes()
MB = 1 << 20


class Origin:
    """A stand-in for an object store that remembers what it was asked."""

    def __init__(self, data: bytes = OBJECT) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []
        self.lock = threading.Lock()

    def fetch(self, intervals):
        with self.lock:
            self.asked += intervals
        return [(a, memoryview(self.data[a:b])) for a, b in intervals]


def files(folder: Path) -> list[Path]:
    return sorted((folder / "v1").glob("*.segment"))


def n_stored_bytes(folder: Path) -> int:
    return sum(f.stat().st_size for f in files(folder))


# ---------------------------------------------------------------- arithmetic

intervals = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda t: (t[0], t[0] + t[1])), max_size=8
)


def bytes_of(spans) -> set[int]:
    return {byte for a, b in spans for byte in range(a, b)}


@given(intervals)
def test_disjoint_spans_are_the_same_bytes_cut_where_spans_begin_and_end(spans):
    found = disjoint(spans)
    assert bytes_of(found) == bytes_of(spans)
    assert all(a < b for a, b in found)
    assert all(x[1] <= y[0] for x, y in pairwise(found))
    for a, b in spans:
        assert not any(x < a < y or x < b < y for x, y in found if a < b)


@given(intervals, intervals)
def test_what_is_used_and_what_is_missing(spans, stored):
    spans = disjoint(spans)
    have = [CachedRange(a, b, 1, "f", a, 0) for a, b in disjoint(stored)]
    used, missing = match(spans, have)
    held = bytes_of((e.start, e.end) for e in have)
    assert bytes_of(missing) == bytes_of(spans) - held
    assert used == [e for e in have if bytes_of([(e.start, e.end)]) & bytes_of(spans)]
    assert [span for run in touching(spans) for span in run] == spans


@given(st.lists(st.tuples(intervals, st.booleans()), max_size=6))
def test_any_sequence_of_reads_brings_the_truth_and_asks_for_no_byte_twice(tmp_path_factory, reads):
    here = RangeCache(tmp_path_factory.mktemp("cache"), MB)
    origin = Origin()
    for spans, wide in reads:
        spans = [s for s in spans if s[0] < s[1]]
        if not spans:
            continue
        wanted = (0, 100) if wide else (min(a for a, _ in spans), max(b for _, b in spans))
        found = here.read("k", wanted, spans, origin.fetch)
        assert len(found) == wanted[1] - wanted[0]
        assert found.readonly
        for a, b in spans:
            assert found[a - wanted[0] : b - wanted[0]] == OBJECT[a:b]
    asked = [byte for a, b in origin.asked for byte in range(a, b)]
    assert len(asked) == len(set(asked))


# ---------------------------------------------------------------- one process


def test_a_second_read_asks_for_nothing(tmp_path):
    here, origin = RangeCache(tmp_path, MB), Origin()
    spans = [(100, 5000), (5000, 9000), (20_000, 30_000)]
    first = here.read("k", (100, 30_000), spans, origin.fetch)
    assert bytes(first[:8900]) == OBJECT[100:9000]
    asked = list(origin.asked)
    for other in (here, RangeCache(tmp_path, MB)):
        found = other.read("k", (4000, 25_000), [(4000, 9000), (20_000, 25_000)], origin.fetch)
        assert found[:5000] == OBJECT[4000:9000]
        assert found[16_000:] == OBJECT[20_000:25_000]
        assert origin.asked == asked
    assert (here.stats.misses, here.stats.miss_bytes) == (3, 18_900)
    assert (here.stats.hits, here.stats.hit_bytes) == (3, 18_900)


def test_what_is_whole_is_handed_on_without_a_copy(tmp_path):
    data = memoryview(OBJECT)[:5000]
    found = RangeCache(tmp_path, MB).read("k", (0, 5000), [(0, 2000), (2000, 5000)], lambda _: [(0, data)])
    assert np.shares_memory(np.asarray(found), np.asarray(data))


def test_objects_do_not_mix(tmp_path):
    here, origin = RangeCache(tmp_path, MB), Origin()
    other = Origin(OBJECT[::-1])
    for _ in range(2):
        assert here.read("a", (0, 99), [(0, 99)], origin.fetch) == OBJECT[:99]
        assert here.read("b", (0, 99), [(0, 99)], other.fetch) == OBJECT[::-1][:99]
    assert (len(origin.asked), len(other.asked)) == (1, 1)


def test_many_small_extents_of_one_read(tmp_path):
    here, origin = RangeCache(tmp_path, MB), Origin()
    spans = [(i, i + 16) for i in range(0, 40_000, 20)]  # more than one vectored call takes
    for _ in range(2):
        found = here.read("k", (0, 40_000), spans, origin.fetch)
        assert all(found[a:b] == OBJECT[a:b] for a, b in spans)
    assert len(origin.asked) == len(spans)


def test_errors_of_the_network_are_raised_and_leave_no_lock(tmp_path):
    here, origin = RangeCache(tmp_path, MB), Origin()

    def fail(_):
        raise StorageError("no", kind="denied")

    with pytest.raises(StorageError, match="no"):
        here.read("k", (0, 99), [(0, 99)], fail)
    started = time.monotonic()
    assert here.read("k", (0, 99), [(0, 99)], origin.fetch) == OBJECT[:99]
    assert time.monotonic() - started < 5


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("how", ["bit", "truncated", "gone", "zeros"])
def test_what_is_damaged_on_the_disk_is_dropped_and_fetched_again(tmp_path, how):
    here, origin = RangeCache(tmp_path, MB), Origin()
    spans = [(0, 3000), (5000, 9000)]
    here.read("k", (0, 9000), spans, origin.fetch)
    (segment,) = files(tmp_path)
    data = bytearray(segment.read_bytes())
    if how == "bit":
        data[3500] ^= 4  # of the second extent
        segment.write_bytes(data)
    elif how == "truncated":
        segment.write_bytes(data[:-1])
    elif how == "zeros":
        segment.write_bytes(bytes(len(data)))
    else:
        segment.unlink()
    for _ in range(2):
        found = here.read("k", (0, 9000), spans, origin.fetch)
        assert all(found[a:b] == OBJECT[a:b] for a, b in spans)
    again = origin.asked[2:]
    if how == "gone":
        assert again[:2] == spans
    else:
        assert again == (spans if how == "zeros" else spans[1:])
        assert here.stats.dropped == len(again)


def test_an_index_that_mixes_up_extents_is_found_out(tmp_path):
    here, origin = RangeCache(tmp_path, MB), Origin()
    here.read("k", (0, 2000), [(0, 1000), (1000, 2000)], origin.fetch)
    with sqlite3.connect(tmp_path / "v1" / "index.sqlite") as index:
        index.execute(
            "UPDATE extents SET position = 1000 - position, checksum = (SELECT max(checksum) FROM extents)"
        )
    index.close()
    assert here.read("k", (0, 2000), [(0, 1000), (1000, 2000)], origin.fetch) == OBJECT[:2000]
    assert here.stats.dropped == 2


def test_what_is_dropped_is_fetched_again(tmp_path):
    here = RangeCache(tmp_path, MB)
    bad, good = Origin(bytes(1000)), Origin()
    assert here.read("k", (0, 99), [(0, 99)], bad.fetch) == bytes(99)
    here.drop("k", (10, 20))
    assert here.read("k", (0, 99), [(0, 99)], good.fetch) == OBJECT[:99]
    assert here.stats.dropped == 1


@pytest.mark.parametrize("content", [b"not a database" * 1000, b""])
def test_an_index_that_is_none_is_made_anew(tmp_path, content):
    RangeCache(tmp_path, MB).read("k", (0, 99), [(0, 99)], Origin().fetch)
    for path in (tmp_path / "v1").glob("index.sqlite*"):
        path.write_bytes(content)
    origin = Origin()
    for _ in range(2):
        assert RangeCache(tmp_path, MB).read("k", (0, 99), [(0, 99)], origin.fetch) == OBJECT[:99]
    assert len(origin.asked) == 1


def test_an_index_whose_schema_is_no_text_is_made_anew(tmp_path):
    """SQLite quotes what it has read, and Python cannot decode that."""
    RangeCache(tmp_path, MB).read("k", (0, 99), [(0, 99)], Origin().fetch)
    path = tmp_path / "v1" / "index.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sound = path.read_bytes()
    assert sound.count(b"tableextentsextents") == 1
    damaged = sound.replace(b"tableextentsextents", b"table" + b"\xff" * 7 + b"extents")
    path.write_bytes(damaged.replace(b"CREATE TABLE extents", b"CREATE TABLE \xff\xff\xff\xff(\xff\xff"))
    with closing(sqlite3.connect(path)) as db, pytest.raises(UnicodeDecodeError):
        db.execute("SELECT * FROM extents")
    origin = Origin()
    for _ in range(2):
        assert RangeCache(tmp_path, MB).read("k", (0, 99), [(0, 99)], origin.fetch) == OBJECT[:99]
    assert len(origin.asked) == 1


# ---------------------------------------------------------------- the limit


@pytest.mark.parametrize("limit", [100_000, 300_000])
def test_the_limit_holds_at_every_moment_and_the_least_recently_used_goes(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(range_index, "KEEP_S", 0.0)
    here, origin = RangeCache(tmp_path, limit), Origin()
    size = 7000
    for i in range(140):
        here.read("k", (0, size), [(0, size)], origin.fetch)  # used all the time
        start = size + i * size
        assert (
            here.read("k", (start, start + size), [(start, start + size)], origin.fetch)
            == OBJECT[start : start + size]
        )
        assert n_stored_bytes(tmp_path) <= limit
    assert here.stats.evicted_bytes > 0
    assert n_stored_bytes(tmp_path) > limit - 2 * size
    assert origin.asked.count((0, size)) == 1
    last = (140 * size, 141 * size)
    here.read("k", last, [last], origin.fetch)
    assert origin.asked.count(last) == 1


def test_what_is_in_use_stays_although_it_is_full(tmp_path):
    """A half of an epoch in random order is found in every further epoch, if half of it fits."""
    n, size = 100, 5000
    here, origin = RangeCache(tmp_path, n * size // 2), Origin()
    rng = np.random.default_rng(1)
    for epoch in range(4):
        before = len(origin.asked)
        for i in rng.permutation(n).tolist():
            here.read("k", (i * size, (i + 1) * size), [(i * size, (i + 1) * size)], origin.fetch)
        if epoch:
            assert len(origin.asked) - before == n // 2
    assert here.stats.refused_bytes == (n // 2) * size * 4
    assert here.stats.evicted_bytes == 0


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path):
    here, origin = RangeCache(tmp_path, 1000), Origin()
    here.read("k", (0, 500), [(0, 500)], origin.fetch)
    for _ in range(2):
        assert here.read("k", (1000, 3000), [(1000, 3000)], origin.fetch) == OBJECT[1000:3000]
    assert n_stored_bytes(tmp_path) == 500
    assert len(origin.asked) == 3


# ---------------------------------------------------------------- threads and processes


def test_threads_fetch_every_byte_once(tmp_path):
    origin = Origin()
    caches = [RangeCache(tmp_path, MB) for _ in range(2)]

    def slow(intervals):
        time.sleep(0.01)
        return origin.fetch(intervals)

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            a = int(rng.integers(0, 60)) * 1000
            b = a + int(rng.integers(1, 6)) * 1000
            spans = [(x, x + 1000) for x in range(a, b, 1000)]
            assert caches[seed % 2].read("k", (a, b), spans, slow) == OBJECT[a:b]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(origin.asked) == len(set(origin.asked))
    assert sum(c.stats.miss_bytes for c in caches) == 1000 * len(origin.asked)
    assert sum(c.stats.waits for c in caches) > 0


def test_who_waits_too_long_fetches_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(range_cache, "WAIT_S", 0.2)
    here, other, origin = RangeCache(tmp_path, MB), RangeCache(tmp_path, MB), Origin()
    fetching, go_on = threading.Event(), threading.Event()

    def hang(intervals):
        fetching.set()
        assert go_on.wait(60)
        return origin.fetch(intervals)

    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(here.read, "k", (0, 99), [(0, 99)], hang)
        assert fetching.wait(60)
        assert other.read("k", (0, 99), [(0, 99)], origin.fetch) == OBJECT[:99]
        go_on.set()
        assert hanging.result(60) == OBJECT[:99]
    assert RangeCache(tmp_path, MB).read("k", (0, 99), [(0, 99)], hang) == OBJECT[:99]
    assert origin.asked == [(0, 99)] * 2


def read_all(folder, seed, n, size, results):
    origin = Origin()

    def slow(intervals):
        time.sleep(0.002)
        return origin.fetch(intervals)

    here = RangeCache(folder, MB)
    for i in np.random.default_rng(seed).permutation(n).tolist():
        a = i * size
        assert here.read("k", (a, a + size), [(a, a + size)], slow) == OBJECT[a : a + size]
    results.put((origin.asked, here.stats))


def test_processes_fetch_every_byte_once(tmp_path):
    n, size = 200, 3000
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=read_all, args=(tmp_path, i % 2, n, size, results)) for i in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=100) for _ in processes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    asked = [interval for of_one, _ in found for interval in of_one]
    assert len(asked) == len(set(asked)) == n
    assert sum(s.hits for _, s in found) == 3 * n


def write_until_killed(folder, started):
    here, origin = RangeCache(folder, 40_000), Origin()
    range_index.KEEP_S = 0.0
    for i in range(1_000_000):
        a = i * 97 % 900_000
        here.read("k", (a, a + 5000), [(a, a + 2500), (a + 2500, a + 5000)], origin.fetch)
        if i == 20:
            started.set()


@pytest.mark.parametrize("after_s", [0.0, 0.011, 0.023, 0.037, 0.05])
def test_a_writer_that_is_killed_harms_nobody(tmp_path, after_s, monkeypatch):
    """Killed at any moment, evicting and storing; the next finds a sound cache within the limit, and no lock."""
    monkeypatch.setattr(range_index, "KEEP_S", 0.0)
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=write_until_killed, args=(tmp_path, started))
    process.start()
    assert started.wait(60)
    time.sleep(after_s)  # the moment is meant to be any
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    here, origin = RangeCache(tmp_path, 40_000), Origin()
    began = time.monotonic()
    for i in range(200):
        a = i * 97 % 900_000
        assert here.read("k", (a, a + 5000), [(a, a + 5000)], origin.fetch) == OBJECT[a : a + 5000]
        assert n_stored_bytes(tmp_path) <= 40_000
    assert here.stats.dropped == 0
    assert time.monotonic() - began < range_cache.WAIT_S


def fetch_for_ever(folder, fetching):
    def hang(_):
        fetching.set()
        time.sleep(1000)

    RangeCache(folder, MB).read("k", (0, 99), [(0, 99)], hang)


def test_a_fetcher_that_is_killed_gives_its_locks_back(tmp_path):
    context = multiprocessing.get_context("spawn")
    fetching = context.Event()
    process = context.Process(target=fetch_for_ever, args=(tmp_path, fetching))
    process.start()
    assert fetching.wait(60)
    here, origin = RangeCache(tmp_path, MB), Origin()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(here.read, "k", (0, 99), [(0, 99)], origin.fetch)
        while not here.stats.waits:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        started = time.monotonic()
        assert waiting.result(60) == OBJECT[:99]
    assert time.monotonic() - started < range_cache.WAIT_S / 2
    process.join(30)


def test_locks_are_of_intervals_and_of_holders(tmp_path):
    path = tmp_path / "locks"
    path.touch()
    with IntervalLocks(path) as one, IntervalLocks(path) as two:
        assert one.try_lock(1, 10, 20)
        assert not two.try_lock(1, 19, 30)
        assert two.try_lock(1, 20, 30)
        assert two.try_lock(2, 10, 20)
        one.release()
        assert two.try_lock(1, 10, 20)


# ---------------------------------------------------------------- disks


def no_room(file, buffers, position):
    raise OSError(28, "No space left on device")


def read_only(index, n_bytes):
    raise OSError(30, "Read-only file system")


@pytest.mark.parametrize("broken", ["full", "read-only", "no folder"])
def test_a_disk_that_takes_nothing_costs_one_warning(tmp_path, monkeypatch, caplog, broken):
    folder = tmp_path / "folder"
    if broken == "full":
        monkeypatch.setattr("tensorbank.cache.segments.os.pwritev", no_room)
    elif broken == "read-only":
        monkeypatch.setattr(RangeIndex, "reserve", read_only)
    else:
        folder.write_text("a file in its place")
    here, origin = RangeCache(folder, MB), Origin()
    with caplog.at_level(logging.WARNING):
        for i in range(5):
            assert here.read("k", (i, i + 99), [(i, i + 99)], origin.fetch) == OBJECT[i : i + 99]
    assert len(caplog.records) == 1
    assert ("is off" if broken == "no folder" else "keeps nothing more") in caplog.text


def test_what_is_there_is_used_when_the_disk_is_full(tmp_path, monkeypatch, caplog):
    here, origin = RangeCache(tmp_path, MB), Origin()
    here.read("k", (0, 99), [(0, 99)], origin.fetch)
    monkeypatch.setattr("tensorbank.cache.segments.os.pwritev", no_room)
    for _ in range(2):
        assert here.read("k", (200, 299), [(200, 299)], origin.fetch) == OBJECT[200:299]
        assert here.read("k", (0, 99), [(0, 99)], origin.fetch) == OBJECT[:99]
    assert origin.asked == [(0, 99), (200, 299), (200, 299)]
    assert len(caplog.records) == 1


def test_in_a_forked_child_the_cache_is_off(tmp_path):
    here, origin = RangeCache(tmp_path, MB), Origin()
    here.read("k", (0, 99), [(0, 99)], origin.fetch)
    pid = os.fork()
    if pid == 0:
        here.read("k", (0, 99), [(0, 99)], origin.fetch)
        os._exit(len(origin.asked))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    here.read("k", (0, 99), [(0, 99)], origin.fetch)
    assert len(origin.asked) == 1


# ---------------------------------------------------------------- what others may have written


def change_index(folder: Path, sql: str, *given: object) -> None:
    with sqlite3.connect(folder / "v1/index.sqlite") as index:
        assert index.execute(sql, given).rowcount > 0
    index.close()


HOSTILE = [
    ("UPDATE segments SET file = ?", "../../victim.txt"),
    ("UPDATE segments SET file = ?", "/tmp/victim.txt"),
    ("UPDATE segments SET file = ?", "index.sqlite"),
    ("UPDATE segments SET file = ?", ""),
    ("UPDATE segments SET file = ?", 5),
    ("UPDATE segments SET file = ?", b"../../victim.txt"),
    ("UPDATE segments SET n_bytes = ?", -(1 << 40)),
    ("UPDATE segments SET n_bytes = ?", "many"),
    ("UPDATE extents SET n_bytes = ?", 1 << 60),
    ("UPDATE extents SET n_bytes = ?", 1 << 40),
    ("UPDATE extents SET n_bytes = ?", -5),
    ("UPDATE extents SET n_bytes = ?", "x"),
    ("UPDATE extents SET position = ?", -1),
    ("UPDATE extents SET position = ?", 1 << 62),
    ("UPDATE extents SET checksum = ?", "x"),
]


@pytest.mark.parametrize(("sql", "value"), HOSTILE, ids=lambda v: str(v)[:30])
def test_an_index_that_somebody_else_wrote_leads_nowhere(tmp_path, sql, value):
    victim, folder = tmp_path / "victim.txt", tmp_path / "cache"
    victim.write_text("mine")
    origin = Origin()
    RangeCache(folder, MB).read("k", (0, 99), [(0, 99)], origin.fetch)
    change_index(folder, sql, value)
    here = RangeCache(folder, MB)
    for start in (0, 200, 400):
        span = (start, start + 99)
        assert here.read("k", span, [span], origin.fetch) == OBJECT[start : start + 99]
    assert victim.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "victim.txt"]


def test_eviction_removes_nothing_outside_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(range_index, "KEEP_S", 0.0)
    victim, folder = tmp_path / "victim.txt", tmp_path / "cache"
    victim.write_text("mine")
    origin = Origin()
    RangeCache(folder, 1000).read("k", (0, 900), [(0, 900)], origin.fetch)
    change_index(folder, "UPDATE segments SET file = '../../victim.txt'")
    assert RangeCache(folder, 1000).read("k", (1000, 1900), [(1000, 1900)], origin.fetch) == OBJECT[1000:1900]
    assert victim.read_text() == "mine"


def test_everything_is_for_this_user_alone(tmp_path):
    old = os.umask(0)
    try:
        folder = tmp_path / "new" / "cache"
        RangeCache(folder, MB).read("k", (0, 99), [(0, 99)], Origin().fetch)
    finally:
        os.umask(old)
    found = {p: p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    assert {m for p, m in found.items() if p.is_dir()} == {0o700}
    assert {m for p, m in found.items() if p.is_file()} == {0o600}
    assert len(found) >= 6


def test_a_folder_that_others_can_read_is_closed(tmp_path):
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1").chmod(0o755)
    RangeCache(tmp_path, MB).read("k", (0, 99), [(0, 99)], Origin().fetch)
    assert (tmp_path / "v1").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["v1", "v1/index.sqlite", "v1/locks"])
def test_a_link_is_not_followed(tmp_path, caplog, what):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "cache"
    if what == "v1":
        elsewhere.mkdir()
        folder.mkdir()
    else:
        (folder / "v1").mkdir(parents=True)
    (folder / what).symlink_to(elsewhere)
    here, origin = RangeCache(folder, MB), Origin()
    for _ in range(2):
        assert here.read("k", (0, 99), [(0, 99)], origin.fetch) == OBJECT[:99]
    assert len(origin.asked) == 2
    assert not elsewhere.exists() or not list(elsewhere.iterdir())
    assert "reads go on" in caplog.text


def test_a_folder_of_another_user_is_not_used(tmp_path, monkeypatch, caplog):
    origin = Origin()
    RangeCache(tmp_path, MB).read("k", (0, 99), [(0, 99)], origin.fetch)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert RangeCache(tmp_path, MB).read("k", (0, 99), [(0, 99)], origin.fetch) == OBJECT[:99]
    assert len(origin.asked) == 2
    assert "belongs to user" in caplog.text
