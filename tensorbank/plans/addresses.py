"""Addresses: the bytes of the tensors of some samples, checked, as arrays that a reader of pixels works on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arrow_numpy import as_numpy
from tensorbank.errors import ErrorKind, IntegrityError
from tensorbank.layout import is_below, is_shard_key
from tensorbank.plans.handle import Handle

__all__ = ["Addresses", "HandleAddresses"]

MAX_OBJECT_BYTES = 1 << 45
"""The bound of an object's size in bytes: more than any store allows."""
BLOCK_OVERHEAD_BYTES = 4096
"""The most bytes that a stored block may exceed its pixels by, far more than any codec adds:
a longer length is wrong, and is not allocated."""
SAMPLE_ID = "sample_id"
"""The column that names samples in messages, where a query selects it."""


@dataclass(frozen=True, slots=True)
class HandleAddresses:
    """The addresses of one handle for n samples, as views of columns.

    Parameters
    ----------
    shard_keys
        Distinct keys of shards.
    shard_of
        (n,) int32: the number of each sample's shard in ``shard_keys``, -1 where the sample lacks the modality.
    starts, lengths
        (n, runs) int64 and uint32: the bytes ``[start, start + length)`` of each run of blocks in the shard.
    corners
        (n, 2) int16: y0 and x0 of the windows; None of whole samples.
    n_times
        (n,) int16: the number of dates that each sample has, 0 where it lacks the modality; None where all have all.
    """

    shard_keys: tuple[str, ...]
    shard_of: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.uint32]
    corners: npt.NDArray[np.int16] | None = None
    n_times: npt.NDArray[np.int16] | None = None

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """The samples that have the modality, (n,) bool."""
        return self.shard_of >= 0


