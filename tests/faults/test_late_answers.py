"""Stores that answer some requests late, and stores that answer all of them late: the requests that each sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tensorbank import ByteRange
from tensorbank.fetch import Fetcher, FetchOptions, FetchStats
from tensorbank.fetch.races import Wanted
from tensorbank.storage.store import Store
from tensorbank.testing import Faults, FaultServer

READ_BYTES = 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[FaultServer]:
    """A server of one object."""
    folder = tmp_path_factory.mktemp("late") / "bucket"
    folder.mkdir()
    (folder / "object").write_bytes(bytes(READ_BYTES * 1000))
    with FaultServer(folder) as started:
        yield started


def reads(server: FaultServer, faults: Faults, n: int, n_threads: int) -> tuple[FetchStats, dict[str, int]]:
    """Read so many ranges, and tell what was counted here and what there."""

    def wanted(number: int) -> Wanted:
        at = READ_BYTES * number
        return Wanted(ByteRange("object", at, at + READ_BYTES), lambda _: None)

    server.set(faults)
    options = FetchOptions(n_threads=n_threads)
    with closing(Fetcher(Store(server.url, server.storage), options)) as fetcher:
        assert fetcher.submit(n, wanted).wait(for_all=True) == {}
        return fetcher.stats, server.stats()["counts"]


def test_one_late_answer_in_five_is_asked_for_again_beyond_the_share(server):
    stats, counts = reads(server, Faults(latency_ms=5, slow=0.2, slow_s=60, seed=1), 500, 16)
    n_again = stats.hedges + stats.stalls
    assert counts["slow"] > 0.1 * 500
    assert stats.hedges_won > 0.05 * 500
    assert n_again >= counts["slow"], "a late answer comes after 60 s, so all of them were asked for again"
    assert n_again <= 3 * counts["slow"] + 0.02 * 500 + 10, "a sound answer is rarely asked for twice"


@pytest.mark.parametrize("latency_ms", [200, 1500])
def test_a_store_that_is_slow_as_a_whole_sees_no_more_requests_than_the_share(server, latency_ms):
    """1.5 s are more than a read takes that has stalled while nothing is known."""
    stats, counts = reads(server, Faults(latency_ms=latency_ms), 300, 100)
    assert stats.requests == 300
    assert counts["requests"] <= 1.02 * 300 + 2
