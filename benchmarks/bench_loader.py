"""Measure what the loader costs: CPU seconds a GB of tensors by codec profile, and how much one process hands out of memory.

    make bench-loader [SOURCE=ARCHIVES]
    python benchmarks/bench_loader.py [--source ARCHIVES] [--samples N] [--repeats N] [--profiles raw,balanced]

Archives in the format of TerraMesh are ingested once for each profile, made-up ones if none are given. nginx serves the banks on
one core, the loader streams them on another. The ceiling of each figure, in the same rounds: the same reads fetched, verified and
decoded into buffers that are there, by threads that do nothing else. With the bytes in memory, what the loader takes beside this
ceiling is Python, which holds the interpreter's lock: its microseconds a read, and the samples a second that they allow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rich.console import Console

import tensorbank as tb
from bench_stream import as_table
from stream.figure import Figure, paired
from stream.reference import Reference
from stream.runs import Run, batches_of, fetched, interleaved, read_bytes, stream
from stream.serving import loopback
from tensorbank.fetch import RangeReader
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.plans import StoreAddress
from tensorbank.reading.raw import ranges_of
from tensorbank_demo.landscape.archive import write_archives
from tensorbank_indexer import IngestOptions, ingest, open_source

RESULTS = Path(__file__).parent / "results"
PROFILES = ("balanced", "hot", "small", "raw")
MAX_CPU_S_PER_GB = {"raw": 0.85, "balanced": 1.0}
"""The targets: CPU seconds a GB of tensors."""
MAX_US_PER_READ, MIN_SAMPLES_PER_S = 15.0, 6000.0
N_THREADS: Mapping[str, int | None] = {"1 thread": 1, "16 threads": 16, "threads as measured": None}
TABLE = "terramesh"
BATCH = 16
N_REFERENCE_THREADS = 4


@dataclass(eq=False)
class InMemory:
    """A reader of a folder's objects that keeps them in memory. Keeps :class:`tensorbank.fetch.RangeReader`."""

    folder: Path
    url: str = "memory://bank"
    cache_name: str = "memory"
    is_local: bool = False
    _objects: dict[str, memoryview] = field(default_factory=dict)

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        """Return bytes of an object, which is read when it is first asked for."""
        if key not in self._objects:
            self._objects[key] = memoryview((self.folder / key).read_bytes())
        return self._objects[key][start:end]


@dataclass(frozen=True)
class MemoryAddress(StoreAddress):
    """The address of a bank whose bytes one reader keeps in memory, whenever it is opened."""

    reader: InMemory | None = None

    def open(self, patience_s: float = 0.0) -> RangeReader:  # noqa: ARG002 - memory needs no patience
        """Return the one reader."""
        return self.reader or InMemory(Path(self.url))


def make_banks(folder: Path, source: Path, profiles: Sequence[str]) -> dict[str, Path]:
    """Ingest the archives once for each profile, unless they are there; the folders of the banks."""
    banks = {profile: folder / profile for profile in profiles}
    for profile, bank in banks.items():
        if not bank.exists():
            options = IngestOptions(profile=profile, n_workers=len(os.sched_getaffinity(0)))
            ingest(open_source(str(source)), tb.create(str(bank)), TABLE, options)
    return banks


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Keep this process and those that it starts on some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def plan_of(bank: Path) -> tb.Plan:
    """Return a plan of everything."""
    return tb.open(str(bank)).sql(f"SELECT * FROM {TABLE}").plan()


def in_memory(bank: Path) -> tb.Plan:
    """Return a plan of everything, whose bytes are read once and then lie in memory."""
    return replace(plan_of(bank), origin=MemoryAddress(str(bank), reader=InMemory(bank)))


def works_of(plan: tb.Plan, n_threads: Mapping[str, int | None]) -> dict[str, Callable[[], Run]]:
    """Return the loader by numbers of threads, and its ceiling."""
    n_bytes = read_bytes(plan, BATCH, epoch=1, shuffle="full", options=FetchOptions())

    def loader(n: int | None) -> Run:
        return stream(plan, BATCH, options=FetchOptions(n_threads=n), n_bytes=n_bytes).last

    reference = Reference(plan, batches_of(plan, BATCH, epoch=1), FetchOptions())
    return {
        **{name: partial(loader, n) for name, n in n_threads.items()},
        "reference": partial(reference.run, N_REFERENCE_THREADS, verify=True),
    }


