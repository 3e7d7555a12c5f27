"""Samples that were left out of batches, and the account of a reader: what it skipped, and how long it decoded."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass

from tensorbank.ranges import ByteRange

__all__ = ["Skipped", "Tally"]

MAX_SKIPPED = 10_000
"""The most skipped samples that are remembered one by one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A modality of a sample that was left out, since its bytes are damaged or gone.

    Parameters
    ----------
    sample
        Name of the sample in the plan.
    position
        Position in the plan.
    handle
        Name of the modality in the batch.
    range
        Object and bytes.
    error
        What is wrong with them, a sentence.
    """

    sample: str
    position: int
    handle: str
    range: ByteRange
    error: str


class Tally:
    """The counts of one reader, over all of its batches. May be added to from many threads at once.

    ``decode_s`` is the time spent in verifying and decoding, summed over threads; ``n_skipped`` counts the items left out,
    ``skipped`` has the newest of them.
    """

    def __init__(self) -> None:
        self.decode_s = 0.0
        self.n_skipped = 0
        self.skipped: deque[Skipped] = deque(maxlen=MAX_SKIPPED)
        self._lock = threading.Lock()

    def add_decode_s(self, seconds: float) -> None:
        with self._lock:
            self.decode_s += seconds

    def add_skipped(self, skipped: Skipped) -> None:
        with self._lock:
            self.n_skipped += 1
            self.skipped.append(skipped)
        _log.warning("skipped %s of %s: %s", skipped.handle, skipped.sample, skipped.error)
