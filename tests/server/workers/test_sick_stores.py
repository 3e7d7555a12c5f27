"""A bank whose store hangs: it costs those who ask for it, and nobody else; the service says so and ends in time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import botocore.exceptions
import httpx
import pytest

from support.server_process import Served, serving
from support.service import check_problem, n_active
from support.waiting import wait_until
from tensorbank.errors import StorageError
from tensorbank_server.http.problems import Problem
from tensorbank_server.workers.bulkheads import Bulkhead, Threads
from tensorbank_server.workers.watches import Watch

BANK_S, PROBE_S, FINISH_S = 2, 1, 3
IMPATIENT = {
    "TENSORBANK_N_WORKERS": "2",
    "TENSORBANK_LIMITS__BANK_S": str(BANK_S),
    "TENSORBANK_BANK_PROBE_S": str(PROBE_S),
}
SOON_S = 5.0
"""Far below what a request waits for a store that hangs, and far above what a busy machine takes for one that is well."""
"""The most seconds that an answer which waits for nothing may take on a busy machine."""


@dataclass
class Store:
    """A store: moto as a process of its own, which can be made to hang."""

    process: subprocess.Popen[bytes]
    endpoint: str

    @contextmanager
    def hanging(self) -> Iterator[None]:
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def store(bank_folder: Path) -> Iterator[Store]:
    """A store that has the objects of the bank in the folder."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        found = Store(process, f"http://127.0.0.1:{port}")
        client = boto3.client(
            "s3",
            endpoint_url=found.endpoint,
            aws_access_key_id="moto",
            aws_secret_access_key="moto",
            region_name="us-east-1",
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket="eo-bank")
                break
            except botocore.exceptions.BotoCoreError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        for path in bank_folder.rglob("*"):
            if path.is_file():
                client.put_object(
                    Bucket="eo-bank", Key=path.relative_to(bank_folder).as_posix(), Body=path.read_bytes()
                )
        client.close()
        yield found
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def settings(bank_folder: Path, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("settings") / "server.toml"
    file.write_text(
        f"""
finish_s = {FINISH_S}
[banks.well]
url = "{bank_folder}"
[banks.ill]
url = "s3://eo-bank"
endpoint = "{store.endpoint}"
access_key = "moto"
secret_key = "moto"
region = "us-east-1"
"""
    )
    return file


@pytest.fixture
def served(settings: Path) -> Iterator[Served]:
    with serving("--settings", str(settings), **IMPATIENT) as running:
        yield running


def timed(served: Served, path: str) -> tuple[float, httpx.Response]:
    began_s = time.monotonic()
    answer = served.client.get(path, timeout=30)  # one client: making another takes longer than asking
    return time.monotonic() - began_s, answer


def n_broken(served: Served) -> int:
    taken_s, answer = timed(served, "/readyz")
    assert answer.status_code == 200, answer.text
    assert taken_s < SOON_S
    return int(answer.json()["broken_banks"])


ILL, WELL = "/v1/banks/ill/tables/terramesh", "/v1/banks/well/tables/terramesh"


def test_a_store_that_hangs_costs_its_own_callers(served, store, bank):
    sample_id = bank.sql("SELECT sample_id FROM terramesh").arrow()["sample_id"][0].as_py()
    assert served.get(f"{ILL}/size").status_code == 200
    assert len(served.get("/stac/collections").json()["collections"]) == 2
    with ThreadPoolExecutor(50) as pool:
        with store.hanging():
            asked = [pool.submit(timed, served, f"{ILL}/samples/{sample_id}/S2L2A.npy") for _ in range(40)]
            asked += [pool.submit(timed, served, f"{ILL}/rows?length=3") for _ in range(4)]
            for _ in range(10):
                taken_s, answer = timed(served, f"{WELL}/schema")
                assert (answer.status_code, taken_s < SOON_S) == (200, True)
                assert timed(served, f"{WELL}/size?filter=lon > {taken_s}")[1].status_code == 200
                taken_s, answer = timed(served, "/healthz")
                assert (answer.status_code, taken_s < SOON_S) == (200, True)
                assert n_broken(served) in (0, 1)
            for taken_s, answer in (future.result() for future in asked):
                assert answer.status_code in (429, 503), answer.text  # too many of one caller, or the bank
                assert taken_s < BANK_S + 2 * SOON_S
            wait_until(lambda: n_broken(served) == 1, "nobody sees that the bank is ill")
            assert served.get("/readyz").json()["sick"] == {"ill": "late"}
            banks = {b["name"]: b["state"] for b in served.get("/v1/banks").json()["banks"]}
            assert banks == {"ill": "unavailable", "well": "ok"}
            taken_s, answer = timed(served, f"{ILL}/schema")
            check_problem(answer, 503, "bank-unavailable")
            assert int(answer.headers["retry-after"]) > 0
            assert taken_s < SOON_S
            for path in ("/stac", "/stac/collections", "/stac/search?limit=3"):
                taken_s, answer = timed(served, path)
                assert answer.status_code == 200, answer.text
                assert answer.json()["tensorbank:unavailable"] == ["ill"]
                assert taken_s < SOON_S
            assert len(answer.json()["features"]) == 3
            check_problem(timed(served, "/stac/search?collections=ill.terramesh")[1], 503, "bank-unavailable")
            check_problem(timed(served, "/stac/collections/ill.terramesh/items")[1], 503, "bank-unavailable")
            posted = served.post("/v1/banks/ill/plans", json={"table": "terramesh"})
            check_problem(posted, 503, "bank-unavailable")
        wait_until(lambda: n_broken(served) == 0, "the bank is well again, and nobody sees it")
        assert served.get(f"{ILL}/samples/{sample_id}/S2L2A.npy").status_code == 200
        document = served.get("/stac/collections").json()
        assert len(document["collections"]) == 2
        assert "tensorbank:unavailable" not in document


def test_the_service_ends_in_time_beside_a_store_that_hangs(settings, store):
    with serving("--settings", str(settings), **IMPATIENT, TENSORBANK_LATEST_S="0") as served:
        assert served.get(f"{ILL}/schema").status_code == 200
        with store.hanging(), ThreadPoolExecutor(10) as pool:
            asked = [pool.submit(timed, served, f"{ILL}/schema") for _ in range(10)]
            time.sleep(0.2)  # they are under way; whether or not they are is no matter of the verdict
            began_s = time.monotonic()
            served.process.terminate()
            assert served.process.wait(timeout=FINISH_S + 15) == 0
            assert time.monotonic() - began_s < FINISH_S + 10
            for future in asked:
                with contextlib.suppress(httpx.TransportError):  # it came when nobody listened any more
                    assert future.result()[1].status_code == 503


def test_what_is_cut_at_the_end_is_told_to_come_again(settings, store):
    patient = {
        "TENSORBANK_LIMITS__BANK_S": "20",
        "TENSORBANK_BANK_PROBE_S": "20",
        "TENSORBANK_FINISH_S": "1",
        "TENSORBANK_LATEST_S": "0",
    }
    with serving("--settings", str(settings), **patient) as served:
        assert served.get(f"{ILL}/schema").status_code == 200
        with store.hanging(), ThreadPoolExecutor(1) as pool:
            asked = pool.submit(timed, served, f"{ILL}/schema")
            wait_until(lambda: n_active(served) >= 2, "the request has not begun")
            served.process.terminate()
            taken_s, answer = asked.result()
            check_problem(answer, 503, "ending")
            assert int(answer.headers["retry-after"]) > 0
            assert answer.headers["connection"] == "close"
            assert taken_s < 15
            assert served.process.wait(timeout=20) == 0


def test_a_service_starts_beside_a_store_that_hangs(settings, store):
    with (
        store.hanging(),
        serving("--settings", str(settings), **IMPATIENT, TENSORBANK_LATEST_S="0") as served,
    ):
        assert n_broken(served) == 1
        assert served.get(f"{WELL}/size").status_code == 200


# ------------------------------------------------- the parts, without a store


class Hang:
    """A call that comes back when it is let."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.n_begun = 0

    def __call__(self) -> str:
        self.n_begun += 1
        assert self.is_over.wait(30)
        return "done"


def bulkhead(watch: Watch, **changes: float) -> Bulkhead:
    options = {"n_threads": 2, "max_waiting": 1, "max_per_caller": 99, "limit_s": 0.05, **changes}
    return Bulkhead("eo", watch=watch, **options)  # type: ignore[arg-type]


def watch_of(look, **changes: float) -> Watch:
    return Watch("eo", look, **{"every_s": 30.0, "again_s": 0.02, "limit_s": 0.1, **changes})


async def refused(awaitable) -> str:
    with pytest.raises(Problem) as problem:
        await awaitable
    assert problem.value.status == 503
    assert int(problem.value.headers["Retry-After"]) > 0
    return problem.value.code


def test_threads_that_hang_are_not_multiplied():
    async def go() -> None:
        watch, hang = watch_of(lambda: None), Hang()
        bank = bulkhead(watch)
        codes = [await refused(bank.run(hang)) for _ in range(10)]
        assert codes == ["bank-unavailable"] * 3 + ["bank-busy"] * 7, "two run, one waits"
        assert hang.n_begun == 2
        hang.is_over.set()
        deadline = time.monotonic() + 10
        while True:  # the threads are free again
            try:
                assert await bank.run(lambda: 7) == 7
                break
            except Problem:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
        bank.close()

    asyncio.run(asyncio.wait_for(go(), 30))


def test_a_breaker_opens_with_its_watch_and_closes_with_it():
    async def go() -> None:
        state: list[str | None] = ["unreachable"]
        watch = watch_of(lambda: state[0])
        await watch.start()
        bank = bulkhead(watch, limit_s=5.0)
        assert await refused(bank.run(lambda: 7)) == "bank-unavailable"
        state[0] = None
        async with asyncio.timeout(10):
            while watch.problem is not None:
                await asyncio.sleep(0.01)
        assert await bank.run(lambda: 7) == 7

        def fail() -> None:
            state[0] = "unreachable"
            raise StorageError("it does not answer")

        with pytest.raises(StorageError):
            await bank.run(fail)
        async with asyncio.timeout(10):
            while watch.problem is None:  # though the next look was 30 s away
                await asyncio.sleep(0.01)
        await watch.close()
        bank.close()

    asyncio.run(asyncio.wait_for(go(), 30))


def test_a_look_that_hangs_is_a_problem_until_it_comes_back():
    async def go() -> None:
        hang = Hang()
        watch = watch_of(lambda: None if hang() else "never")
        await watch.start()
        assert watch.problem == "late"
        await asyncio.sleep(0.5)
        assert hang.n_begun <= 2, "looks that hang are not multiplied"
        hang.is_over.set()
        async with asyncio.timeout(10):
            while watch.problem is not None:
                await asyncio.sleep(0.01)
        await watch.close()

    asyncio.run(asyncio.wait_for(go(), 30))


def test_errors_of_threads_reach_who_waits():
    async def go() -> None:
        threads = Threads("test", 1)

        def exit_thread() -> None:
            raise SystemExit(3)

        with pytest.raises(SystemExit):
            await threads.run(exit_thread)
        with pytest.raises(RuntimeError):
            await threads.run(next, iter(()))
        assert await threads.run(lambda: 5) == 5, "the thread goes on"
        assert threads.n_held == 0
        threads.close()

    asyncio.run(asyncio.wait_for(go(), 30))
