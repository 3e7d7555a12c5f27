"""Decoding of stored blocks on a GPU: frames become batches of streams, and shuffles are undone by torch."""

from __future__ import annotations

from tensorbank_gpu.device_tensors import decode_blocks, decode_on_device, decode_on_host
from tensorbank_gpu.frames import Frames, Spans, check_sums, read_frames, walk_runs
from tensorbank_gpu.shuffles import Shuffle, unshuffled
from tensorbank_gpu.stored_reader import StoredBatch, StoredReader
from tensorbank_gpu.stream_batch import PieceGroup, StreamBatch, Streams, plan_streams
from tensorbank_gpu.stream_decoder import CpuStreams, StreamDecoder

__all__ = [
    "CpuStreams",
    "Frames",
    "PieceGroup",
    "Shuffle",
    "Spans",
    "StoredBatch",
    "StoredReader",
    "StreamBatch",
    "StreamDecoder",
    "Streams",
    "check_sums",
    "decode_blocks",
    "decode_on_device",
    "decode_on_host",
    "plan_streams",
    "read_frames",
    "unshuffled",
    "walk_runs",
]
