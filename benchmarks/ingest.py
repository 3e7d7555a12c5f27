"""Measure the speed of ingest, the shares of its steps, its memory and the size of the index.

    make bench-ingest
    python benchmarks/ingest.py [--samples 480] [--workers 2] [--repeats 3] [--source FOLDER] [--out FILE]

Beside each ingest runs its ceiling, interleaved: the same workers decode the same archives and encode the same blocks, and do
nothing else, neither statistics nor storage. What ingest adds to that is the price of the index.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from process_tree import PeakMemory

import tensorbank as tb
from tensorbank.reading import DEFAULT_PROFILE, codec_for
from tensorbank_demo.landscape.archive import write_archives
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_indexer.modalities import describe
from tensorbank_indexer.source import SampleRef, Source

RESULTS = Path(__file__).parent / "results"
SAMPLES_PER_TASK = 32


def codec_only(source: Source, refs: list[SampleRef]) -> int:
    """Decode samples and encode their blocks again; returns the encoded bytes."""
    n_bytes = 0
    for raw in source.read(refs):
        for name, given in raw.modalities.items():
            modality = describe(name, given.pixels.dtype.name, given.bands, given.pixels.shape)
            codec = codec_for(DEFAULT_PROFILE, modality)
            n_bytes += sum(len(codec.encode(np.ascontiguousarray(b))) for date in given.pixels for b in date)
    return n_bytes


def ceiling_s(source: Source, workers: int) -> float:
    """Return the seconds to decode and encode all samples with warm worker processes."""
    archives, _ = source.archives()
    refs = [ref for archive in archives for ref in source.scan(archive).samples]
    tasks = [refs[i : i + SAMPLES_PER_TASK] for i in range(0, len(refs), SAMPLES_PER_TASK)]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver")) as pool:
        list(pool.map(codec_only, [source] * workers, [refs[:1]] * workers))
        started = time.perf_counter()
        list(pool.map(codec_only, [source] * len(tasks), tasks))
        return time.perf_counter() - started


def measure(source: Source, workers: int) -> dict[str, Any]:
    """Measure one ingest into a fresh local bank, and its ceiling."""
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as memory:
        bank = tb.create(folder)
        report = ingest(source, bank, "terramesh", IngestOptions(n_workers=workers))
        snapshot = bank.table("terramesh").snapshot()
        index_on_disk = sum(
            f.stat().st_size for f in Path(folder, "terramesh/index").rglob("*") if f.is_file()
        )
    ceiling = ceiling_s(source, workers)
    seconds = report.seconds
    return {
        "samples": report.n_added,
        "samples_per_s": report.n_added / report.elapsed_s,
        "mb_per_s": report.tensor_bytes / 1e6 / report.elapsed_s,
        "of_ceiling": ceiling / report.elapsed_s,
        "ceiling_samples_per_s": report.n_added / ceiling,
        "peak_mib": memory.peak_bytes / 2**20,
        "index_share": snapshot.index_bytes / snapshot.tensor_bytes,
        "index_with_log_share": index_on_disk / snapshot.tensor_bytes,
        **{
            f"{name}_share": getattr(seconds, name) / seconds.total
            for name in ("read", "statistics", "encode", "write")
        },
    }


def main() -> None:
    """Print medians as a table, and keep them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=480)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--source", type=Path, help="TerraMesh archives; made if not given")
    parser.add_argument("--out", type=Path, default=RESULTS / "ingest.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.source
        if root is None:
            root = write_archives(Path(folder), n_samples=options.samples, samples_per_tar=256, seed=1).root
        source = open_source(str(root))
        runs = [measure(source, options.workers) for _ in range(options.repeats)]
    figures = {
        name: {
            "median": statistics.median(r[name] for r in runs),
            "least": min(r[name] for r in runs),
            "most": max(r[name] for r in runs),
        }
        for name in runs[0]
    }
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {options.workers} workers"
    )
    for name, f in figures.items():
        print(f"{name:<24}{f['median']:>12.4f}   [{f['least']:.4f} .. {f['most']:.4f}]")
    text = {
        "command": "make bench-ingest",
        "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
        "setup": {"samples": options.samples, "workers": options.workers, "repeats": options.repeats},
        "figures": figures,
    }
    options.out.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
