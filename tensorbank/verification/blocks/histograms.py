"""Histograms of roll-ups, compared with those of the pixels of their samples, summed up while blocks are read.

Of each roll-up a digest is kept, some dozen bytes, and the counts of the shards whose samples are not all read yet.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.schema import Modality, TableSchema
from tensorbank.verification.findings import Finding, FindingKind
from tensorbank.verification.sample_rows import batches, whole

__all__ = ["Counts", "RollUpHistograms"]

MAX_OPEN = 512
"""The most shards whose samples are not all read yet; of more, those that wait longest are not compared."""
ROWS = 64

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counts:
    """The histograms of some samples in one shard: how many they are, and (band, bin) pixels."""

    n_samples: int
    histogram: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _Said:
    """The histograms of a roll-up: part and number of the shard, its samples, and a digest."""

    place: tuple[str, int]
    modality: str
    n_samples: int
    digest: bytes


class RollUpHistograms:
    """The histograms of all roll-ups of a version.

    Parameters
    ----------
    shards
        Local paths of the sound files of shards.
    folder
        Key of the level.
    """

    def __init__(self, schema: TableSchema, shards: Sequence[str], folder: str) -> None:
        self.folder = folder
        self._said: dict[str, _Said] = {}
        self._open: OrderedDict[str, Counts] = OrderedDict()
        for path in shards:
            for rows in batches(path, n_rows=ROWS):
                for modality in schema:
                    if not modality.categorical and rows.schema.get_field_index(modality.name) >= 0:
                        self._read(rows, modality)

    def _read(self, rows: pa.Table, modality: Modality) -> None:
        column = whole(rows[modality.name])
        one = len(modality.bands) == 1
        bands = [column if one else column.field(name) for name in modality.band_names]
        listed = [
            list(zip(band.field("bins").to_pylist(), band.field("bin_counts").to_pylist(), strict=True))
            for band in bands
        ]
        keys, n_samples = (column.field(n).to_pylist() for n in ("key", "n_samples"))
        places = zip(rows["part"].to_pylist(), rows["shard"].to_pylist(), strict=True)
        for row, (key, n, place) in enumerate(zip(keys, n_samples, places, strict=True)):
            said = [of_band[row] for of_band in listed]
            if key is None or any(bins is None for bins, _ in said):  # of shards that lost samples
                continue
            numbers = [(np.array(bins, np.int64), np.array(counts or [], np.int64)) for bins, counts in said]
            self._said[key] = _Said(place, modality.name, n, _digest(numbers))

    def add(self, key: str, counts: Counts) -> Iterator[Finding]:
        """Add what was read of a shard; yield a finding if that was the last of it, and the roll-up says something else."""
        said = self._said.get(key)
        if said is None:
            return
        before = self._open.pop(key, None)
        if before is not None:
            counts = Counts(before.n_samples + counts.n_samples, before.histogram + counts.histogram)
        if counts.n_samples < said.n_samples:
            self._open[key] = counts
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
            return
        found = [(bins := np.flatnonzero(band), band[bins]) for band in counts.histogram]
        if counts.n_samples == said.n_samples and _digest(found) != said.digest:
            part, shard = said.place
            name = f"{part} {shard}"
            reason = (
                f"the row of part and shard {name} says another histogram of {said.modality} than its pixels"
            )
            yield Finding(
                FindingKind.WRONG_ROLL_UP,
                self.folder,
                reason,
                said.modality,
                level="shards",
                shards=(said.place,),
            )


def _digest(bands: Sequence[tuple[Int64, Int64]]) -> bytes:
    made = hashlib.blake2b(digest_size=16)
    for bins, counts in bands:
        made.update(len(bins).to_bytes(8, "little") + len(counts).to_bytes(8, "little"))
        made.update(bins.astype("<i8").tobytes() + counts.astype("<i8").tobytes())
    return made.digest()
