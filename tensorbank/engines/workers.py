"""The choice of workers: which engine, how many, and how long to wait for them. A value."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tensorbank.errors import InvalidInputError

__all__ = ["DASK", "PROCESSES", "Workers"]

PROCESSES, DASK = "processes", "dask"
"""The engines of this machine: processes, and a Dask cluster."""
_SCHEDULER = re.compile(r"(tcp|tls)://[^\s/@]+:\d{1,5}")


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers that execute tasks.

    Parameters
    ----------
    engine
        ``processes`` of this machine; ``dask``, a cluster of this machine; or the address of a Dask scheduler, such as
        ``tcp://scheduler:8786``.
    n_workers
        Processes of this machine, as many as it has processors if None; 1 of the engine ``processes`` works in this process. Of a
        cluster that is there, the most tasks at a time; None leaves that to its size.
    wait_s
        Seconds to wait for a scheduler, and for workers while there are none.

    Raises
    ------
    InvalidInputError
        There is no such engine, or a number is out of its range.
    """

    engine: str = PROCESSES
    n_workers: int | None = None
    wait_s: float = 120.0

    def __post_init__(self) -> None:
        if self.engine not in (PROCESSES, DASK) and not _SCHEDULER.fullmatch(self.engine):
            raise InvalidInputError(
                f"no engine {self.engine!r}: processes, dask, or the address of a scheduler, such as tcp://host:8786 or "
                "tls://host:8786"
            )
        if self.n_workers is not None and self.n_workers < 1:
            raise InvalidInputError(f"n_workers is {self.n_workers}; at least 1 is needed")
        if not self.wait_s > 0:
            raise InvalidInputError(f"engine_wait_s is {self.wait_s}; more than 0 is needed")
