"""The port through which bytes of objects come: all that reading samples needs of a store."""

from __future__ import annotations

from typing import Protocol

__all__ = ["RangeReader"]


class RangeReader(Protocol):
    """A reader of byte ranges of objects below one URL.

    The contract, which :class:`tensorbank.testing.RangeReaderContract` tests:

    * It may be used from many threads at once.
    * It pickles; connections stay behind and are made anew on use. Keys of access travel, since the other process needs them.
    * Whoever calls repeats what failed, with pauses. So a reader gives up soon: it neither waits for a store that is busy, nor
      counts tries.
    * Keys and signed URLs that have expired are renewed within :meth:`get_range`, once a call. So whoever calls needs no word
      for it.
    """

    @property
    def url(self) -> str:
        """The URL that keys are below. It names objects in messages, and holds no secret."""
        ...

    @property
    def cache_name(self) -> str:
        """A name of the place that is the same in every process, and another for other objects. It holds no secret."""
        ...

    @property
    def is_local(self) -> bool:
        """True if the bytes come from a disk of this machine, which is not hurried by asking twice."""
        ...

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        """Read the bytes ``[start, end)`` of an object: ``end - start`` bytes, read-only.

        Raises
        ------
        InvalidInputError
            The range is empty or negative; the kind is ``bad-range``.
        NotFoundError
            There is no such object.
        StorageError
            By its kind: ``short-read``, the object ends before the range or other bytes came; ``throttled``, the store is busy,
            for ``retry_after_s`` if it says so; ``unreachable``, nothing answers; ``denied`` and others, asking again is of
            no use.
        """
        ...
