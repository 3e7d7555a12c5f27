"""Limits of memory and time for the reading of one sample, whatever its archive claims."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tensorbank.errors import ErrorKind, FormatError, InvalidInputError

__all__ = ["Allowance", "ReadLimits"]


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """The bounds for what an archive may ask a reader to do.

    Parameters
    ----------
    max_sample_bytes
        Raw bytes of all modalities of one sample, of any one chunk, and of any one stored member. The
        largest published samples have 40 MB, the largest published chunks 240 MB.
    max_metadata_bytes
        Bytes of one metadata document, and of one array of names, ids or coordinates.
    max_sample_s
        Seconds of computing for one sample, from the first of its members that is opened. Waiting for a slow store is
        not counted: it is no fault of the sample.
    """

    max_sample_bytes: int = 512 << 20
    max_metadata_bytes: int = 16 << 20
    max_sample_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("max_sample_bytes", "max_metadata_bytes", "max_sample_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise InvalidInputError(f"{name} is {value!r}; a number above 0 is needed.")


class Allowance:
    """The rest of the limits while one sample is read, by one thread."""

    __slots__ = ("_ends", "_left_bytes", "limits")

    def __init__(self, limits: ReadLimits | None = None) -> None:
        self.limits = limits or ReadLimits()
        self._left_bytes = self.limits.max_sample_bytes
        self._ends = time.thread_time() + self.limits.max_sample_s

    def take(self, what: str, n_bytes: int) -> None:
        """Count ``n_bytes`` that are about to be decoded.

        Raises
        ------
        FormatError
            There is no room, or no time, for them (kind ``over-limit``).
        """
        self.check_time()
        if n_bytes > self._left_bytes:
            raise FormatError(
                f"{what} needs {n_bytes} bytes of memory, and a sample may have "
                f"{self.limits.max_sample_bytes}, of which {self._left_bytes} are left; raise max_sample_bytes "
                "if the archive is to be trusted.",
                kind=ErrorKind.OVER_LIMIT,
            )
        self._left_bytes -= n_bytes

    def check(self, what: str, n_bytes: int) -> None:
        """Refuse a buffer that is larger than a whole sample may be; it is not counted.

        Raises
        ------
        FormatError
            As for :meth:`take`.
        """
        self.check_time()
        if n_bytes > self.limits.max_sample_bytes:
            raise FormatError(
                f"{what} needs {n_bytes} bytes of memory, more than the {self.limits.max_sample_bytes} that "
                "a sample may have; raise max_sample_bytes if the archive is to be trusted.",
                kind=ErrorKind.OVER_LIMIT,
            )

    def check_time(self) -> None:
        """Refuse to go on once the sample has taken too long."""
        if time.thread_time() > self._ends:
            raise FormatError(
                f"The sample takes more than {self.limits.max_sample_s:g} s of computing to read.",
                kind=ErrorKind.OVER_LIMIT,
            )