def served(banks: Mapping[str, Path], *, repeats: int) -> Iterator[Figure]:
    """Measure the loader of all profiles over loopback: each round runs everything once."""
    cores = sorted(os.sched_getaffinity(0))
    works: dict[str, Callable[[], Run]] = {}
    n_bytes: dict[str, int] = {}
    with ExitStack() as servers:
        for profile, bank in banks.items():
            with on_cores({cores[-1]}):
                origin = servers.enter_context(loopback(bank))
            plan = origin.plan(plan_of(bank))
            n_bytes[profile] = plan.tensor_bytes
            works |= {f"{profile}, {name}": work for name, work in works_of(plan, N_THREADS).items()}
            works[f"{profile}, fetched"] = fetched(plan, BATCH)
        with on_cores({cores[0]}):
            found = interleaved(works, repeats)
    for profile in banks:

        def cost(name: str, profile: str = profile) -> list[float]:
            return [r.cpu_s / n_bytes[profile] * 1e9 for r in found[f"{profile}, {name}"]]

        for name in N_THREADS:
            yield Figure(
                profile,
                name,
                median(cost(name)),
                "CPU s/GB",
                median(cost("reference")),
                paired(cost(name), cost("reference")),
                MAX_CPU_S_PER_GB.get(profile),
                "<=",
                "value",
                detail={
                    "fetched and dropped, CPU s/GB": median(cost("fetched")),
                    "stored_bytes": found[f"{profile}, {name}"][0].n_bytes,
                    "tensor_bytes": n_bytes[profile],
                    "wall_s": median(r.wall_s for r in found[f"{profile}, {name}"]),
                },
            )


def from_memory(bank: Path, *, repeats: int) -> Iterator[Figure]:
    """Measure what one process hands out when the bytes of a bank that is not compressed lie in memory."""
    plan = in_memory(bank)
    with on_cores({min(os.sched_getaffinity(0))}):
        found = interleaved(works_of(plan, {"loader": 1}), repeats)
    n_reads = len(ranges_of(plan.addresses, batches_of(plan, BATCH, epoch=1), FetchOptions()))
    own_s = [a.cpu_s - b.cpu_s for a, b in zip(found["loader"], found["reference"], strict=True)]
    rates = {name: [len(plan) / r.wall_s for r in runs] for name, runs in found.items()}
    yield Figure(
        "memory",
        "samples of one core, not compressed",
        median(rates["loader"]),
        "samples/s",
        median(rates["reference"]),
        paired(rates["loader"], rates["reference"]),
    )
    us = median(own_s) / n_reads * 1e6
    yield Figure(
        "memory", "a read, beside its decoding", us, "us", None, None, MAX_US_PER_READ, "<=", "value"
    )
    allowed = len(plan) / median(own_s)
    what = "samples that this allows a process"
    yield Figure("memory", what, allowed, "samples/s", None, None, MIN_SAMPLES_PER_S, ">=", "value")


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="archives in the format of TerraMesh")
    parser.add_argument("--folder", type=Path, help="folder that keeps the banks")
    parser.add_argument("--samples", type=int, default=203, help="made-up samples, without archives")
    parser.add_argument("--profiles", default=",".join(PROFILES), help="separated by commas")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "loader.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        source = options.source
        if source is None:
            archives = write_archives(
                folder / "archives", n_samples=options.samples, samples_per_tar=128, seed=1
            )
            source = archives.root
        banks = make_banks(folder, source, options.profiles.split(","))
        found = list(served(banks, repeats=options.repeats))
        if "raw" in banks:
            found += from_memory(banks["raw"], repeats=options.repeats)
    Console(width=None if sys.stdout.isatty() else 140).print(as_table(found))
    facts = {
        "command": "make bench-loader",
        "machine": {"cores": len(os.sched_getaffinity(0)), "platform": platform.platform()},
        "versions": {
            n: version(n) for n in ("tensorbank", "torch", "obstore", "numcodecs", "crc32c", "numpy")
        },
        "setup": {"batch": BATCH, "repeats": options.repeats},
        "figures": [f.to_dict() for f in found],
    }
    options.out.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
