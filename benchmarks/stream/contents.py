"""Check that a stream is complete: each sample's pixels as the local bank has them, each exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from tensorbank import Plan
from tensorbank.reading.codec import crc32c
from tensorbank.reading.sample_reader import SampleReader

__all__ = ["n_wrong", "truth_of"]

Truth = Counter[tuple[Any, ...]]
N_TOGETHER = 16


def truth_of(plan: Plan, key: str = "sample_id") -> Truth:
    """Name and checksums of each sample, as often as the plan has it. Of a bank on a local disk."""
    names = plan.table[key].to_pylist()
    reader = SampleReader.of(plan)
    found: Truth = Counter()
    try:
        for first in range(0, len(plan), N_TOGETHER):
            at = np.arange(first, min(first + N_TOGETHER, len(plan)))
            tensors = reader.read(at)
            found.update(
                (names[position], *(crc32c(tensors[h.name][slot].tobytes()) for h in plan.handles))
                for slot, position in enumerate(at.tolist())
            )
    finally:
        reader.close()
    return found


def n_wrong(truth: Truth, plan: Plan, batches: Iterable[dict[str, Any]], key: str = "sample_id") -> int:
    """Count the samples of a stream that are missing, more than once, or not what they should be."""
    seen: Truth = Counter()
    for batch in batches:
        seen.update(
            (name, *(crc32c(batch[h.name][slot].numpy().tobytes()) for h in plan.handles))
            for slot, name in enumerate(batch[key])
        )
    return (truth - seen).total() + (seen - truth).total()
