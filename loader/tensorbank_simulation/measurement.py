"""The measurement of a machine: what reading costs it, through the reader and the loader that trainings use.

CPU seconds rather than time are measured where possible, with as many threads as a loader has, and the least of some rounds is
kept: others who use the machine add to both, but never take from them.
"""

from __future__ import annotations

import math
import mmap
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from tensorbank.errors import InvalidInputError
from tensorbank.fetch import Fetcher, FetchOptions
from tensorbank.plans import Plan
from tensorbank.ranges import ByteRange
from tensorbank.reading import PROFILES, SampleReader, ranges_of
from tensorbank_simulation.calibration import Calibration
from tensorbank_simulation.latency import Latency
from tensorbank_simulation.made_up import write_blocks
from tensorbank_simulation.timed_reads import Kept, kept, timed_reads

__all__ = ["calibrate", "with_store"]

N_ROUNDS = 3
SMALL_SIDE, SIDE, N_BANDS = 16, 264, 12
N_SMALL = 1536
"""The number of small samples: a tenth of a second of bookkeeping."""
N_LARGE = 48
"""The number of samples of 12 bands: 80 MB of tensors, more than the processor's caches hold."""
BATCHES = (64, 8)
APART = FetchOptions(max_gap_bytes=0, max_amplification=1.0, max_hedge_share=0.0)
"""Options of a read for each run of blocks."""
N_LATENCIES, N_PROBING, PROBE_BYTES = 256, 2, 1024
"""The number of small reads whose latency is measured, how many of them are under way, and their size: with many, the time that
they wait for each other here would be counted as the store's, and forecasts have that wait already."""
N_RAW = 8
"""The number of threads that read made-up blocks raw, as many as a loader begins with on a disk."""
N_STREAMS = 64
"""The number of connections that fill the network, as many as ``bench stream`` uses for raw reads."""
N_WARM = 16
FRESH_BYTES = 128 << 20


