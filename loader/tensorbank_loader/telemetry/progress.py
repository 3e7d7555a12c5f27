"""A line about a running epoch: how many batches, how fast, and who waits for whom."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tensorbank_loader.telemetry.loader_stats import LoaderStats

if TYPE_CHECKING:
    from tensorbank_loader.loader import DataLoader

__all__ = ["rates", "with_progress"]

Show = Callable[[int, str], object]
"""A function that takes the number of batches so far, and the rates."""

SECONDS_BETWEEN_RATES = 1.0
"""The seconds between two changes of the rates on a terminal."""
SECONDS_BETWEEN_LINES = 10.0
"""The seconds between two lines elsewhere, such as in a log file."""


def rates(before: LoaderStats, now: LoaderStats, seconds: float) -> str:
    """Return a line for people about the work of a loader between two readings. Pure."""

    def mb_s(n_bytes: int) -> str:
        return f"{n_bytes / seconds / 1e6:,.0f} MB/s"

    cached = now.cache.hit_bytes - before.cache.hit_bytes
    parts = (
        f"{(now.samples - before.samples) / seconds:,.0f} samples/s",
        f"{mb_s(now.bytes_read - before.bytes_read)} fetched",
        f"{mb_s(cached)} cached" if cached else "",
        f"{mb_s(now.tensor_bytes - before.tensor_bytes)} decoded",
        f"waiting {(now.wait_s - before.wait_s) / seconds:.0%}",
        f"{now.n_ahead} ahead",
    )
    return ", ".join(part for part in parts if part)


def with_progress(loader: DataLoader) -> Iterator[Any]:
    """Yield one epoch of a loader, and show its progress on standard error.

    That is a bar on a terminal, and a line now and then elsewhere. The rates at the end are those of the whole epoch, from the
    batch at which it began.
    """
    n_batches = len(loader)
    on_terminal = sys.stderr.isatty()
    pause_s = SECONDS_BETWEEN_RATES if on_terminal else SECONDS_BETWEEN_LINES
    first = before = loader.stats()
    begun = since = time.perf_counter()
    with (_bar if on_terminal else _lines)(n_batches) as show:
        for batch in loader:
            done = loader.state_dict()["position"] or n_batches
            yield batch
            now_s = time.perf_counter()
            if done == n_batches:
                show(done, rates(first, loader.stats(), now_s - begun))
            elif now_s - since >= pause_s:
                now = loader.stats()
                show(done, rates(before, now, now_s - since))
                before, since = now, now_s


@contextmanager
def _bar(n_batches: int) -> Iterator[Show]:
    """Show progress as a bar on a terminal."""
    columns = (
        TextColumn("batches"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rates]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("batches", total=n_batches, rates="")
        yield lambda done, text: bar.update(task, completed=done, rates=text)


@contextmanager
def _lines(n_batches: int) -> Iterator[Show]:
    """Show progress as lines."""
    yield lambda done, text: sys.stderr.write(f"batch {done} of {n_batches}: {text}\n")
