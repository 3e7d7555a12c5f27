"""Progress of long work: a bar on a terminal, a line now and then elsewhere, both on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["progress_bar"]

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback ``(what, done, total)`` that shows each kind of work as a bar of its own."""
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def _plain_lines() -> Callable[[str, int, int], None]:
    last: dict[str, float] = {}
    first: dict[str, tuple[float, int]] = {}

    def show(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        began, before = first.setdefault(what, (now, done))
        if done >= total or now - last.get(what, 0.0) >= SECONDS_BETWEEN_LINES:
            last[what] = now
            rate = (done - before) / (now - began) if now > began else 0.0
            left = (
                f", {rate:,.1f} a second, {(total - done) / rate:,.0f} s left"
                if rate and done < total
                else ""
            )
            sys.stderr.write(f"{what} {done} of {total}{left}\n")

    return show
