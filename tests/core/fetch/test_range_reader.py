"""The port of bytes: each implementation keeps the contract, and a small one of one's own is enough to read a plan."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest

from support.handmade import check, make
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError, StorageError
from tensorbank.fetch import Fetcher, RangeReader
from tensorbank.reading import SampleReader
from tensorbank.storage import StorageOptions, Store
from tensorbank.testing import RangeReaderContract

STORED = ("folder/object", bytes(range(256)))


@dataclass
class InMemory:
    """A reader of objects in a dictionary."""

    objects: dict[str, bytes]
    url: str = "memory://objects"
    cache_name: str = "memory://objects"
    is_local: bool = True

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        if not 0 <= start < end:
            raise InvalidInputError(f"no range: [{start}, {end})", kind=ErrorKind.BAD_RANGE)
        if key not in self.objects:
            raise NotFoundError(f"no object {key}", kind=ErrorKind.NO_OBJECT)
        data = memoryview(self.objects[key])[start:end]
        if len(data) < end - start:
            raise StorageError(f"{key} ends before {end}", kind=ErrorKind.SHORT_READ)
        return data


class TestInMemory(RangeReaderContract):
    @pytest.fixture
    def known_object(self) -> tuple[str, bytes]:
        return STORED

    @pytest.fixture
    def ranges(self) -> RangeReader:
        return InMemory(dict([STORED]))


class TestStoreOfFiles(RangeReaderContract):
    @pytest.fixture
    def known_object(self) -> tuple[str, bytes]:
        return STORED

    @pytest.fixture
    def ranges(self, tmp_path) -> RangeReader:
        store = Store(tmp_path.as_uri())
        store.put(*STORED)
        return store


class TestStoreOfS3(RangeReaderContract):
    @pytest.fixture
    def known_object(self) -> tuple[str, bytes]:
        return STORED

    @pytest.fixture
    def ranges(self, moto_server) -> RangeReader:
        options = StorageOptions(
            moto_server.endpoint, moto_server.access_key, moto_server.secret_key, region=moto_server.region
        )
        store = Store(f"{moto_server.url}/ranges", options)
        store.put(*STORED)
        return store


def test_samples_are_read_through_any_reader_and_readers_share_a_fetcher(tmp_path):
    made = make(tmp_path, 9)
    files = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with closing(Fetcher(InMemory(files))) as fetcher:
        whole, one = (SampleReader(a, fetcher) for a in (made.plan.addresses, made.plan.addresses.only("S2")))
        check(whole.read(range(9)), made.truth, np.arange(9))
        check(one.read([4, 0]), {"S2": made.truth["S2"]}, np.array([4, 0]))
        assert one.stats.bytes_read == whole.stats.bytes_read > one.addresses.read_bytes
