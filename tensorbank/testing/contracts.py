"""Contracts as test classes, for implementations of ours and of yours.

A subclass in a pytest module gives the fixture that makes the thing; it inherits every case::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)
"""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tensorbank.errors import ConflictError, ErrorKind, InvalidInputError, NotFoundError, StorageError
from tensorbank.fetch import RangeReader
from tensorbank.storage import Store

__all__ = ["RangeReaderContract", "StoreContract"]

N_THREADS = 8


class RangeReaderContract:
    """The contract of every :class:`tensorbank.fetch.RangeReader`. Subclasses define two fixtures.

    ``ranges`` gives the reader, ``known_object`` the key of an object that it reads and its bytes, at least 16.
    The reader need not read any other object.
    """

    def test_ranges_are_half_open_and_as_stored(
        self, ranges: RangeReader, known_object: tuple[str, bytes]
    ) -> None:
        key, body = known_object
        for start, end in ((0, 1), (3, 9), (len(body) - 1, len(body)), (0, len(body))):
            assert bytes(ranges.get_range(key, start, end)) == body[start:end]

    def test_what_is_read_cannot_be_written_to(
        self, ranges: RangeReader, known_object: tuple[str, bytes]
    ) -> None:
        assert ranges.get_range(known_object[0], 2, 5).readonly

    def test_a_range_that_ends_behind_the_object_is_an_error_and_never_short_data(
        self, ranges: RangeReader, known_object: tuple[str, bytes]
    ) -> None:
        key, body = known_object
        n = len(body)
        for start, end in ((n - 1, n + 1), (0, n + 1000), (n, n + 1)):
            error = _error_of(partial(ranges.get_range, key, start, end))
            assert isinstance(error, StorageError)
            assert error.kind == ErrorKind.SHORT_READ

    def test_a_range_that_is_none_is_refused(
        self, ranges: RangeReader, known_object: tuple[str, bytes]
    ) -> None:
        for start, end in ((3, 3), (5, 4), (-1, 4)):
            error = _error_of(partial(ranges.get_range, known_object[0], start, end))
            assert isinstance(error, InvalidInputError)
            assert error.kind == ErrorKind.BAD_RANGE

    def test_an_object_that_is_not_there_is_not_found(
        self, ranges: RangeReader, known_object: tuple[str, bytes]
    ) -> None:
        key = known_object[0].rpartition("/")[0] + "/no-such-object"
        assert isinstance(_error_of(partial(ranges.get_range, key, 0, 1)), NotFoundError)

    def test_it_reads_for_many_threads_at_once(
        self, ranges: RangeReader, known_object: tuple[str, bytes]
    ) -> None:
        key, body = known_object
        spans = [(i % 8, i % 8 + 8) for i in range(8 * N_THREADS)]
        with ThreadPoolExecutor(N_THREADS) as pool:
            found = list(pool.map(lambda span: bytes(ranges.get_range(key, *span)), spans))
        assert found == [body[start:end] for start, end in spans]

    def test_it_travels(self, ranges: RangeReader, known_object: tuple[str, bytes]) -> None:
        key, body = known_object
        ranges.get_range(key, 0, 1)  # connections are open now
        other = pickle.loads(pickle.dumps(ranges))
        assert (other.url, other.cache_name, other.is_local) == (
            ranges.url,
            ranges.cache_name,
            ranges.is_local,
        )
        assert bytes(other.get_range(key, 1, 5)) == body[1:5]


