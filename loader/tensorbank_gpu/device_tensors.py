"""Batches of stored blocks as tensors: streams, copies and shuffles undone on the device, or blocks decoded on the host."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
import torch

from tensorbank.plans import Handle
from tensorbank.reading import decode_run
from tensorbank_gpu.shuffles import unshuffled
from tensorbank_gpu.stored_layout import Placement
from tensorbank_gpu.stored_reader import StoredBatch
from tensorbank_gpu.stream_batch import PieceGroup, StreamBatch, Streams
from tensorbank_gpu.stream_decoder import StreamDecoder

__all__ = ["decode_blocks", "decode_on_device", "decode_on_host"]

CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Types whose values torch moves on every device, by size: not so those of unsigned numbers."""


def decode_on_device(
    batch: StoredBatch, device: torch.device, decoder: StreamDecoder
) -> dict[str, torch.Tensor]:
    """Move the stored bytes of a batch to a device in one transfer, and decode them there.

    Returns
    -------
    (n, time, band, y, x) by name of the handle, in the stored dtype, on the device; fill values where there is no block.

    Raises
    ------
    IntegrityError
        A block does not decode.
    FormatError
        A block is of a kind that is decoded on the CPU only; the kind is ``codec``.
    """
    streams = batch.streams()
    stored = batch.data.to(device, non_blocking=True)
    regions = decode_blocks(stored, streams, batch.regions, decoder)
    return _tensors(batch, regions)


def decode_on_host(batch: StoredBatch, device: torch.device, threads: Executor) -> dict[str, torch.Tensor]:
    """Decode a batch by Blosc on the CPU, a run of blocks a task, and move the tensors to a device.

    Returns and raises what :func:`decode_on_device` does, and decodes every kind of block.
    """
    pinned = device.type == "cuda"
    regions = [torch.empty(shape, dtype=torch.uint8, pin_memory=pinned) for shape in batch.regions]
    runs, rows = batch.layout.runs, batch.layout.rows
    view, tables = batch.data.numpy().data, [region.numpy() for region in regions]
    first = np.cumsum(runs.n_blocks) - runs.n_blocks

    def decode(run: int) -> None:
        table, begin = tables[int(runs.handles[run])], int(first[run])
        mine = rows[begin : begin + int(runs.n_blocks[run])].tolist()
        decode_run(
            view[int(runs.spans.starts[run]) : int(runs.spans.ends[run])], [table[row] for row in mine]
        )

    for _ in threads.map(decode, range(len(runs.spans))):
        pass
    return _tensors(batch, [region.to(device, non_blocking=True) for region in regions])


def decode_blocks(
    stored: torch.Tensor, batch: StreamBatch, regions: Sequence[tuple[int, int]], decoder: StreamDecoder
) -> list[torch.Tensor]:
    """Decode all blocks of a batch, on the device of ``stored``.

    Parameters
    ----------
    stored
        (m,) uint8, contiguous.
    batch
        What :func:`tensorbank_gpu.plan_streams` made of these bytes.
    regions
        (blocks, bytes of a decoded block) of each region.
    decoder
        Decoder of streams on this device.

    Returns
    -------
    (blocks, bytes) uint8 of each region, contiguous, on the device of ``stored``. The memory of a region may be a part of a
    larger one.

    Raises
    ------
    IntegrityError
        A stream does not decode to its size.
    """
    scratch = torch.empty(batch.n_bytes, dtype=torch.uint8, device=stored.device)
    decoder.decode(stored, batch, scratch)
    _copy(stored, batch.copies, scratch)
    decoded: dict[int, torch.Tensor] = {}
    for group in batch.groups:
        n_blocks, block_bytes = regions[group.region]
        pieces = scratch[group.start : group.start + len(group.rows) * group.n_bytes].view(-1, group.n_bytes)
        found = unshuffled(pieces, group.shuffle, group.typesize)
        if len(group.rows) == n_blocks and group.n_bytes == block_bytes:
            decoded[group.region] = found  # rows ascend, so that each stands in its place
            continue
        if group.region not in decoded:
            decoded[group.region] = scratch.new_empty(n_blocks, block_bytes)
        _put(decoded[group.region], group, found)
    return [
        decoded[number] if number in decoded else scratch.new_empty(shape)
        for number, shape in enumerate(regions)
    ]


