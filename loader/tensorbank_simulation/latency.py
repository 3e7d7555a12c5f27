"""The distribution of the time to the first byte of an answer, as points that straight lines join. A value."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tensorbank.errors import InvalidInputError

__all__ = ["Latency"]

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
"""The shares that are kept of what was measured."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds to the first byte, by the share of answers that take no longer.

    Parameters
    ----------
    shares
        Ascending, from 0 to 1.
    seconds
        One for each share, never descending.

    Raises
    ------
    InvalidInputError
        They are not.
    """

    shares: tuple[float, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        sound = len(self.shares) == len(self.seconds) >= 2
        sound = sound and (self.shares[0], self.shares[-1]) == (0.0, 1.0)
        sound = sound and all(a < b for a, b in zip(self.shares, self.shares[1:], strict=False))
        sound = sound and all(a <= b for a, b in zip(self.seconds, self.seconds[1:], strict=False))
        if not sound or not self.seconds[0] >= 0 or not self.seconds[-1] < math.inf:
            raise InvalidInputError(
                f"latency is {self.seconds} at shares {self.shares}; seconds must not descend, and shares go from 0 to 1"
            )

    @classmethod
    def constant(cls, seconds: float) -> Latency:
        """Return the latency of a store that always takes as long."""
        return cls((0.0, 1.0), (seconds, seconds))

    @classmethod
    def of(cls, measured_s: Sequence[float]) -> Latency:
        """Return the distribution of some measured seconds."""
        if not measured_s:
            raise InvalidInputError("there is no latency of no answers")
        ordered = sorted(measured_s)
        found = [_at(ordered, share) for share in SHARES]
        return cls(SHARES, tuple(found))

    @classmethod
    def parse(cls, text: str) -> Latency:
        """Read milliseconds as a person writes them: ``20``, or ``p0=12,p50=20,p99=200,p100=900``.

        Below the first point it stays as low, and above the last as high.

        Raises
        ------
        InvalidInputError
            It is neither.
        """
        try:
            if "=" not in text:
                return cls.constant(float(text) / 1e3)
            points = [part.strip().removeprefix("p").split("=") for part in text.split(",")]
            found = sorted((float(share) / 100, float(ms) / 1e3) for share, ms in points)
        except ValueError:
            raise InvalidInputError(
                f"rtt is {text!r}; give milliseconds, such as 20, or points such as p50=20,p99=200"
            ) from None
        if found[0][0] > 0:
            found.insert(0, (0.0, found[0][1]))
        if found[-1][0] < 1:
            found.append((1.0, found[-1][1]))
        shares, seconds = zip(*found, strict=True)
        return cls(shares, seconds)

    @property
    def mean_s(self) -> float:
        """The mean, in seconds."""
        points = list(zip(self.shares, self.seconds, strict=True))
        return sum((q1 - q0) * (s0 + s1) / 2 for (q0, s0), (q1, s1) in itertools.pairwise(points))

    def quantile_s(self, share: float) -> float:
        """Return the seconds that a share of answers, in [0, 1], does not exceed."""
        at = min(bisect_right(self.shares, share), len(self.shares) - 1)
        q0, q1, s0, s1 = self.shares[at - 1], self.shares[at], self.seconds[at - 1], self.seconds[at]
        return s0 + (s1 - s0) * (share - q0) / (q1 - q0)


def _at(ordered: Sequence[float], share: float) -> float:
    """Return a quantile between the nearest two of some ascending numbers."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
