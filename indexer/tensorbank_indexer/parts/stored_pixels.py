"""Pixels that a bank has, by the addresses of its index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.addressing import HandleColumn, address_columns
from tensorbank.fetch import Fetcher
from tensorbank.index_schema import TILE_REF_TYPE
from tensorbank.plans import Addresses, Handle
from tensorbank.reading import SampleReader
from tensorbank.schema import Modality
from tensorbank.storage import Store

__all__ = ["StoredPixels"]


class StoredPixels:
    """A reader of one modality at a time. Use it as a context: it has threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._fetcher = Fetcher(store)

    def __enter__(self) -> StoredPixels:
        return self

    def __exit__(self, *_: object) -> None:
        self._fetcher.close()

    def read(
        self, modality: Modality, refs: Sequence[Mapping[str, Any]]
    ) -> tuple[npt.NDArray[np.generic], list[int]]:
        """Return ``(n, time, band, y, x)`` in the stored dtype, and the number of dates that each sample has.

        Raises
        ------
        IntegrityError
            Blocks are damaged, or an address cannot be.
        StorageError
            The store does not answer.
        """
        handle = Handle("pixels", modality, tuple(range(len(modality.bands))))
        column = HandleColumn.of_refs("pixels", pa.array([dict(ref) for ref in refs], TILE_REF_TYPE))
        addresses = Addresses.of(pa.table(address_columns(column, handle)), [handle], self.store.url)
        pixels = SampleReader(addresses, self._fetcher).read(np.arange(len(refs)))["pixels"]
        n_times = addresses["pixels"].n_times
        return pixels, [modality.n_times] * len(refs) if n_times is None else n_times.tolist()
