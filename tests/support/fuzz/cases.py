"""The cases of one fuzzer: numbers until the time is up, what was counted, and what was found."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Cases"]

WRITE_EVERY_S = 2.0


@dataclass
class Cases:
    """An iterator of numbers from ``seed`` on, until ``seconds`` have passed or ``n_cases`` were given.

    The state is written to ``out`` before each finding, every few seconds and at the end, the number of the present case before
    each case: a process that dies loses nothing.
    """

    seed: int
    seconds: float
    n_cases: int | None = None
    out: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    n_done: int = 0
    number: int | None = None
    done: bool = False

    def __iter__(self) -> Iterator[int]:
        """Give the numbers; time counts from the first on, so that making a bank does not use it up."""
        ends = time.monotonic() + self.seconds
        written = 0.0
        while time.monotonic() < ends and (self.n_cases is None or self.n_done < self.n_cases):
            self.number = self.seed + self.n_done
            if time.monotonic() - written > WRITE_EVERY_S:
                self.write()
                written = time.monotonic()
            elif self.out is not None:
                self.out.with_suffix(".case").write_text(str(self.number))
            yield self.number
            self.n_done += 1
        self.done = True
        self.write()

    def count(self, what: str, n: int = 1) -> None:
        """Add to a figure of the summary."""
        self.counts[what] += n

    def finding(self, what: str) -> None:
        """Note what is wrong with the present case."""
        self.findings.append({"case": self.number, "what": what})
        self.write()

    def write(self) -> None:
        """Write the state, whole or not at all."""
        if self.out is None:
            return
        if self.number is not None:
            self.out.with_suffix(".case").write_text(str(self.number))
        state = {
            "cases": self.n_done,
            "counts": dict(self.counts),
            "findings": self.findings,
            "done": self.done,
        }
        half = self.out.with_suffix(".half")
        half.write_text(json.dumps(state))
        half.replace(self.out)
