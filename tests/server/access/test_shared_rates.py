"""Rates that replicas count together: exact in a real store, bounded without it, and never waited for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from support.rate_server import rate_server
from tensorbank_server.access import RateStore, SharedRates
from tensorbank_server.http import Problem
from tensorbank_server.monitoring import Metrics

PATIENT_S = 20.0
"""Seconds to wait for a store that answers: longer than a busy machine needs."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with rate_server(tmp_path_factory.mktemp("rates")) as server:
        yield server


def replicas(url: str, n: int, per_minute: int, *, limit_s: float = PATIENT_S, password: str | None = None):
    stores = [RateStore(url, password, Metrics(), limit_s=limit_s) for _ in range(n)]
    return stores, [SharedRates("requests", per_minute, store, n) for store in stores]


async def allowed(rates: SharedRates, caller: str) -> bool:
    try:
        await rates.spend(caller)
    except Problem as problem:
        if (problem.status, problem.code) != (429, "rate-limit"):
            raise
        return False
    return True


def test_replicas_together_allow_what_one_would(store):
    async def ask() -> tuple[int, float]:
        stores, rates = replicas(store.url, 3, 60)
        began_s = time.monotonic()
        answers = await asyncio.gather(*(allowed(r, "key:a") for r in rates for _ in range(40)))
        taken_s = time.monotonic() - began_s
        assert all([await allowed(r, "key:b") for r in rates]), "others have their own bucket"
        for s in stores:
            assert s.problem is None
            await s.close()
        return sum(answers), taken_s

    n_allowed, taken_s = asyncio.run(ask())
    assert 60 <= n_allowed <= 60 + taken_s + 1, "what flowed in meanwhile: one a second"


def test_the_headers_are_those_of_the_whole_limit(store):
    async def ask() -> None:
        stores, (one, two) = replicas(store.url, 2, 6)
        told = [await rates.spend("key:c") for rates in (one, two, one)]
        assert [t.remaining for t in told] == [5, 4, 3]
        assert told[0].headers()["RateLimit-Policy"] == '"requests";q=6;w=60'
        while await allowed(two, "key:c"):
            pass
        with pytest.raises(Problem) as refused:
            await two.spend("key:c")
        assert 1 <= int(refused.value.headers["Retry-After"]) <= 10, "one in ten seconds"
        for s in stores:
            await s.close()

    asyncio.run(ask())


def test_a_bucket_fills_again(store):
    async def ask() -> float:
        stores, (rates,) = replicas(store.url, 1, 600)  # ten a second
        while await allowed(rates, "key:d"):
            pass
        began_s = time.monotonic()
        while not await allowed(rates, "key:d") and time.monotonic() < began_s + PATIENT_S:
            pass
        await stores[0].close()
        return time.monotonic() - began_s

    assert asyncio.run(ask()) < PATIENT_S


def test_without_the_store_each_replica_allows_its_share(tmp_path):
    async def ask() -> None:
        with rate_server(tmp_path) as server:
            stores, (one, two) = replicas(server.url, 2, 60)
            n_before = Counter([await allowed(one, "key:a") for _ in range(20)])[True]
            assert n_before == 20
            server.kill()
            began_s = time.monotonic()
            n_alone = [sum([await allowed(rates, "key:a") for _ in range(60)]) for rates in (one, two)]
            taken_s = time.monotonic() - began_s
            # one was told that 40 are left, and takes half of them; two has never heard of this caller
            assert 20 <= n_alone[0] <= 20 + taken_s + 1
            assert 30 <= n_alone[1] <= 30 + taken_s + 1
            for s in stores:
                assert s.problem is not None
            server.start()
            deadline_s = time.monotonic() + PATIENT_S
            while any(s.problem for s in stores):
                for rates in (one, two):
                    await allowed(rates, "key:z")
                assert time.monotonic() < deadline_s, "the store is asked again"
            assert (await one.spend("key:new")).remaining == 59
            for s in stores:
                await s.close()

    asyncio.run(ask())


def test_a_silent_store_is_waited_for_once_in_a_while(tmp_path):
    async def ask() -> tuple[float, int]:
        with rate_server(tmp_path) as server:
            stores, (rates,) = replicas(server.url, 1, 6_000, limit_s=1.0)
            await allowed(rates, "key:a")
            with server.silent():
                began_s = time.monotonic()
                for _ in range(200):
                    await allowed(rates, "key:a")
                taken_s = time.monotonic() - began_s
            await stores[0].close()
            return taken_s, 200

    taken_s, n = asyncio.run(ask())
    assert taken_s >= 1.0, "the first question was waited for"
    assert taken_s < n * 1.0 / 5, "and hardly another"


def test_a_password_is_needed_and_never_shown(tmp_path, caplog):
    async def ask(server, password: str | None) -> str | None:
        stores, (rates,) = replicas(server.url, 1, 60, password=password)
        await rates.spend("key:a")
        await stores[0].close()
        return stores[0].problem

    with rate_server(tmp_path, password="open-sesame") as server:
        assert asyncio.run(ask(server, "open-sesame")) is None
        assert asyncio.run(ask(server, None)) is not None
        assert asyncio.run(ask(server, "wrong-word")) is not None
    assert caplog.records, "the trouble is logged"
    for word in ("open-sesame", "wrong-word"):
        assert word not in caplog.text
