"""Sample from outside the memory and CPU time of a process and all its descendants."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

__all__ = ["Sampler"]

INTERVAL_S = 0.2
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading at a moment of the monotonic clock:
    CPU seconds of all descendants so far, ended ones included, and memory of all.
    """

    at: float
    cpu_s: float
    pss_bytes: int
    n_processes: int


class Sampler:
    """A sampler that reads /proc while the block runs. Shared pages are counted once (PSS).

    CPU is that of the descendants: a process knows its own to the microsecond, where readings from outside are too coarse for
    a run of some tenths of a second.
    """

    def __init__(self, root: int) -> None:
        self.readings: list[Reading] = []
        self._root = root
        self._ticks: dict[int, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.readings.append(self._read())
            if self._done.wait(INTERVAL_S):
                return

    def _read(self) -> Reading:
        tree = _tree(self._root)
        for pid in tree[1:]:
            ticks = _ticks(pid)
            if ticks is not None:
                self._ticks[pid] = ticks
        pss = sum(map(_pss_bytes, tree))
        return Reading(time.monotonic(), sum(self._ticks.values()) / TICKS_PER_S, pss, len(tree))

    def cpu_s(self, began: float, ended: float) -> float:
        """Return the CPU seconds of the descendants between two moments, linear between readings."""
        return self._cpu_at(ended) - self._cpu_at(began)

    def peak_pss_bytes(self) -> int:
        return max((r.pss_bytes for r in self.readings), default=0)

    def _cpu_at(self, at: float) -> float:
        before = [r for r in self.readings if r.at <= at]
        after = [r for r in self.readings if r.at > at]
        if not before or not after:
            known = before[-1:] or after[:1]
            return known[0].cpu_s if known else 0.0
        a, b = before[-1], after[0]
        return a.cpu_s + (b.cpu_s - a.cpu_s) * (at - a.at) / (b.at - a.at)


def _tree(root: int) -> list[int]:
    """Return the process ids of a process, first, and its descendants."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue  # it has just ended
            parents[int(folder.name)] = int(fields[1])
    found = [root] if root in parents else []
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _ticks(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return int(fields[11]) + int(fields[12])


def _pss_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has just ended
    return 0
