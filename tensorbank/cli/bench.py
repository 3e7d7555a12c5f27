"""The ``tensorbank bench`` commands: the rate at which a bank streams, beside the rate of raw reads of the same bytes."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tensorbank.cli.options import AwsProfile, BankUrl, Endpoint, Json, Region, bank_at
from tensorbank.cli.output import say
from tensorbank.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tensorbank.plans import Plan
    from tensorbank.reading import RawRead
    from tensorbank_loader import LoaderStats

__all__ = ["StreamReport", "bench", "measure_stream"]

N_ROUNDS = 3
"""The number of rounds of streaming and raw reads in turn, so that a machine that slows down slows both;
medians are reported."""
MAX_SAMPLES = 1_000_000

bench = typer.Typer(help="Measure how fast a bank is read.", no_args_is_help=True)


@bench.callback()
def measure() -> None:
    """Measure how fast a bank is read."""


@dataclass(frozen=True, slots=True)
class StreamReport:
    """The measured speed of streaming a plan; medians of rounds over the same samples.

    Parameters
    ----------
    n_samples, n_batches, n_rounds
        Streamed in each round, and how many rounds.
    samples_per_s
        Handed to a consumer that does nothing.
    stored_mb_s, decoded_mb_s
        Bytes that came over the network, and bytes decoded from them; MB of 10^6 bytes.
    raw_mb_s
        Rate of the same reads when nothing is verified or decoded: the ceiling of ``stored_mb_s``.
    share_of_raw
        Median of each round's time of the raw reads to the loader's.
    n_requests, amplification
        Requests of one round; bytes read to bytes wanted.
    retries, hedges
        Requests made again, of one round.
    first_batch_ms
        Milliseconds from the plan in hand to the first batch.
    gap_p50_ms, gap_p99_ms
        Milliseconds between one batch and the next.
    """

    n_samples: int
    n_batches: int
    n_rounds: int
    samples_per_s: float
    stored_mb_s: float
    decoded_mb_s: float
    raw_mb_s: float
    share_of_raw: float
    n_requests: int
    amplification: float
    retries: int
    hedges: int
    first_batch_ms: float
    gap_p50_ms: float
    gap_p99_ms: float

    def __str__(self) -> str:
        return (
            f"{self.samples_per_s:,.0f} samples/s: {self.n_rounds} rounds of {self.n_samples:,} samples in "
            f"{self.n_batches:,} batches\n"
            f"stored   {self.stored_mb_s:,.1f} MB/s, {self.share_of_raw:.0%} of the {self.raw_mb_s:,.1f} MB/s "
            f"that the same {self.n_requests:,} reads bring raw\n"
            f"decoded  {self.decoded_mb_s:,.1f} MB/s\n"
            f"first batch after {self.first_batch_ms:,.0f} ms; gaps {self.gap_p50_ms:,.1f} ms at the median, "
            f"{self.gap_p99_ms:,.1f} ms at the 99th percentile\n"
            f"{self.amplification:.2f} bytes read a byte wanted; {self.retries} retries, {self.hedges} hedges"
        )


@dataclass(frozen=True, slots=True)
class _Round:
    seconds: float
    first_s: float
    stats: LoaderStats
    raw: RawRead


def measure_stream(plan: Plan, *, batch_size: int, seconds: float, shuffle: bool = True) -> StreamReport:
    """Stream some of a plan and fetch the same bytes raw, in turn.

    Parameters
    ----------
    seconds
        About how long to measure. The plan's samples are repeated where that takes longer than reading all of them.
    shuffle
        A random order, as in training; else the plan's.

    Raises
    ------
    InvalidInputError
        The plan selects no sample or no tensor, or torch is not installed.
    """
    from tensorbank.fetch import FetchOptions
    from tensorbank.reading import fetch_raw, ranges_of

    if not len(plan):
        raise InvalidInputError("the query selects no sample, so there is nothing to stream")
    options = FetchOptions()
    if plan.weight_column is not None:  # the samples are drawn here, each as often as any other
        plan = plan.without(plan.weight_column)
    warm = plan.take(_positions(len(plan), min(len(plan), MAX_SAMPLES), shuffle=shuffle))
    n = _samples_in(warm, batch_size, seconds / (2 * N_ROUNDS + 1))
    part = plan.take(_positions(len(plan), n, shuffle=shuffle))
    ranges = ranges_of(part.addresses, _batches(n, batch_size), options)
    source = part.origin.open()
    rounds = []
    for _ in range(N_ROUNDS):
        took_s, first_s, stats = _stream(part, batch_size)
        rounds.append(_Round(took_s, first_s, stats, fetch_raw(source, ranges)))
    last = rounds[-1].stats
    return StreamReport(
        n_samples=n,
        n_batches=last.batches,
        n_rounds=N_ROUNDS,
        samples_per_s=median(n / r.seconds for r in rounds),
        stored_mb_s=median(r.stats.bytes_read / r.seconds for r in rounds) / 1e6,
        decoded_mb_s=median(r.stats.tensor_bytes / r.seconds for r in rounds) / 1e6,
        raw_mb_s=median(r.raw.n_bytes / r.raw.seconds for r in rounds) / 1e6,
        share_of_raw=median(r.raw.seconds / r.seconds for r in rounds),
        n_requests=len(ranges),
        amplification=last.bytes_read / max(last.bytes_asked, 1),
        retries=last.retries,
        hedges=last.hedges,
        first_batch_ms=median(r.first_s for r in rounds) * 1e3,
        gap_p50_ms=median(r.stats.gap_p50_s for r in rounds) * 1e3,
        gap_p99_ms=median(r.stats.gap_p99_s for r in rounds) * 1e3,
    )


@bench.command()
def stream(
    bank: BankUrl,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT statement that selects modalities.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a batch.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.1, help="About how long to measure.")] = 20.0,
    shuffle: Annotated[bool, typer.Option(help="Stream in a random order, or in that of the query.")] = True,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Stream what a query selects, beside raw reads of the same bytes."""
    plan = bank_at(bank, endpoint, region, aws_profile).sql(sql).plan()
    report = measure_stream(plan, batch_size=batch_size, seconds=seconds, shuffle=shuffle)
    say(json.dumps(asdict(report)) if as_json else str(report))