class Addresses(Mapping[str, HandleAddresses]):
    """The addresses of the tensors of some samples, by name of the handle: what reading them needs to know of a plan.

    Parameters
    ----------
    handles
        Handles in the order of the plan.
    by_handle
        Addresses of each handle, in the same order and of the same samples.
    n_samples
        Number of the samples.
    sample_ids
        Names of the samples for messages; None if they are not known.
    """

    def __init__(
        self,
        handles: Sequence[Handle],
        by_handle: Sequence[HandleAddresses],
        n_samples: int,
        sample_ids: pa.ChunkedArray | None = None,
    ) -> None:
        self.handles = tuple(handles)
        self.by_handle = tuple(by_handle)
        self.n_samples = n_samples
        self.sample_ids = sample_ids
        self._numbers = {handle.name: number for number, handle in enumerate(self.handles)}

    @classmethod
    def of(cls, table: pa.Table, handles: Sequence[Handle], bank: str) -> Addresses:
        """Return the addresses that the table of a plan holds.

        Parameters
        ----------
        bank
            URL of the bank, for messages.

        Raises
        ------
        IntegrityError
            An address cannot be, whoever wrote it: it leads outside of the bank, or to bytes that no object has. So nothing is
            read, or allocated, by its word alone.
        """
        found = [_views(table, handle) for handle in handles]
        for handle, addresses in zip(handles, found, strict=True):
            _check(addresses, handle, bank)
        ids = table[SAMPLE_ID] if SAMPLE_ID in table.column_names else None
        return cls(handles, found, table.num_rows, ids)

    def __getitem__(self, handle: str) -> HandleAddresses:
        return self.by_handle[self._numbers[handle]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        """Return the number of handles."""
        return len(self._numbers)

    def only(self, handle: str) -> Addresses:
        """Return the addresses of one handle."""
        number = self._numbers[handle]
        return Addresses([self.handles[number]], [self.by_handle[number]], self.n_samples, self.sample_ids)

    def name_of(self, position: int) -> str:
        """Return the name of a sample for messages."""
        if self.sample_ids is None:
            return f"sample number {position} of the plan"
        return f"sample {self.sample_ids[position].as_py()!r}, number {position} of the plan"

    @property
    def n_blocks(self) -> int:
        """The number of blocks to deliver."""
        return sum(n * len(h.bands) for h, n in zip(self.handles, self._n_dates, strict=True))

    @property
    def read_bytes(self) -> int:
        """The number of stored bytes of those blocks."""
        return sum(int(a.lengths[a.present].sum(dtype=np.int64)) for a in self.by_handle)

    @property
    def tensor_bytes(self) -> int:
        """The number of decoded bytes of those blocks."""
        return sum(n * h.n_bytes // h.n_times for h, n in zip(self.handles, self._n_dates, strict=True))

    @property
    def n_reads(self) -> int:
        """The number of requests of one shuffled epoch:
        runs of one tensor that lie near each other share one, samples do not.
        """
        n_reads = 0
        for a in self.by_handle:
            starts, ends = a.starts[a.present], a.starts[a.present] + a.lengths[a.present]
            apart = starts[:, 1:] - ends[:, :-1] > 0
            n_reads += len(starts) + int(apart.sum())
        return n_reads

    @property
    def _n_dates(self) -> list[int]:
        """The number of dates of all samples together, by handle."""
        return [
            int(a.present.sum()) * h.n_times if a.n_times is None else int(a.n_times.sum(dtype=np.int64))
            for h, a in zip(self.handles, self.by_handle, strict=True)
        ]


def _views(table: pa.Table, handle: Handle) -> HandleAddresses:
    """Return the addresses of a handle in the table of a plan."""
    n_runs, columns = len(handle.runs), handle.columns
    column = table[columns.key]
    # combine_chunks() copies even a single chunk, which workers have in shared memory
    keys = column.chunk(0) if column.num_chunks == 1 else _one_chunk(column)
    return HandleAddresses(
        shard_keys=tuple(keys.dictionary.to_pylist()),
        shard_of=as_numpy(keys.indices, -1).astype(np.int32, copy=False),
        starts=_flat(table[columns.starts], n_runs),
        lengths=_flat(table[columns.lengths], n_runs),
        corners=_flat(table[columns.corner], 2) if handle.window else None,
        n_times=as_numpy(table[columns.n_times]) if columns.n_times in table.column_names else None,
    )


def _check(a: HandleAddresses, handle: Handle, bank: str) -> None:
    """Raise IntegrityError where an address cannot be."""
    for key in a.shard_keys:
        # The plan that joins those of a mix has banks' folders before the keys.
        if not is_shard_key(key) and not (is_below(key) and is_shard_key("/".join(key.split("/")[-10:]))):
            raise IntegrityError(
                f"{handle.name} leads to {key!r}, which is not a shard of {bank}", kind=ErrorKind.BAD_ADDRESS
            )
    n_keys = len(a.shard_keys)
    if len(a.shard_of) and not (a.shard_of.min() >= -1 and a.shard_of.max() < n_keys):
        raise IntegrityError(
            f"{handle.name} leads to shard {a.shard_of.max()} of {n_keys}", kind=ErrorKind.BAD_ADDRESS
        )
    most = np.array([last - first for first, last in handle.runs], np.int64) * (
        handle.modality.block_bytes + BLOCK_OVERHEAD_BYTES
    )
    bad = (a.starts < 0) | (a.starts > MAX_OBJECT_BYTES) | (a.lengths < 0) | (a.lengths > most)
    if bad.any():
        row, run = np.argwhere(bad)[0].tolist()
        key = a.shard_keys[a.shard_of[row]] if a.shard_of[row] >= 0 else "no shard"
        start, length = int(a.starts[row, run]), int(a.lengths[row, run])
        raise IntegrityError(
            f"{handle.name} of row {row} leads to bytes [{start}, {start + length}) of {bank}/{key}, which no object of "
            f"{handle.modality.name} has; at most {int(most[run])} bytes are its blocks",
            kind=ErrorKind.BAD_ADDRESS,
        )
    if (
        a.n_times is not None
        and len(a.n_times)
        and not (a.n_times.min() >= 0 and a.n_times.max() <= handle.n_times)
    ):
        raise IntegrityError(
            f"{handle.name} has samples of {a.n_times.min()} to {a.n_times.max()} dates, {handle.n_times} are possible",
            kind=ErrorKind.BAD_ADDRESS,
        )
    if a.corners is not None and handle.window is not None and len(a.corners):
        m = handle.modality
        limits = np.array([m.height - handle.window[0], m.width - handle.window[1]])
        if (a.corners < 0).any() or (a.corners > limits).any():
            raise IntegrityError(
                f"windows of {handle.name} lie outside of its tensors", kind=ErrorKind.BAD_ADDRESS
            )


def _one_chunk(column: pa.ChunkedArray) -> pa.DictionaryArray:
    if not column.num_chunks:
        return pa.DictionaryArray.from_arrays(pa.nulls(0, pa.int32()), pa.nulls(0, pa.string()))
    found = column.unify_dictionaries().combine_chunks()
    return found.chunk(0) if isinstance(found, pa.ChunkedArray) else found


def _flat(column: pa.ChunkedArray, n: int) -> npt.NDArray[Any]:
    """Return a column of lists of ``n`` numbers as (rows, n)."""
    chunks = [as_numpy(c.values.slice(c.offset * n, len(c) * n)) for c in column.chunks]
    flat = chunks[0] if len(chunks) == 1 else np.concatenate([np.zeros(0, np.uint8), *chunks])
    return flat.reshape(-1, n)
