"""Decoding of stored blocks on a GPU: frames become batches of streams for nvCOMP, and shuffles are undone by torch.

from tensorbank_gpu import MeasuredDecoder, StoredReader

reader = StoredReader.of(plan, pinned=True)
decoder = MeasuredDecoder.open(torch.device("cuda"))
for stored in reader.stream(batches):
    tensors = decoder.decode(stored)
decoder.choice
"""

from __future__ import annotations

from tensorbank_gpu.choice import Choice, MeasuredDecoder, Trial, Way, quicker
from tensorbank_gpu.device_tensors import decode_blocks, decode_on_device, decode_on_host
from tensorbank_gpu.frames import Frames, Spans, check_sums, read_frames, walk_runs
from tensorbank_gpu.nvcomp_streams import NvcompStreams
from tensorbank_gpu.shuffles import Shuffle, unshuffled
from tensorbank_gpu.stored_reader import StoredBatch, StoredReader
from tensorbank_gpu.stream_batch import PieceGroup, StreamBatch, Streams, plan_streams
from tensorbank_gpu.stream_decoder import CpuStreams, StreamDecoder

__all__ = [
    "Choice",
    "CpuStreams",
    "Frames",
    "MeasuredDecoder",
    "NvcompStreams",
    "PieceGroup",
    "Shuffle",
    "Spans",
    "StoredBatch",
    "StoredReader",
    "StreamBatch",
    "StreamDecoder",
    "Streams",
    "Trial",
    "Way",
    "check_sums",
    "decode_blocks",
    "decode_on_device",
    "decode_on_host",
    "plan_streams",
    "quicker",
    "read_frames",
    "unshuffled",
    "walk_runs",
]