def _positions(n_samples: int, n: int, *, shuffle: bool) -> npt.NDArray[np.int64]:
    """Return positions of a plan to stream, each as often as ``n`` needs."""
    import numpy as np

    rng = np.random.default_rng(0)
    rounds = [
        rng.permutation(n_samples) if shuffle else np.arange(n_samples) for _ in range(-(-n // n_samples))
    ]
    return np.concatenate(rounds)[:n]


def _batches(n: int, batch_size: int) -> list[npt.NDArray[np.int64]]:
    import numpy as np

    return np.split(np.arange(n), range(batch_size, n, batch_size))


def _samples_in(plan: Plan, batch_size: int, seconds: float) -> int:
    """Return the number of samples that are streamed in a time, in whole batches;
    also warms imports, caches and connections up.
    """
    n, started = 0, None
    with plan.dataloader(batch_size=batch_size, shuffle=False) as loader:
        while True:
            for _ in loader:
                n += batch_size
                started = started or time.perf_counter()  # the first batch waits for what is warmed up
                if time.perf_counter() - started >= seconds or n >= MAX_SAMPLES:
                    return n


def _stream(plan: Plan, batch_size: int) -> tuple[float, float, Any]:
    """Return the seconds of all batches and of the first, and the loader's statistics."""
    started = time.perf_counter()
    first_s = 0.0
    with plan.dataloader(batch_size=batch_size, shuffle=False) as loader:
        for _ in loader:
            first_s = first_s or time.perf_counter() - started
        took_s = time.perf_counter() - started
        return took_s, first_s, loader.stats()
