"""Memory of batches that is used again.

For fresh memory the kernel has to clear pages, which takes 0.7 CPU seconds a GB: as much as decoding.
"""

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
"""The size in bytes from which numpy asks for huge pages. If cached files fill the memory, the kernel moves them to make room for
huge pages, which takes far longer than clearing small ones. So larger buffers are mapped without numpy."""


class _Lease(np.ndarray[tuple[int], np.dtype[np.uint8]]):
    """A view of memory whose end can be observed by a weak reference, which numpy's own arrays do not allow."""


class BatchMemory:
    """A pool that hands out memory, and takes it back when the last tensor in it is gone.

    That includes views, whoever holds them. So a batch that the consumer keeps is never overwritten, and one that it lets go of
    is filled again. All memory that waits for reuse was in use at one time, so that reuse never adds to the peak. Memory comes
    back from any thread.

    Parameters
    ----------
    pinned
        True for page-locked memory, for copies to a GPU; locking it takes far longer than filling it. Whoever copies out of it
        must hold the tensor until the copy is over.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._free: dict[str, deque[Bytes]] = {}

    def tensor(self, use: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return an uninitialised tensor.

        Parameters
        ----------
        use
            Name of the use. Memory is used again for the same use only: there, all batches but the last need the same size.
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
        """Return fresh memory."""
        if self._pinned:
            locked: Bytes = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True).numpy()
            return locked
        if n_bytes < LARGE_BYTES:
            return np.empty(n_bytes, np.uint8)
        return np.frombuffer(mmap.mmap(-1, n_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)

    def clear(self) -> None:
        """Free the memory that nobody uses."""
        for free in self._free.values():
            free.clear()
