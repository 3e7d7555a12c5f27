"""Chains that encode a block: Blosc in many settings, prediction along x before it, pcodec, and the profiles themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from tensorbank.reading import PROFILES, codec_for
from tensorbank.schema import Modality

__all__ = ["TODAY", "Chain", "chains_for", "profiles_for"]

Block = npt.NDArray[Any]
_SHUFFLES = {"none": blosc.NOSHUFFLE, "byte": blosc.SHUFFLE, "bit": blosc.BITSHUFFLE}
SETTINGS = (
    ("zstd", 1, "bit"),
    ("zstd", 1, "byte"),
    ("zstd", 1, "none"),
    ("zstd", 3, "bit"),
    ("zstd", 3, "byte"),
    ("lz4", 9, "bit"),
    ("lz4", 9, "byte"),
    ("lz4hc", 1, "bit"),
    ("lz4hc", 1, "byte"),
    ("lz4hc", 3, "bit"),
    ("lz4hc", 3, "byte"),
    ("lz4hc", 5, "bit"),
    ("lz4hc", 5, "byte"),
)
OF_PAIRS = (("zstd", 1), ("lz4", 9), ("lz4hc", 5))
"""The settings that are also tried with byte shuffle of pairs of pixels."""
TODAY = "small"
"""The profile that others are compared with: the default before there were figures."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A way to encode blocks (y, x): to bytes, and from them into a block."""

    name: str
    encode: Callable[[Block], bytes]
    decode: Callable[[bytes, Block], object]


def _blosc(name: str, level: int, shuffle: str, modality: Modality, n_pixels: int = 1) -> Chain:
    typesize = np.dtype(modality.dtype).itemsize * n_pixels
    codec = blosc.Blosc(name, level, _SHUFFLES[shuffle], modality.block_bytes, typesize)
    of = {"none": "no shuffle", "byte": "byte shuffle", "bit": "bitshuffle"}[shuffle]
    return Chain(
        f"{name} {level}, {of}{' of pairs' if n_pixels == 2 else ''}", codec.encode, blosc.decompress
    )


def _delta(name: str, level: int, shuffle: str, modality: Modality) -> Chain:
    """Return a chain that stores differences along x, as ``numcodecs.delta`` does."""
    after = _blosc(name, level, shuffle, modality)

    def encode(block: Block) -> bytes:
        flat = block.reshape(-1)
        return after.encode(np.diff(flat, prepend=flat.dtype.type(0)))

    def decode(data: bytes, out: Block) -> None:
        after.decode(data, out)
        flat = out.reshape(-1)
        np.cumsum(flat, dtype=flat.dtype, out=flat)

    return Chain(f"delta, {after.name}", encode, decode)


def _pcodec(modality: Modality) -> list[Chain]:
    try:
        from numcodecs.pcodec import PCodec
    except ImportError:
        return []
    if np.dtype(modality.dtype).itemsize == 1:  # it takes no types of one byte
        return []
    codec = PCodec(level=8)
    return [Chain("pcodec 8", lambda block: bytes(codec.encode(block)), codec.decode)]


def chains_for(modality: Modality) -> list[Chain]:
    """Return the chains to measure on blocks of a modality."""
    dtype = np.dtype(modality.dtype)
    settings = [s for s in SETTINGS if dtype.itemsize > 1 or s[2] != "byte"]
    if dtype.itemsize == 1:  # there is nothing to shuffle
        settings += [
            (name, level, "none") for name, level, shuffle in SETTINGS if shuffle == "byte" and level > 1
        ]
        settings = list(dict.fromkeys(settings))
    found = [_blosc(*setting, modality) for setting in settings]
    if dtype.itemsize > 1:
        found += [_blosc(name, level, "byte", modality, 2) for name, level in OF_PAIRS]
    if dtype.kind in "iu":
        found += [_delta("zstd", 1, "byte", modality), _delta("lz4", 9, "bit", modality)]
    return [*found, *_pcodec(modality)]


def profiles_for(modality: Modality) -> list[Chain]:
    """Return the profiles as chains, without the checksum that all of them have."""

    def chain(profile: str) -> Chain:
        codec = codec_for(profile, modality)
        return Chain(profile, lambda block: codec.encode(block)[:-4], blosc.decompress)

    return [chain(profile) for profile in PROFILES]