def calibrate(plan: Plan | None = None, *, seconds: float = 2.0) -> Calibration:
    """Measure this machine; where a plan is given also the store that it is read from, and its modalities.

    Parameters
    ----------
    plan
        Plan of some samples of a bank.
    seconds
        About how long each question to the store is asked.

    Raises
    ------
    InvalidInputError
        The plan selects no sample or no tensor.
    NotFoundError, StorageError
        The store fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        found = _of_machine(Path(scratch))
    return found if plan is None else with_store(found, plan, seconds=seconds)


def with_store(
    calibration: Calibration, plan: Plan, *, seconds: float = 2.0, modalities: bool = True
) -> Calibration:
    """Return a calibration with what the store of a plan does, and what its modalities cost.

    Parameters
    ----------
    modalities
        Measure the modalities, too; else those of the calibration stay.
    """
    ranges = _ranges(plan)
    reader = plan.origin.open()
    small = [ByteRange(r.key, r.start, min(r.end, r.start + PROBE_BYTES)) for r in ranges]
    some = _repeated(small, N_LATENCIES)
    timed_reads(reader, _repeated(small, N_WARM * N_PROBING), n_threads=N_PROBING, within_s=seconds)
    probed = timed_reads(reader, some, n_threads=N_PROBING, within_s=seconds)
    request_s = probed.cpu_s / len(probed.seconds)
    many = _repeated(ranges, max(len(ranges), 4096))
    timed_reads(reader, many, n_threads=N_STREAMS, within_s=seconds / 4)
    filled = timed_reads(reader, many, n_threads=N_STREAMS, within_s=seconds)
    request_s_per_gb = max(filled.cpu_s - request_s * len(filled.seconds), 0.0) / filled.n_bytes * 1e9
    found = replace(
        calibration,
        request_s=request_s,
        request_s_per_gb=request_s_per_gb,
        is_local=reader.is_local,
        # What was measured is a wait and the work on it, and forecasts have the work elsewhere.
        latency=Latency.constant(0.0)
        if reader.is_local
        else Latency.of([max(s - request_s, 0.0) for s in probed.seconds]),
    )
    if not reader.is_local:
        largest = sorted(ranges, key=lambda r: r.n_bytes)[-4:]
        alone = timed_reads(reader, largest, n_threads=1, within_s=seconds)
        latency_s = median(probed.seconds)
        sent_s = [s - latency_s for s in alone.seconds]
        rates = [r.n_bytes / s for r, s in zip(largest, sent_s, strict=False) if s > 0]
        found = replace(
            found,
            connection_bytes_s=max(rates, default=float("inf")),
            bandwidth_bytes_s=filled.n_bytes / max(filled.wall_s - latency_s, filled.wall_s / 2),
        )
    if modalities:
        costs = {h.name: _decode_s_per_gb(_only(plan, h.name), found, seconds) for h in plan.handles}
        found = replace(found, decode_s_per_gb={**found.decode_s_per_gb, **costs})
    return found


def _of_machine(folder: Path) -> Calibration:
    """Measure what does not hang on a store, with made-up blocks in a folder."""
    one = write_blocks(folder / "one", n_samples=N_SMALL, n_bands=1, side=SMALL_SIDE, profile="balanced")
    twelve = write_blocks(
        folder / "twelve", n_samples=N_SMALL, n_bands=N_BANDS, side=SMALL_SIDE, profile="balanced"
    )
    large, small_batch = BATCHES
    one_s = _loader_s(one, large)
    block_s = max(_loader_s(twelve, large) - one_s, 0.0) / (N_BANDS - 1) / N_SMALL
    batch_s = max(_loader_s(one, small_batch) - one_s, 0.0) / (N_SMALL / small_batch - N_SMALL / large)
    ranges = _ranges(one)
    request_s = _least(lambda: _raw_s(one, ranges)) / len(ranges)
    beside_s = one_s / N_SMALL - block_s - batch_s / large
    read_s = max(beside_s - request_s, 0.0)
    made = Calibration(
        machine=f"{platform.machine()}, {_processor()}",
        n_cores=len(os.sched_getaffinity(0)),
        decode_s_per_gb={},
        block_s=block_s,
        read_s=read_s,
        batch_s=batch_s,
        request_s=request_s,
        request_s_per_gb=0.0,
        fresh_s_per_gb=_least(_fresh_s) / FRESH_BYTES * 1e9,
        hit_s=0.0,
        hit_s_per_gb=0.0,
        miss_s=0.0,
        miss_s_per_gb=0.0,
    )
    plans = {
        profile: write_blocks(
            folder / profile, n_samples=N_LARGE, n_bands=N_BANDS, side=SIDE, profile=profile
        )
        for profile in PROFILES
    }
    decoding = {profile: _decode_s_per_gb(plan, made, 1.0) for profile, plan in plans.items()}
    whole = plans["balanced"]
    whole_ranges = _ranges(whole)
    request_s_per_gb = _least(lambda: _raw_s(whole, whole_ranges)) - request_s * len(whole_ranges)
    made = replace(
        made, decode_s_per_gb=decoding, request_s_per_gb=max(request_s_per_gb, 0.0) / whole.read_bytes * 1e9
    )
    hit, miss = _cache_costs(made, one, whole, folder)
    return replace(made, hit_s=hit[0], hit_s_per_gb=hit[1], miss_s=miss[0], miss_s_per_gb=miss[1])


def _cache_costs(made: Calibration, small: Plan, large: Plan, folder: Path) -> list[tuple[float, float]]:
    """Measure what hits and misses of the cache cost beyond reading without one: seconds of a read, and of a GB."""
    found: dict[str, list[float]] = {}
    for name, plan, batch_size in (("small", small, BATCHES[0]), ("large", large, 8)):
        without_s = _loader_s(plan, batch_size)
        miss_s = hit_s = math.inf
        for number in range(N_ROUNDS):
            options = replace(APART, cache_dir=folder / f"cache-{name}-{number}")
            with plan.dataloader(batch_size=batch_size, seed=1, shuffle=True, options=options) as loader:
                miss_s = min(miss_s, _cpu_s(lambda: _epoch(loader)))
                hit_s = min(hit_s, _cpu_s(lambda: _epoch(loader)))
        fresh_s = made.fresh_s_per_gb * sum(h.n_bytes for h in plan.handles) * len(plan) / 1e9
        read_s = made.request_s * len(plan) + made.request_s_per_gb * plan.read_bytes / 1e9
        miss_s, hit_s = miss_s - without_s - fresh_s, hit_s - without_s + read_s
        found[name] = [max(hit_s, 0.0), max(miss_s, 0.0)]
    costs = []
    for small_s, large_s in zip(found["small"], found["large"], strict=True):
        each_s = small_s / len(small)
        costs.append((each_s, max(large_s - each_s * len(large), 0.0) / large.read_bytes * 1e9))
    return costs


def _loader_s(plan: Plan, batch_size: int) -> float:
    """Return the CPU seconds in which the loader reads an epoch of a local plan."""
    with plan.dataloader(batch_size=batch_size, seed=1, shuffle=True, options=APART) as loader:
        _epoch(loader)
        return _least(lambda: _cpu_s(lambda: _epoch(loader)))


def _epoch(loader: object) -> None:
    for _ in loader:  # type: ignore[attr-defined]  # the loader's type is torch's, which is imported late
        pass


def _raw_s(plan: Plan, ranges: list[ByteRange]) -> float:
    return timed_reads(plan.origin.open(), ranges, n_threads=N_RAW, within_s=60.0).cpu_s


def _decode_s_per_gb(plan: Plan, made: Calibration, seconds: float) -> float:
    """Measure the CPU seconds of a GB of tensors: of reads from memory, less what the loader does for each block and read."""
    some = np.random.default_rng(0).permutation(len(plan))[:N_LARGE]
    reads_of = {int(at): ranges_of(plan.addresses, [np.array([at])], APART) for at in some}
    wanted = [r for ranges in reads_of.values() for r in ranges]
    found = dict(kept(plan.origin.open(), wanted, within_s=seconds))
    positions = np.array([at for at, ranges in reads_of.items() if all(r in found for r in ranges)], np.int64)
    if not len(positions):
        raise InvalidInputError(
            "no sample came in time, so that decoding cannot be measured; give more seconds"
        )
    source = Kept(plan.bank, {(r.key, r.start, r.end): data for r, data in found.items()})
    reader = SampleReader(plan.addresses, Fetcher(source, replace(APART, n_threads=made.n_cores)))
    buffers = {h.name: np.zeros((len(positions), *h.shape), h.modality.dtype) for h in plan.handles}

    def work() -> None:
        each = [slice(i, i + 1) for i in range(len(positions))]
        coming = [reader.submit(positions[i], {name: b[i] for name, b in buffers.items()}) for i in each]
        for batch in coming:
            batch.wait()

    cpu_s = _least(lambda: _cpu_s(work))
    reader.close()
    n_blocks = sum(end - start for h in plan.handles for start, end in h.runs) * len(positions)
    beside_s = made.block_s * n_blocks + made.read_s * len(found)
    return max(cpu_s - beside_s, 0.0) / sum(b.nbytes for b in buffers.values()) * 1e9


def _only(plan: Plan, name: str) -> Plan:
    """Return a plan of the samples that have one modality, and of that alone."""
    handle = next(h for h in plan.handles if h.name == name)
    has = np.flatnonzero(plan.addresses[name].present)
    return replace(plan.take(has), handles=(handle,))


def _ranges(plan: Plan) -> list[ByteRange]:
    """Return the reads of a plan, one sample after another, in a random order."""
    if not len(plan) or not plan.handles:
        raise InvalidInputError(
            "the query selects no sample with a tensor, so that there is nothing to measure"
        )
    at = np.random.default_rng(1).permutation(len(plan))[:4096]
    return ranges_of(plan.addresses, [at[i : i + 1] for i in range(len(at))], FetchOptions())


def _fresh_s() -> float:
    """Return the CPU seconds of writing to memory for the first time, beyond those of writing to it again."""
    memory = np.frombuffer(mmap.mmap(-1, FRESH_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    first_s = _cpu_s(lambda: memory.fill(1))
    return max(first_s - _cpu_s(lambda: memory.fill(2)), 0.0)


def _repeated(ranges: list[ByteRange], n: int) -> list[ByteRange]:
    return [ranges[i % len(ranges)] for i in range(n)]


def _least(measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(N_ROUNDS))


def _cpu_s(work: Callable[[], None]) -> float:
    """Return the CPU seconds of this process for some work."""
    before_s = time.process_time()
    work()
    return time.process_time() - before_s


def _processor() -> str:
    """Return the name of the processor, or what is known of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
