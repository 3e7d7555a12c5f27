"""Random numbers by name: the same for the same key, whoever asks, in whatever order."""

from __future__ import annotations

__all__ = ["draw"]

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def draw(*key: int) -> float:
    """Return a number in [0, 1) that looks random, of whole numbers (splitmix64, Steele et al. 2014)."""
    x = GOLDEN
    for part in key:
        x = ((x ^ (part & MASK)) + GOLDEN) & MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        x ^= x >> 31
    return (x >> 11) / (1 << 53)
