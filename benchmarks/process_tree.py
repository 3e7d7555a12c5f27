"""Memory and CPU seconds of a process and its descendants, from /proc."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

__all__ = ["PeakMemory", "children_cpu_s", "tree_bytes"]

INTERVAL_S = 0.05


class PeakMemory:
    """A sampler of the proportional set size (shared pages counted once) of
    this process tree while the block runs.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(INTERVAL_S):
            self.peak_bytes = max(self.peak_bytes, tree_bytes(os.getpid()))


def tree_bytes(root: int) -> int:
    """Return the proportional set size of a process and its descendants now."""
    return sum(map(_pss_bytes, _tree(root)))


def _tree(root: int) -> list[int]:
    """Return the process ids of a process and its descendants."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue  # it has just ended
            parents[int(folder.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def children_cpu_s(root: int) -> float:
    """Return the CPU seconds so far of the descendants of a process that live."""
    return sum(_cpu_s(pid) for pid in _tree(root) if pid != root)


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0  # it has just ended
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
