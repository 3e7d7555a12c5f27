"""Random numbers by the keys of samples, as tensors on any device: whole numbers, so that all devices draw the same."""

from __future__ import annotations

import zlib

import torch

__all__ = ["below", "hashed"]


def hashed(keys: torch.Tensor, purpose: str, n: int = 1) -> torch.Tensor:
    """Return (m, n) int64 random numbers from 0 on, below 2^62, that depend on a sample's key and the purpose only.

    Two rounds of the finaliser of SplitMix64 (Steele, Lea, Flood 2014). torch has no arithmetic of unsigned numbers; that of
    int64 wraps around and has the same bits.

    Parameters
    ----------
    keys
        (m,) int64.
    purpose
        Name of what is drawn: draws of two purposes are independent.
    n
        How many for each sample.
    """
    places = torch.arange(1, n + 1, dtype=torch.int64, device=keys.device)
    salt = zlib.crc32(purpose.encode())
    mixed = _mix(keys[:, None] * _signed(0x9E3779B97F4A7C15) + salt)
    return _shifted(_mix(mixed + places[None] * _signed(0xD1342543DE82EF95)), 2)


def below(keys: torch.Tensor, purpose: str, n: int) -> torch.Tensor:
    """Return a random number in ``[0, n)`` for each sample, (m,) int64; the bias is below ``n / 2^62``."""
    return hashed(keys, purpose)[:, 0] % n


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: torch.Tensor, n: int) -> torch.Tensor:
    """Shift bits to the right and fill with zeros; ``>>`` alone repeats the sign."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
