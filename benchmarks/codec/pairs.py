"""Ingest and streaming under several profiles, in turn: CPU seconds of the whole process, over the whole way."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorbank as tb
from tensorbank_demo.landscape.archive import write_archives
from tensorbank_indexer import IngestOptions, ingest, open_source

__all__ = ["ingest_and_stream"]

BATCH = 8


def ingest_and_stream(profiles: Sequence[str], n_samples: int, n_rounds: int) -> dict[str, dict[str, float]]:
    """Return medians by profile: stored MB, CPU s/GB of tensors to ingest made-up samples, and to stream an epoch of them."""
    found: dict[str, dict[str, list[float]]] = {
        profile: {"stored_mb": [], "ingest_s_per_gb": [], "stream_s_per_gb": []} for profile in profiles
    }
    with tempfile.TemporaryDirectory() as folder:
        archives = write_archives(
            Path(folder) / "archives", n_samples=n_samples, samples_per_tar=n_samples, seed=1
        )
        source = str(archives.root)
        for number in range(n_rounds + 1):  # the first round warms the caches of files and code
            for profile in profiles:
                bank = tb.create(Path(folder) / f"{profile}-{number}")
                options = IngestOptions(profile=profile, n_workers=1, samples_per_shard=16)
                before = time.process_time()
                report = ingest(open_source(source), bank, "terramesh", options)
                ingest_s = time.process_time() - before
                gb = report.tensor_bytes / 1e9
                plan = bank.sql("SELECT * FROM terramesh").plan()
                stream_s = _cpu_seconds(lambda plan=plan: _epochs(plan, 3)) / 3
                if number:
                    found[profile]["stored_mb"].append(report.stored_bytes / 1e6)
                    found[profile]["ingest_s_per_gb"].append(ingest_s / gb)
                    found[profile]["stream_s_per_gb"].append(stream_s / gb)
    return {
        profile: {name: statistics.median(values) for name, values in of.items()}
        for profile, of in found.items()
    }


def _cpu_seconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def _epochs(plan: tb.Plan, n: int) -> None:
    loader = plan.dataloader(batch_size=BATCH, seed=1, device="cpu", drop_last=False)
    for _ in range(n):
        for _ in loader:
            pass
