"""The clock: bytes and CPU seconds of chains on the blocks of a group, in turn, best of some rounds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from codec.chains import Chain
from codec.patches import Group

__all__ = ["Cost", "measure", "mixed"]

ENOUGH_BYTES = 4_000_000
"""The decoded bytes that one measurement of decoding goes through at least, again and again where a group has fewer."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a chain: stored bytes a decoded byte, and CPU seconds of one thread to encode and decode a GB."""

    stored: float
    encode_s_per_gb: float
    decode_s_per_gb: float

    @property
    def ratio(self) -> float:
        return 1 / self.stored


def _seconds(work: Callable[[], object]) -> float:
    before = time.thread_time()
    work()
    return time.thread_time() - before


def measure(group: Group, chains: Sequence[Chain], n_rounds: int) -> dict[str, Cost]:
    """Measure chains by name; each gives back what it was given, or this fails."""
    out = np.empty_like(group.blocks[0])
    stored: dict[str, list[bytes]] = {}
    for chain in chains:
        stored[chain.name] = [chain.encode(block) for block in group.blocks]
        for data, block in zip(stored[chain.name], group.blocks, strict=True):
            chain.decode(data, out)
            if out.tobytes() != block.tobytes():
                raise SystemExit(f"{chain.name} does not give {group.name} back")
    n_times = math.ceil(ENOUGH_BYTES / group.raw_bytes)
    encoding, decoding = ({c.name: math.inf for c in chains} for _ in range(2))
    for _ in range(n_rounds):
        for chain in chains:

            def encode(chain: Chain = chain) -> None:
                for block in group.blocks:
                    chain.encode(block)

            def decode(chain: Chain = chain) -> None:
                for _ in range(n_times):
                    for data in stored[chain.name]:
                        chain.decode(data, out)

            encoding[chain.name] = min(encoding[chain.name], _seconds(encode))
            decoding[chain.name] = min(decoding[chain.name], _seconds(decode) / n_times)
    gb = group.raw_bytes / 1e9
    return {
        name: Cost(
            sum(map(len, blocks)) / group.raw_bytes,
            encoding[name] / gb,
            decoding[name] / gb,
        )
        for name, blocks in stored.items()
    }


def mixed(costs: Sequence[tuple[Cost, float]]) -> Cost:
    """Return the cost of a mix: costs and their weights in decoded bytes."""
    total = sum(weight for _, weight in costs)

    def mean(name: str) -> float:
        return sum(getattr(cost, name) * weight for cost, weight in costs) / total

    return Cost(mean("stored"), mean("encode_s_per_gb"), mean("decode_s_per_gb"))
