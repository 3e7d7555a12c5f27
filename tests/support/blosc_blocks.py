"""Stored blocks made by numcodecs' Blosc alone, and their way back through streams that are decoded on the CPU."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import torch
from numcodecs import blosc

from tensorbank.reading import crc32c
from tensorbank_gpu import (
    CpuStreams,
    Spans,
    StreamBatch,
    check_sums,
    decode_blocks,
    plan_streams,
    read_frames,
    walk_runs,
)

__all__ = ["decoded", "sealed", "stored_block", "streams_of", "values"]


def values(n_bytes: int, seed: int = 0, high: int = 4) -> np.ndarray:
    """Bytes below ``high``: with few of them compressible, with 256 of them not."""
    return np.random.default_rng(seed).integers(0, high, n_bytes).astype(np.uint8)


def sealed(frame: bytes) -> bytes:
    """A Blosc buffer as a stored block."""
    return frame + struct.pack("<I", crc32c(frame))


def stored_block(
    data: np.ndarray, cname: str, shuffle: int, typesize: int, block_bytes: int = 0, level: int = 5
) -> bytes:
    """The stored block of some bytes."""
    return sealed(blosc.compress(data, cname.encode(), level, shuffle, block_bytes or data.nbytes, typesize))


def streams_of(blocks: Sequence[bytes], n_bytes: int) -> tuple[np.ndarray, StreamBatch]:
    """One run of blocks that all decode to so many bytes, and what decodes it."""
    stored = np.frombuffer(b"".join(blocks), np.uint8).copy()
    n = len(blocks)
    spans = walk_runs(stored, Spans(np.array([0]), np.array([len(stored)])), np.array([n]))
    check_sums(stored, spans)
    frames = read_frames(stored, spans, np.full(n, n_bytes))
    return stored, plan_streams(stored, frames, np.zeros(n, np.int64), np.arange(n))


def decoded(blocks: Sequence[bytes], n_bytes: int) -> np.ndarray:
    """The blocks of one run, decoded on the CPU, (n, bytes)."""
    stored, batch = streams_of(blocks, n_bytes)
    (region,) = decode_blocks(torch.from_numpy(stored), batch, [(len(blocks), n_bytes)], CpuStreams())
    return region.numpy()
