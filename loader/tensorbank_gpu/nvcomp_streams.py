"""The decoder of streams on NVIDIA's GPUs.

What nvCOMP takes are arrays of addresses and sizes, which follow from a batch's offsets. Its decoder of zstd does not promise to
notice damage, so that blocks come here only when their checksums are right, and sizes only as frames state them.
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch

from tensorbank.errors import IntegrityError
from tensorbank_gpu.frames import Codec
from tensorbank_gpu.nvcomp_library import BatchedCalls, DeviceStreams, NvcompLibrary
from tensorbank_gpu.stream_batch import StreamBatch, Streams

__all__ = ["NvcompStreams"]


class NvcompStreams:
    """The decoder of tensors on one GPU, by nvCOMP. For one caller at a time.

    :meth:`decode` waits for the GPU, since only then it is known whether all streams did decode.

    Parameters
    ----------
    calls
        nvCOMP's batched API.
    """

    def __init__(self, calls: BatchedCalls) -> None:
        self._calls = calls

    @classmethod
    def load(cls) -> NvcompStreams:
        """Load nvCOMP.

        Raises
        ------
        InvalidInputError
            It is not installed; the kind is ``missing-package``.
        """
        return cls(NvcompLibrary.load())

    def decode(self, stored: torch.Tensor, batch: StreamBatch, scratch: torch.Tensor) -> None:
        device = stored.device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            wrong = [
                self._decode(codec, streams, stored, scratch)
                for codec, streams in ((Codec.LZ4, batch.lz4), (Codec.ZSTD, batch.zstd))
                if len(streams)
            ]
            n_wrong = int(torch.stack(wrong).sum()) if wrong else 0
        if n_wrong:
            raise IntegrityError(
                f"{n_wrong} of {batch.n_streams} streams did not decode to their sizes on {device}"
            )

    def _decode(
        self, codec: Codec, streams: Streams, stored: torch.Tensor, scratch: torch.Tensor
    ) -> torch.Tensor:
        """Ask for streams of one codec to be decoded; return the number that did not, () int64 on the device."""
        device, n = stored.device, len(streams)
        table = np.stack(
            [
                streams.source_offsets + stored.data_ptr(),
                streams.source_bytes,
                streams.dest_bytes,
                streams.dest_offsets + scratch.data_ptr(),
            ]
        )
        described = _moved(torch.from_numpy(table), device)
        found_bytes = torch.zeros(n, dtype=torch.int64, device=device)
        statuses = torch.ones(n, dtype=torch.int32, device=device)
        largest, total = int(streams.dest_bytes.max()), int(streams.dest_bytes.sum())
        temp_bytes = self._calls.temp_bytes(codec, n, largest, total)
        temp = torch.empty(temp_bytes, dtype=torch.uint8, device=device)
        sources, source_bytes, dest_bytes, dests = (row.data_ptr() for row in described)
        taken = DeviceStreams(
            n=n,
            sources=sources,
            source_bytes=source_bytes,
            dest_bytes=dest_bytes,
            dests=dests,
            found_bytes=found_bytes.data_ptr(),
            statuses=statuses.data_ptr(),
            temp=temp.data_ptr(),
            temp_bytes=temp_bytes,
        )
        self._calls.decompress(codec, taken, _current_stream(device))
        # Memory that goes out of use here is used again by later work of this stream only.
        return ((statuses != 0) | (found_bytes != described[2])).sum()


def _moved(table: torch.Tensor, device: torch.device) -> torch.Tensor:
    return table if device.type == "cpu" else table.pin_memory().to(device, non_blocking=True)


def _current_stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
