"""Measure the share of the copy to a GPU that is hidden behind the model's work, and the rate of the copy.
Needs no bank.

    python benchmarks/device_stream.py [--samples 64] [--batches 200] [--json] [--decoding]

Batches that are decoded already go through the loader's device path, so that neither network nor CPU is measured. Three times are
taken in turn, medians of rounds: the steps alone, the copies alone, and the steps on batches that are copied meanwhile. What the
last takes beyond the first is the part of the copies that is not hidden. The ceiling of the rate is one large copy out of
page-locked memory. With ``--decoding``, device_decode.py follows: blocks that are decoded on the GPU, beside those on the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import cast

import torch

import device_decode
from tensorbank.reading import PROFILES
from tensorbank_loader.batch.steps import Batches
from tensorbank_loader.device import Accelerator, accelerator_of, on_device

N_ROUNDS = 5
STEP_TO_COPY = 2.0
"""A step takes twice as long as the copy of its batch: less than a model's does."""
SIDE = 4096
"""The side of the square matrices that stand for a model's work."""


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """The measurements of one batch: milliseconds of its copy and of its step;
    the share of the copy that is hidden; GB/s of copies.
    """

    device: str
    batch_mb: float
    copy_ms: float
    step_ms: float
    hidden_ratio: float
    gb_s: float
    ceiling_gb_s: float


class Decoded:
    """A source of batches that are all there: a few, again and again."""

    ready = True

    def __init__(self, batches: list[dict[str, torch.Tensor]], n: int) -> None:
        self._batches, self._n, self._at = batches, n, 0

    def __iter__(self) -> Decoded:
        return self

    def __next__(self) -> tuple[int, dict[str, torch.Tensor]]:
        if self._at == self._n:
            raise StopIteration
        self._at += 1
        return self._at - 1, self._batches[self._at % len(self._batches)]


def hidden_ratio(steps_s: float, copies_s: float, both_s: float) -> float:
    """Return the share of the copies' time that running both takes less than one after the other; in [0, 1]."""
    return min(max(1 - (both_s - steps_s) / copies_s, 0.0), 1.0)


def measure(n_samples: int, n_batches: int, device: torch.device, accelerator: Accelerator) -> DeviceReport:
    """Stream ``n_batches`` decoded batches of Sentinel-2 and Sentinel-1 samples to a GPU, with work and without."""
    batches = [_batch(n_samples) for _ in range(4)]
    n_bytes = sum(t.nbytes for t in batches[0].values())
    source = torch.ones(1 << 30, dtype=torch.uint8).pin_memory()
    target = torch.empty_like(source, device=device)
    weights = torch.randn(SIDE, SIDE, device=device, dtype=torch.bfloat16)

    def multiply(times: int) -> None:
        for _ in range(times):
            torch.mm(weights, weights)

    def steps(times: int) -> None:
        for _ in range(n_batches):
            multiply(times)

    def stream(times: int) -> None:
        for _ in on_device(cast(Batches, Decoded(batches, n_batches)), device, accelerator):
            multiply(times)

    stream(1)  # warms up
    copies_s = _timed(device, lambda: stream(0))
    one_s = _timed(device, lambda: multiply(100)) / 100
    times = max(round(STEP_TO_COPY * copies_s / n_batches / one_s), 1)
    rounds = []
    for _ in range(N_ROUNDS):
        steps_s = _timed(device, lambda: steps(times))
        copies_s = _timed(device, lambda: stream(0))
        both_s = _timed(device, lambda: stream(times))
        large_s = _timed(device, lambda: target.copy_(source, non_blocking=True))
        rounds.append(
            (steps_s, copies_s, hidden_ratio(steps_s, copies_s, both_s), source.nbytes / large_s / 1e9)
        )
    steps_s, copies_s, hidden, ceiling = (median(column) for column in zip(*rounds, strict=True))
    return DeviceReport(
        device=torch.cuda.get_device_name(device),
        batch_mb=n_bytes / 1e6,
        copy_ms=copies_s / n_batches * 1e3,
        step_ms=steps_s / n_batches * 1e3,
        hidden_ratio=hidden,
        gb_s=n_bytes * n_batches / copies_s / 1e9,
        ceiling_gb_s=ceiling,
    )


def _batch(n: int) -> dict[str, torch.Tensor]:
    return {
        "S2L2A": torch.ones(n, 12, 264, 264, dtype=torch.int16).pin_memory(),
        "S1RTC": torch.ones(n, 2, 264, 264, dtype=torch.float16).pin_memory(),
        "cloud_cover": torch.ones(n, dtype=torch.float64),
    }


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def main() -> int:
    """Print the figures, or that there is no GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=64, help="samples a batch")
    parser.add_argument("--batches", type=int, default=200, help="batches a round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--decoding", action="store_true", help="measure decoding too, as sentences")
    given = parser.parse_args()
    device = torch.device("cuda")
    accelerator = accelerator_of(device)
    if not torch.cuda.is_available() or accelerator is None:
        print("no GPU")
        return 0
    report = measure(given.samples, given.batches, device, accelerator)
    if given.json:
        print(json.dumps(asdict(report)))
    else:
        print(
            f"{report.device}: batches of {report.batch_mb:,.0f} MB, {report.gb_s:.1f} GB/s of {report.ceiling_gb_s:.1f} GB/s "
            f"at most; {report.hidden_ratio:.0%} of a copy of {report.copy_ms:.1f} ms hidden behind a step of "
            f"{report.step_ms:.1f} ms"
        )
    if given.decoding:
        device_decode.run(min(given.samples, 32), PROFILES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