def _copy(stored: torch.Tensor, copies: Streams, scratch: torch.Tensor) -> None:
    """Copy what is stored as it is. Copies at equal distances, as blocks of the profile ``raw`` are, are one operation."""
    if not len(copies):
        return
    order = np.lexsort((copies.source_offsets, copies.dest_bytes))
    at, to, size = (x[order] for x in (copies.source_offsets, copies.dest_offsets, copies.dest_bytes))
    steps = np.stack([np.diff(at), np.diff(to)])
    steady = np.ones(len(at) - 1, bool)
    steady &= (np.diff(size) == 0) & (steps >= size[:-1]).all(axis=0)
    begin = 0
    while begin < len(at):
        end = begin + 1
        if begin < len(steady) and steady[begin]:
            alike = steady[begin:] & (steps[:, begin:] == steps[:, begin : begin + 1]).all(axis=0)
            end += len(alike) if alike.all() else int(np.argmin(alike))
        _copy_steps(stored, scratch, at[begin:end], to[begin:end], int(size[begin]))
        begin = end


def _copy_steps(
    stored: torch.Tensor, scratch: torch.Tensor, at: np.ndarray, to: np.ndarray, size: int
) -> None:
    """Copy ``size`` bytes from each of ``at`` to each of ``to``, both of which have equal steps."""
    shape = (len(at), size)
    source_step, dest_step = (int(x[1] - x[0]) if len(x) > 1 else size for x in (at, to))
    source = torch.as_strided(stored, shape, (source_step, 1), int(at[0]))
    torch.as_strided(scratch, shape, (dest_step, 1), int(to[0])).copy_(source)


def _put(region: torch.Tensor, group: PieceGroup, pieces: torch.Tensor) -> None:
    """Put pieces into the rows of a region that they belong to."""
    columns = region[:, group.offset : group.offset + group.n_bytes]
    if len(group.rows) == len(region):
        columns.copy_(pieces)
    else:
        columns[torch.from_numpy(group.rows).to(region.device)] = pieces


def _tensors(batch: StoredBatch, regions: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    parts = zip(batch.handles, batch.layout.placements, regions, strict=True)
    return {handle.name: _tensor(handle, placement, region) for handle, placement, region in parts}


def _tensor(handle: Handle, placement: Placement, region: torch.Tensor) -> torch.Tensor:
    """Return the tensor of a handle, of its blocks (blocks, bytes) uint8."""
    m = handle.modality
    size = np.dtype(m.dtype).itemsize
    dtype = torch.from_numpy(np.empty(0, m.dtype)).dtype
    if region.storage_offset() % size:
        region = region.clone()  # a piece of a buffer in which other blocks have odd sizes
    if placement.is_region:
        return region.view(dtype).view(placement.shape)
    carrier = CARRIERS[size]
    fill = torch.from_numpy(np.array([m.fill_value], m.dtype)).view(carrier).item()
    out = torch.full(placement.shape, int(fill), dtype=carrier, device=region.device)
    if not len(placement.slots):
        return out.view(dtype)
    slots, blocks = (torch.from_numpy(x).to(region.device) for x in (placement.slots, placement.blocks))
    pixels = region.view(carrier).view(-1, m.height, m.width)
    places = out.view(-1, *placement.shape[3:])
    if placement.corners is None:
        places[slots] = pixels[blocks]
    else:
        y, x = torch.from_numpy(placement.corners.T.copy()).to(region.device)
        height, width = placement.shape[3:]
        ys = y[:, None] + torch.arange(height, device=region.device)
        xs = x[:, None] + torch.arange(width, device=region.device)
        places[slots] = pixels[blocks[:, None, None], ys[:, :, None], xs[:, None, :]]
    return out.view(dtype)
