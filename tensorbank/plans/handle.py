"""Handles: what a plan reads of a modality, and where in its table that lies, in columns as :mod:`tensorbank.plans.plan` says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arrow_numpy import as_numpy
from tensorbank.errors import ErrorKind, IntegrityError
from tensorbank.layout import is_below, is_shard_key
from tensorbank.schema import Modality

__all__ = ["ADDRESS_FIELDS", "Handle", "HandleAddresses", "addresses_of", "check_addresses"]

MAX_OBJECT_BYTES = 1 << 45
"""The bound of an object's size in bytes: more than any store allows."""
BLOCK_OVERHEAD_BYTES = 4096
"""The most bytes that a stored block may exceed its pixels by, far more than any codec adds:
a longer length is wrong, and is not allocated."""
ADDRESS_FIELDS = ("key", "starts", "lengths", "corner", "n_times")
"""The fields of the columns that a handle has in a plan's table."""


@dataclass(frozen=True, slots=True)
class Handle:
    """One selected modality: what to read of every sample and how to hand it out.

    ``name`` is its key in the batch, ``bands`` are indices into ``modality.bands`` in the order asked for. ``window`` is
    (height, width) of the tiles that were selected, one date of each; None where whole samples were. ``by_date`` says that runs
    end where a date does, so that a date of a sample can be read alone.
    """

    name: str
    modality: Modality
    bands: tuple[int, ...]
    window: tuple[int, int] | None = None
    by_date: bool = False

    @property
    def n_times(self) -> int:
        """The number of dates of one sample as delivered."""
        return self.modality.n_times if self.window is None else 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (time, band, y, x) of one sample as delivered."""
        m = self.modality
        return (self.n_times, len(self.bands), *(self.window or (m.height, m.width)))

    @property
    def n_bytes(self) -> int:
        """The decoded size of one sample as delivered."""
        return math.prod(self.shape) * np.dtype(self.modality.dtype).itemsize

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """The maximal runs of consecutive blocks to read, half-open, in stored order (date by date,
        band by band).

        Of a window, blocks count from the first of its date.
        """
        n_bands = len(self.modality.bands)
        wanted = sorted(t * n_bands + b for t in range(self.n_times) for b in self.bands)
        runs: list[tuple[int, int]] = []
        for block in wanted:
            date_ends = self.by_date and block % n_bands == 0
            if runs and runs[-1][1] == block and not date_ends:
                runs[-1] = (runs[-1][0], block + 1)
            else:
                runs.append((block, block + 1))
        return tuple(runs)

    def n_present(self, run: tuple[int, int], n_times: int) -> int:
        """Return the number of blocks of a run that a sample with so many dates has:
        the first ones, maybe none."""
        start, end = run
        return min(max(n_times * len(self.modality.bands) - start, 0), end - start)

    def slot(self, block: int) -> tuple[int, int]:
        """Return the (time, band) index in the delivered tensor of a stored block that is one of the runs."""
        time, band = divmod(block, len(self.modality.bands))
        return time, self.bands.index(band)


@dataclass(frozen=True, slots=True)
class HandleAddresses:
    """The addresses of one handle for all samples of a plan, as numpy views.

    ``keys`` lists the distinct shard keys; ``key`` is (n,) int32 into it, -1 where the sample lacks the modality;
    ``starts`` and ``lengths`` are (n, runs) int64 and uint32, bytes; ``corners`` is (n, 2) int16, y0 and x0 of the windows, None
    of whole samples; ``n_times`` is (n,) int16, the dates that a sample has, 0 where it lacks the modality, and None where all
    have all.
    """

    keys: tuple[str, ...]
    key: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    corners: npt.NDArray[np.int64] | None = None
    n_times: npt.NDArray[np.int16] | None = None


def addresses_of(table: pa.Table, handle: Handle) -> HandleAddresses:
    """Return the addresses of a handle in a plan's table."""
    n_runs = len(handle.runs)
    column = table[f"{handle.name}.key"]
    # combine_chunks() copies even a single chunk, which workers have in shared memory
    keys = column.chunk(0) if column.num_chunks == 1 else _one_chunk(column)
    n_times = f"{handle.name}.n_times"
    index = as_numpy(keys.indices, -1).astype(np.int32, copy=False)
    return HandleAddresses(
        keys=tuple(keys.dictionary.to_pylist()),
        key=index,
        starts=_flat(table[f"{handle.name}.starts"], n_runs),
        lengths=_flat(table[f"{handle.name}.lengths"], n_runs),
        corners=_flat(table[f"{handle.name}.corner"], 2) if handle.window else None,
        n_times=as_numpy(table[n_times]) if n_times in table.column_names else None,
    )


def check_addresses(a: HandleAddresses, handle: Handle, bank: str) -> None:
    """Refuse addresses that cannot be, whoever wrote them: nothing is read, or allocated, by their word alone.

    Raises
    ------
    IntegrityError
        A key leads outside of the bank, or bytes are none that an object of this modality can have.
    """
    for key in a.keys:
        # The plan that joins those of a mix has banks' folders before the keys.
        if not is_shard_key(key) and not (is_below(key) and is_shard_key("/".join(key.split("/")[-10:]))):
            raise IntegrityError(
                f"{handle.name} leads to {key!r}, which is no shard of {bank}", kind=ErrorKind.BAD_ADDRESS
            )
    n_keys = len(a.keys)
    if len(a.key) and not (a.key.min() >= -1 and a.key.max() < n_keys):
        raise IntegrityError(
            f"{handle.name} leads to shard {a.key.max()} of {n_keys}", kind=ErrorKind.BAD_ADDRESS
        )
    most = np.array([last - first for first, last in handle.runs], np.int64) * (
        handle.modality.block_bytes + BLOCK_OVERHEAD_BYTES
    )
    bad = (a.starts < 0) | (a.starts > MAX_OBJECT_BYTES) | (a.lengths < 0) | (a.lengths > most)
    if bad.any():
        row, run = np.argwhere(bad)[0].tolist()
        key = a.keys[a.key[row]] if a.key[row] >= 0 else "no shard"
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


def _flat(column: pa.ChunkedArray, n_runs: int) -> npt.NDArray[Any]:
    chunks = [as_numpy(c.values.slice(c.offset * n_runs, len(c) * n_runs)) for c in column.chunks]
    flat = chunks[0] if len(chunks) == 1 else np.concatenate([np.zeros(0, np.uint8), *chunks])
    return flat.reshape(-1, n_runs)
