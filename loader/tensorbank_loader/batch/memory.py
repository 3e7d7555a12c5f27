"""Memory of batches that is used again, so that the kernel need not clear fresh pages for each: at 0.7 CPU seconds a GB that
costs as much as decoding them."""

from __future__ import annotations

import mmap
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["BatchMemory"]

Bytes = npt.NDArray[np.uint8]

LARGE_BYTES = 4 << 20
"""The size in bytes from which numpy asks for huge pages. Where cached files fill the memory, the kernel
moves them about to make some, which takes far longer than clearing small pages."""


class _Lease(np.ndarray[tuple[int], np.dtype[np.uint8]]):
    """A view that one can be told the end of: numpy's own arrays know no weak references."""


class BatchMemory:
    """A pool that hands out memory, and takes it back when the last tensor in it is gone,
    whoever held it and however it was viewed.

    So a consumer that keeps a batch keeps its memory, and one that lets it go has it filled again. What is kept for reuse was
    in use at one time: reuse never adds to the peak. Give-backs come from any thread.

    Parameters
    ----------
    pinned
        Page-locked memory, for copies to a GPU; locking it takes far longer than filling it. Whoever copies out of it must
        hold the tensor until the copy is over.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._free: dict[str, deque[Bytes]] = {}

    def tensor(self, use: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor.

        Parameters
        ----------
        use
            Use of the memory: it is used again for the same only, where sizes are the same but for the last
            batch's.
        """
        n_bytes = dtype.itemsize * int(np.prod(shape))
        free = self._free.setdefault(use, deque())
        try:
            memory = free.pop()
        except IndexError:
            memory = self._new(n_bytes)
        if len(memory) < n_bytes:
            memory = self._new(n_bytes)
        lease = memory.view(_Lease)
        weakref.finalize(lease, free.append, memory).atexit = False
        flat = torch.from_numpy(lease[:n_bytes]) if n_bytes else torch.empty(0, dtype=torch.uint8)
        return flat.view(dtype).view(shape)

    def _new(self, n_bytes: int) -> Bytes:
        if self._pinned:
            locked: Bytes = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True).numpy()
            return locked
        if n_bytes < LARGE_BYTES:
            return np.empty(n_bytes, np.uint8)
        return np.frombuffer(mmap.mmap(-1, n_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)

    def clear(self) -> None:
        """Let go of what nobody uses."""
        for free in self._free.values():
            free.clear()
