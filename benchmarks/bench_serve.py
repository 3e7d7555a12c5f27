"""Measure the cost of the service: samples, tensors, previews and plans over HTTP,
and streaming through the service's plans.

    make bench-serve
    python benchmarks/bench_serve.py [--seconds 20] [--requests 100000] [--samples 200000] [--smoke]

Banks of benchmarks/synthetic_index.py are made first, in benchmarks/data: a large one for plans, a small one for tensors, which
is also put into SeaweedFS. The service runs as a process of its own, client and servers on one machine:

* metadata: requests for samples at a fixed rate, each timed from when it was due: a late answer counts against those behind it;
* npy: one modality of one sample, in turn with nginx that serves the same bytes as static files;
* preview: PNGs of samples that have not been asked for;
* plans: filters that nobody asked for, then their tasks as Arrow, read;
* streaming: epochs of the same plan, opened directly and through the service, in turn;
* memory: of all processes of the service, over many requests of all kinds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from process_tree import tree_bytes
from rich.console import Console
from rich.table import Table

import tensorbank as tb
from stream.serving import loopback
from tensorbank.client.http import HttpPool
from tensorbank.storage.store import Store
from tensorbank_demo.s3.server import S3Server

HERE = Path(__file__).parent
DATA, RESULTS = HERE / "data", HERE / "results"
RATE_HZ = 200
N_CLIENTS = 4
"""The number of connections that ask for tensors at once."""
N_PLANNED = 100_000
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """The amounts that are measured."""

    seconds: float
    n_requests: int
    n_samples: int
    n_stored: int
    repeats: int


@dataclass(frozen=True, slots=True)
class Result:
    """One promise and what was measured."""

    what: str
    target: str
    measured: str
    met: bool | None


# ------------------------------------------------------------------ servers


def made_index(n_samples: int) -> Path:
    """Return a bank of so many samples, whose shards can be read."""
    folder = DATA / f"serve-{n_samples}"
    if not (folder / "world").exists():
        script = HERE / "synthetic_index.py"
        words = ["--samples", n_samples, "--parts", max(1, n_samples // 250_000)]
        subprocess.run([sys.executable, script, folder, *map(str, words)], check=True)
    return folder


@contextmanager
def serving(bank: str, **environment: str) -> Iterator[tuple[str, int]]:
    """Return a service over a bank called ``eo``: its address and its process."""
    unlimited = {
        "TENSORBANK_LIMITS__REQUESTS_PER_MINUTE": "100000000",
        "TENSORBANK_LIMITS__QUERIES_PER_MINUTE": "1000000",
        "TENSORBANK_LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "tensorbank", "serve", bank, "--name", "eo", "--port", "0"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **unlimited, **environment},
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if " at http" not in line:
                log.seek(0)
                raise SystemExit(f"the service did not start: {log.read().decode()[-2000:]}")
            yield line.rsplit(" at ", 1)[1].strip(), process.pid
        finally:
            process.terminate()
            process.wait(timeout=60)
            process.stdout.close()


class Client:
    """A client that asks one service for samples of the table ``world``."""

    def __init__(self, url: str, ids: Sequence[str]) -> None:
        self.url = url
        self.table = f"{url}/v1/banks/eo/tables/world"
        self.ids = ids
        self.pool = HttpPool()

    def get(self, url: str, accept: str = "*/*") -> memoryview:
        """Return the body at an address; ends the benchmark where there is none."""
        answer = self.pool.ask("GET", url, {"Accept": accept})
        if answer.status != 200:
            raise SystemExit(f"{url}: {answer.status} {answer.text[:300]}")
        return answer.body

    def sample(self, number: int, below: str = "") -> memoryview:
        return self.get(f"{self.table}/samples/{quote(self.ids[number % len(self.ids)])}{below}")

    def post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        answer = self.pool.ask("POST", self.url + path, headers, json.dumps(content).encode())
        if answer.status not in (200, 201):
            raise SystemExit(f"{path}: {answer.status} {answer.text[:300]}")
        found: dict[str, Any] = json.loads(answer.text)
        return found


# ----------------------------------------------------------------- measures


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that a call took."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def at_rate(work: Callable[[int], Any], rate_hz: float, seconds: float) -> list[float]:
    """Return the seconds from the time each call was due to its end, sorted."""
    n = int(rate_hz * seconds)
    begin_s = time.perf_counter() + 0.1
    found = [0.0] * n
    numbers = iter(range(n))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            due_s = begin_s + number / rate_hz
            time.sleep(max(0.0, due_s - time.perf_counter()))
            work(number)
            found[number] = time.perf_counter() - due_s

    with ThreadPoolExecutor(32) as pool:
        for done in [pool.submit(client) for _ in range(32)]:
            done.result()
    return sorted(found)


def rate_of(work: Callable[[int], memoryview], seconds: float) -> float:
    """Return the bytes per second of some clients that ask one thing after another."""
    until_s = time.perf_counter() + seconds

    def client(first: int) -> int:
        n_bytes, number = 0, first
        while time.perf_counter() < until_s:
            n_bytes += len(work(number))
            number += N_CLIENTS
        return n_bytes

    started_s = time.perf_counter()
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        total = sum(pool.map(client, range(N_CLIENTS)))
    return total / (time.perf_counter() - started_s)


def metadata(client: Client, sizes: Sizes) -> list[Result]:
    """Measure samples by id, as JSON."""
    at_rate(client.sample, RATE_HZ, 1.0)
    found = at_rate(client.sample, RATE_HZ, sizes.seconds)
    p50, p99 = (1e3 * found[int(q * (len(found) - 1))] for q in (0.5, 0.99))
    what = f"sample metadata at {RATE_HZ} requests/s"
    return [
        Result(f"{what}, p50", "<= 10 ms", f"{p50:.1f} ms", p50 <= 10),
        Result(f"{what}, p99", "<= 50 ms", f"{p99:.1f} ms", p99 <= 50),
    ]


def tensors(client: Client, sizes: Sizes) -> list[Result]:
    """Measure one modality as .npy against the same files of nginx."""
    what = ".npy of one modality / nginx with the same files"
    if (shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")) is None:
        return [Result(what, ">= 0.5", "nginx is not installed", None)]
    n_files = 32
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for i in range(n_files):
            Path(folder, f"{i}.npy").write_bytes(client.sample(i, "/S2L2A.npy"))
        with loopback(Path(folder)) as origin:
            rates: dict[str, list[float]] = {"service": [], "nginx": []}
            for _ in range(sizes.repeats):
                each_s = max(1.0, sizes.seconds / 5)
                rates["service"].append(rate_of(lambda i: client.sample(i % n_files, "/S2L2A.npy"), each_s))
                rates["nginx"].append(
                    rate_of(lambda i: client.get(f"{origin.url}/{i % n_files}.npy"), each_s)
                )
    ratio = statistics.median(a / b for a, b in zip(rates["service"], rates["nginx"], strict=True))
    told = ", ".join(f"{name} {statistics.median(r) / 1e6:.0f} MB/s" for name, r in rates.items())
    return [Result(what, ">= 0.5", f"{ratio:.2f} ({told})", ratio >= 0.5)]


def previews(client: Client, sizes: Sizes) -> list[Result]:
    """Measure pictures, one after another."""
    n = 20 * sizes.repeats
    found = [timed(lambda i=i: client.sample(i, "/preview.png?composite=ndvi")) for i in range(n + 5)][5:]
    p50 = 1e3 * statistics.median(found)
    return [Result("preview, p50", "<= 60 ms", f"{p50:.1f} ms", p50 <= 60)]


def plans(client: Client, bank: tb.Bank, sizes: Sizes) -> list[Result]:
    """Measure plans of about 100,000 samples that nobody has asked for."""
    n_planned = min(N_PLANNED, sizes.n_samples // 2)
    share = 1 - n_planned / sizes.n_samples
    (row,) = bank.sql(f"SELECT quantile_cont(S2L2A.B08.mean, {share}) AS q FROM world").arrow().to_pylist()
    remote = tb.open(client.url)
    creation, delivery, counts = [], [], []
    for i in range(sizes.repeats + 1):
        condition = f"S2L2A.B08.mean > {row['q'] + 1e-6 * i!r}"
        question = {"table": "world", "filter": condition, "modalities": ["S2L2A", "S1RTC"]}
        creation.append(
            timed(lambda q=question: counts.append(client.post("/v1/banks/eo/plans", q)["n_samples"]))
        )
        query = remote.query("world").where(condition).select("S2L2A", "S1RTC")
        delivery.append(timed(query.plan))  # finds the plan that is there, and reads its tasks
    made_s, delivered_s = statistics.median(creation[1:]), statistics.median(delivery[1:])
    what = f"a plan of {counts[-1]:,} samples"
    return [
        Result(f"{what}, created", "<= 1 s", f"{made_s:.2f} s", made_s <= 1),
        Result(f"{what}, delivered as Arrow", "<= 1 s", f"{delivered_s:.2f} s", delivered_s <= 1),
    ]


def streaming(small: Path, sizes: Sizes) -> list[Result]:
    """Measure epochs from SeaweedFS, directly and by signed URLs."""
    with tempfile.TemporaryDirectory() as data, S3Server.start(data, deadline_s=START_S) as s3:
        keys = {"access_key": s3.access_key, "secret_key": s3.secret_key, "endpoint": s3.endpoint}
        url = f"{s3.url}/serve"
        direct = tb.open(url, region=s3.region, **keys)
        put(small, direct.catalog.store)
        settings = {
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_ENDPOINT_URL": s3.endpoint,
            "AWS_REGION": s3.region,
        }
        with serving(url, **settings) as (address, _):
            doors = {
                name: bank.query("world").select("sample_id", "S2L2A", "S1RTC").plan()
                for name, bank in (("direct", direct), ("service", tb.open(address)))
            }
            seconds: dict[str, list[float]] = {name: [] for name in doors}
            for turn in range(2 * sizes.repeats + 2):  # twice as many as else: the target is close
                order = list(doors.items())[:: 1 if turn % 2 else -1]
                for name, plan in order:
                    seconds[name].append(timed(lambda p=plan, t=turn: epoch(p, t)))
    pairs = zip(seconds["direct"][2:], seconds["service"][2:], strict=True)
    ratio = statistics.median(d / s for d, s in pairs)
    rates = {n: len(doors[n]) / statistics.median(s[2:]) for n, s in seconds.items()}
    told = ", ".join(f"{name} {rate:.0f} samples/s" for name, rate in rates.items())
    return [
        Result("streaming through the service / direct", ">= 0.95", f"{ratio:.2f} ({told})", ratio >= 0.95)
    ]


def epoch(plan: tb.Plan, seed: int) -> None:
    """Read everything once."""
    with plan.dataloader(batch_size=32, seed=seed) as loader:
        n = sum(len(batch["sample_id"]) for batch in loader)
    assert n == len(plan)


def put(folder: Path, store: Store) -> None:
    """Copy a bank of files into a store."""
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(root, name)
            key = str(path.relative_to(folder))
            if not key.startswith("stored/"):
                store.put(key, path.read_bytes())


def memory(client: Client, pid: int, sizes: Sizes) -> list[Result]:
    """Measure the memory of the service's processes after a tenth of many requests, and after all."""
    rng = random.Random(7)
    kinds = [
        "",
        "",
        "",
        "",
        "",
        "",
        "/S2L2A.npy?bands=B08",
        "/preview.png?composite=ndvi&size=64",
        "/statistics",
    ]
    asked = [(rng.randrange(len(client.ids)), rng.choice(kinds)) for _ in range(sizes.n_requests)]
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        cut = max(1, len(asked) // 5)
        list(pool.map(lambda a: len(client.sample(*a)), asked[:cut]))
        before = tree_bytes(pid)
        list(pool.map(lambda a: len(client.sample(*a)), asked[cut:]))
    after = tree_bytes(pid)
    growth = after / before - 1
    told = f"{growth:+.1%} ({before / 2**20:.0f} -> {after / 2**20:.0f} MiB)"
    return [Result(f"memory of the service over {len(asked):,} requests", "<= +5 %", told, growth <= 0.05)]


# --------------------------------------------------------------------- main


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of requests at a fixed rate")
    parser.add_argument("--requests", type=int, default=100_000, help="over which memory is watched")
    parser.add_argument(
        "--samples", type=int, default=200_000, help="of the table that is planned over; half are selected"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--smoke", action="store_true", help="a minute, to see that it runs; nothing is written"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    sizes = Sizes(options.seconds, options.requests, options.samples, 1_024, options.repeats)
    if options.smoke:
        sizes = Sizes(2.0, 500, 20_000, 512, 1)
    console = Console()
    large, small = made_index(sizes.n_samples), made_index(sizes.n_stored)
    ids = {
        f: tb.open(f).sql("SELECT sample_id FROM world").arrow()["sample_id"].to_pylist()
        for f in (large, small)
    }
    results: list[Result] = []
    with serving(str(large)) as (url, pid):
        client = Client(url, random.Random(3).sample(ids[large], min(20_000, len(ids[large]))))
        results += metadata(client, sizes)
        results += plans(client, tb.open(large), sizes)
        results += memory(client, pid, sizes)
    with serving(str(small)) as (url, _):
        client = Client(url, ids[small])
        results += tensors(client, sizes)
        results += previews(client, sizes)
    results += streaming(small, sizes)
    table = Table("what", "target", "measured", "")
    words = {True: "[green]met[/]", False: "[red]missed[/]", None: "skipped"}
    for r in results:
        table.add_row(r.what, r.target, r.measured, words[r.met])
    console.print(table)
    if options.smoke:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "command": "make bench-serve",
        "machine": {"cores": len(os.sched_getaffinity(0)), "platform": platform.platform()},
        "versions": {"python": platform.python_version()},
        "sizes": asdict(sizes),
        "targets": [asdict(r) for r in results],
    }
    (options.out / "serve.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
