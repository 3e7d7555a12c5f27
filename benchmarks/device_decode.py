"""Measure decoding of stored blocks on a GPU beside decoding on the CPU, and what a batch costs before any of it is decoded.

    python benchmarks/device_decode.py [--samples 32] [--profiles hot,balanced,small,raw]

Made-up samples are ingested with each profile and read undecoded, into page-locked memory where there is a GPU. Then come, in
turn, medians of rounds: the blocks' headers become batches of streams; checksums are compared; Blosc decodes on all
processors, and the tensors are copied; stored bytes are copied, and nvCOMP and torch decode them. Both ways must give the same
bits. Without a GPU the last way is left out, and said to be. ``make bench-device`` prints the same behind the figures of copies,
where there is a GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

import tensorbank as tb
from tensorbank.errors import InvalidInputError
from tensorbank.plans import Plan
from tensorbank.reading import PROFILES
from tensorbank_demo.landscape.archive import write_archives
from tensorbank_gpu import (
    NvcompStreams,
    StoredBatch,
    StoredReader,
    StreamDecoder,
    check_sums,
    decode_on_device,
    decode_on_host,
    walk_runs,
)
from tensorbank_indexer import IngestOptions, ingest, open_source

N_ROUNDS = 7
SQL = "SELECT sample_id, S2L2A, S1RTC, DEM, NDVI, LULC FROM t"


@dataclass(frozen=True, slots=True)
class DecodingReport:
    """The measurements of one batch of one profile.

    Parameters
    ----------
    stored_mb, tensor_mb
        Stored and decoded size of the batch.
    n_blocks, n_streams
        Blocks of the batch, and streams of LZ4 and zstd that they hold.
    parse_us, verify_us
        Microseconds a block that headers and checksums take, both on one processor.
    host_ms, device_ms
        Milliseconds from stored bytes on the host to tensors on the device; the second None where there is no such decoder.
    """

    profile: str
    stored_mb: float
    tensor_mb: float
    n_blocks: int
    n_streams: int
    parse_us: float
    verify_us: float
    host_ms: float
    device_ms: float | None

    def sentence(self) -> str:
        """Return the figures as one sentence."""
        device = "not measured" if self.device_ms is None else f"{self.device_ms:.1f} ms"
        return (
            f"{self.profile}: {self.stored_mb:.1f} MB in {self.n_blocks} blocks of {self.n_streams} streams, decoded "
            f"{self.tensor_mb:.1f} MB; headers {self.parse_us:.1f} us and checksums {self.verify_us:.1f} us a block; "
            f"on {os.cpu_count()} processors {self.host_ms:.1f} ms, on the device {device}"
        )


def reports(
    n_samples: int, profiles: Sequence[str], device: torch.device, streams: StreamDecoder | None
) -> Iterator[DecodingReport]:
    """Ingest made-up samples with each profile, and yield what decoding a batch of them takes."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_archives(Path(folder), n_samples=n_samples, samples_per_tar=n_samples, seed=1).root
        for profile in profiles:
            bank = tb.create(Path(folder) / f"bank-{profile}")
            ingest(open_source(str(root)), bank, "t", IngestOptions(n_workers=1, profile=profile))
            yield measure(bank.sql(SQL).plan(), profile, device, streams)


def measure(plan: Plan, profile: str, device: torch.device, streams: StreamDecoder | None) -> DecodingReport:
    """Read all samples of a plan undecoded, and measure what decoding them takes.

    Raises
    ------
    RuntimeError
        The device decodes to other bits than the host.
    """
    with closing(StoredReader.of(plan, pinned=device.type == "cuda")) as reader:
        batch = reader.read(range(len(plan)))
    parse_s = _timed(device, batch.streams)
    verify_s = _timed(device, lambda: _verify(batch))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        host_s = _timed(device, lambda: decode_on_host(batch, device, threads))
        device_s = None
        if streams is not None:
            device_s = _timed(device, lambda: decode_on_device(batch, device, streams))
            expected = decode_on_host(batch, device, threads)
            for name, tensor in decode_on_device(batch, device, streams).items():
                if not torch.equal(tensor.view(torch.uint8), expected[name].view(torch.uint8)):
                    raise RuntimeError(f"{name} is not what the host decodes it to")
    n_blocks = len(batch.layout.rows)
    return DecodingReport(
        profile=profile,
        stored_mb=len(batch.data) / 1e6,
        tensor_mb=batch.n_bytes / 1e6,
        n_blocks=n_blocks,
        n_streams=batch.streams().n_streams,
        parse_us=parse_s / n_blocks * 1e6,
        verify_us=verify_s / n_blocks * 1e6,
        host_ms=host_s * 1e3,
        device_ms=None if device_s is None else device_s * 1e3,
    )


def _verify(batch: StoredBatch) -> None:
    """Do what a reading thread does with each run that has come: walk it, and compare checksums."""
    stored, runs = batch.data.numpy(), batch.layout.runs
    check_sums(stored, walk_runs(stored, runs.spans, runs.n_blocks))


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    """Return the median seconds of some rounds, of which the first does not count."""
    seconds = []
    for _ in range(N_ROUNDS + 1):
        _synchronize(device)
        started_s = time.perf_counter()
        work()
        _synchronize(device)
        seconds.append(time.perf_counter() - started_s)
    return float(median(np.array(seconds[1:])))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run(n_samples: int, profiles: Sequence[str]) -> None:
    """Print what decoding takes, on the GPU too if there is one and nvCOMP is installed."""
    device, streams = torch.device("cpu"), None
    if torch.cuda.is_available():
        device = torch.device("cuda")
        try:
            streams = NvcompStreams.load()
        except InvalidInputError as error:
            print(f"nothing is decoded on the GPU: {error}")
    else:
        print("no GPU: only the work of the CPU is measured")
    for report in reports(n_samples, profiles, device, streams):
        print(report.sentence(), flush=True)


def main() -> int:
    """Run the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=32, help="samples a batch")
    parser.add_argument("--profiles", default=",".join(PROFILES), help="codec profiles")
    given = parser.parse_args()
    run(given.samples, given.profiles.split(","))
    return 0


if __name__ == "__main__":
    sys.exit(main())