class StoreContract:
    """The contract of every :class:`tensorbank.storage.store.Store`. Subclasses define the fixture ``store``.

    The fixture need not give an empty or a new store: every case works below a name of its own.
    """

    def test_what_was_put_comes_back(self, store: Store) -> None:
        key = f"{_name()}/object"
        for data in (b"0123456789", b"", b"shorter", bytes(range(256)) * 4096):
            store.put(key, data)
            assert store.get(key) == data

    def test_pieces_are_put_as_one_object(self, store: Store) -> None:
        key = f"{_name()}/object"
        store.put(key, [b"012", b"", b"3456789"])
        assert store.get(key) == b"0123456789"

    def test_ranges_are_half_open(self, store: Store) -> None:
        key = f"{_name()}/object"
        store.put(key, b"0123456789")
        for start in range(10):
            for end in range(start + 1, 11):
                assert bytes(store.get_range(key, start, end)) == b"0123456789"[start:end]

    def test_a_range_cannot_be_written_to(self, store: Store) -> None:
        key = f"{_name()}/object"
        store.put(key, b"0123456789")
        assert store.get_range(key, 2, 5).readonly

    def test_a_range_beyond_the_end_is_an_error_and_never_short_data(self, store: Store) -> None:
        key = f"{_name()}/object"
        store.put(key, b"0123456789")
        for start, end in ((5, 11), (0, 1000), (9, 11), (10, 11), (500, 600)):
            error = _error_of(partial(store.get_range, key, start, end))
            assert isinstance(error, StorageError), (start, end, error)
            assert error.kind == ErrorKind.SHORT_READ
            assert key in str(error)

    def test_an_empty_or_negative_range_is_the_callers_mistake(self, store: Store) -> None:
        key = f"{_name()}/object"
        store.put(key, b"0123456789")
        for start, end in ((5, 5), (6, 5), (-1, 5)):
            error = _error_of(partial(store.get_range, key, start, end))
            assert isinstance(error, InvalidInputError), (start, end, error)

    def test_what_is_missing_is_not_found(self, store: Store) -> None:
        name = _name()
        store.put(f"{name}/folder/object", b"1")
        for key in (f"{name}/none", f"{name}/folder"):
            for read in (store.get, partial(store.get_range, start=0, end=1)):
                error = _error_of(partial(read, key))
                assert isinstance(error, NotFoundError), (key, error)
                assert key in str(error)
            assert not store.exists(key)

    def test_exists_and_delete(self, store: Store) -> None:
        key = f"{_name()}/object"
        store.put(key, b"1")
        assert store.exists(key)
        store.delete(key)
        assert not store.exists(key)
        store.delete(key)  # nothing happens

    def test_create_refuses_a_second_time(self, store: Store) -> None:
        key = f"{_name()}/object"
        store.create(key, b"first")
        for data in (b"second", b"first"):
            error = _error_of(partial(store.create, key, data))
            assert isinstance(error, ConflictError)
            assert error.kind == ErrorKind.EXISTS
        assert store.get(key) == b"first"
        store.delete(key)
        store.create(key, b"third")
        assert store.get(key) == b"third"

    def test_it_arbitrates_and_leaves_nothing_behind(self, store: Store) -> None:
        store.put(f"{_name()}/object", b"1")
        before = {o.key for o in store.objects()}
        assert store.arbitrates_writers()
        assert {o.key for o in store.objects()} == before

    def test_one_of_many_creators_wins(self, store: Store) -> None:
        name = _name()
        store.put(f"{name}/warm", b"1")
        with ThreadPoolExecutor(N_THREADS) as pool:
            for turn in range(3):
                key = f"{name}/{turn}"
                bodies = [f"writer {i}".encode() for i in range(N_THREADS)]
                errors = list(pool.map(_error_of, [partial(store.create, key, b) for b in bodies]))
                winners = [b for b, e in zip(bodies, errors, strict=True) if e is None]
                assert len(winners) == 1, errors
                assert all(isinstance(e, ConflictError) for e in errors if e is not None)
                assert store.get(key) == winners[0]

    def test_listings(self, store: Store) -> None:
        name = _name()
        sizes = {"a/x": 3, "a/sub/y": 0, "ab/z": 5, "top": 1, "a/with space + 100% ü.bin": 2}
        for key, size in sizes.items():
            store.put(f"{name}/{key}", b"." * size)
        assert {o.key: o.n_bytes for o in store.objects(name)} == {f"{name}/{k}": n for k, n in sizes.items()}
        assert {o.key for o in store.objects(f"{name}/a")} == {
            f"{name}/{k}" for k in sizes if k.startswith("a/")
        }
        assert store.objects(f"{name}/none") == []
        assert store.folders(name) == ["a", "ab"]
        assert store.folders(f"{name}/a") == ["sub"]
        assert store.folders(f"{name}/none") == []
        assert name in store.folders()

    def test_it_travels_without_its_client(self, store: Store) -> None:
        key = f"{_name()}/object"
        store.put(key, b"0123456789")
        other = pickle.loads(pickle.dumps(store))
        assert (type(other), other.url, other.options) == (type(store), store.url, store.options)
        assert bytes(other.get_range(key, 2, 5)) == b"234"

    def test_many_threads(self, store: Store) -> None:
        name = _name()

        def work(thread: int) -> bool:
            data = bytes([thread]) * 1000
            for i in range(5):
                store.put(f"{name}/{thread}/{i}", data)
            same = all(store.get(f"{name}/{thread}/{i}") == data for i in range(5))
            return same and bytes(store.get_range(f"{name}/{thread}/0", 10, 20)) == data[:10]

        with ThreadPoolExecutor(N_THREADS) as pool:
            assert all(pool.map(work, range(N_THREADS)))
        assert len(store.objects(name)) == 5 * N_THREADS


def _name() -> str:
    return f"case-{uuid.uuid4().hex[:12]}"


def _error_of(call: Callable[[], object]) -> BaseException | None:
    """Return the exception that a call raises, or None."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - handed to the assertion
        return error
    return None
