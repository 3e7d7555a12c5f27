"""The contract of a decoder of streams, and the decoder that runs on the CPU, which needs no more than the core does."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from tensorbank.errors import IntegrityError
from tensorbank_gpu.stream_batch import StreamBatch, Streams

__all__ = ["CpuStreams", "StreamDecoder"]


class StreamDecoder(Protocol):
    """A decoder of the streams of a batch. For one caller at a time."""

    def decode(self, stored: torch.Tensor, batch: StreamBatch, scratch: torch.Tensor) -> None:
        """Decode the LZ4 and the zstd streams of a batch. Copies are not its work.

        Parameters
        ----------
        stored
            (m,) uint8, contiguous: what the streams' sources are offsets in.
        scratch
            (``batch.n_bytes``,) uint8, contiguous, on the same device: what their destinations are offsets in. All of it that
            streams have a place in is written when work that is asked for later begins.

        Raises
        ------
        IntegrityError
            A stream does not decode to its size.
        """


class CpuStreams:
    """The decoder of tensors on the CPU, by numcodecs, one stream after the other.

    It shows that streams are what they are taken for. Blosc does the same work quicker, see
    :func:`tensorbank_gpu.decode_on_host`.
    """

    def decode(self, stored: torch.Tensor, batch: StreamBatch, scratch: torch.Tensor) -> None:
        source, dest = stored.numpy(), scratch.numpy()
        for streams, decode in ((batch.lz4, _decode_lz4), (batch.zstd, _decode_zstd)):
            for number, (at, n_stored, to, size) in enumerate(_rows(streams)):
                try:
                    decode(source[at : at + n_stored], dest[to : to + size])
                except (RuntimeError, ValueError) as error:
                    raise IntegrityError(f"stream {number} does not decode: {error}") from error


def _decode_lz4(source: np.ndarray, dest: np.ndarray) -> None:
    """Decode an LZ4 block; numcodecs wants its size in front."""
    from numcodecs import lz4

    lz4.decompress(np.append(np.array([dest.size], "<u4").view(np.uint8), source), dest)


def _decode_zstd(source: np.ndarray, dest: np.ndarray) -> None:
    from numcodecs import zstd

    zstd.decompress(source, dest)


def _rows(streams: Streams) -> list[tuple[int, int, int, int]]:
    columns = (streams.source_offsets, streams.source_bytes, streams.dest_offsets, streams.dest_bytes)
    return list(zip(*(column.tolist() for column in columns), strict=True))
