"""The plan of a part: what one commit will add, decided before a pixel is read. Pure.

Samples are placed by season, then along the Hilbert curve, so that what a query selects together lies together; where a
source can only be read archive by archive, the archive comes first. The name of a part is a hash of all that decides its
content: the same ingest started again finds what it had already written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.index_schema import HILBERT_ORDER, SEASONS
from tensorbank.schema import TableSchema
from tensorbank_indexer.measures import hilbert_index, season_of
from tensorbank_indexer.source import SampleRef

__all__ = ["PartPlan", "place_numbers", "plan_part", "samples_per_shard_for"]

WRITER_VERSION = 3
MAX_SHARD_GROUP_BYTES = 640 << 20
MAX_SAMPLES_PER_SHARD = 512
MIN_SAMPLES_PER_SHARD = 8
SEASON_PLACES = {season: place for place, season in enumerate(sorted(SEASONS))}
"""The places of the seasons in the order of samples, which is that of compacted rows of the index, too."""


@dataclass(frozen=True, slots=True)
class PartPlan:
    """One part: its name, its codec profile, and the samples of each shard in row order."""

    part: str
    profile: str
    samples_per_shard: int
    shards: tuple[tuple[SampleRef, ...], ...]

    @property
    def n_samples(self) -> int:
        return sum(len(s) for s in self.shards)

    @property
    def n_rows(self) -> int:
        """The length of the sample axis; rows of samples that turn out unreadable stay fill values."""
        return (len(self.shards) - 1) * self.samples_per_shard + len(self.shards[-1])


def place_numbers(refs: Sequence[SampleRef]) -> npt.NDArray[np.int64]:
    """Return what sorts samples by season and along the Hilbert curve, (n,) in [0, 5 * 4**16).

    An unknown place counts as longitude and latitude 0, an unknown time as the first of January 1970.
    """
    lon, lat = (np.nan_to_num([getattr(r, axis) for r in refs]) for axis in ("lon", "lat"))  # unknown: NaN
    months = (
        np.array([r.time_ns for r in refs], np.int64)
        .astype("datetime64[ns]")
        .astype("datetime64[M]")
        .astype(np.int64)
    )
    seasons = [SEASON_PLACES[season_of(int(m) % 12 + 1, r.lat)] for m, r in zip(months, refs, strict=True)]
    return (np.array(seasons, np.int64) << 2 * HILBERT_ORDER) + hilbert_index(lon, lat)


def samples_per_shard_for(schema: TableSchema) -> int:
    """Return the largest power of two whose samples, decoded, fit what one task may hold; 128 for TerraMesh."""
    fitting = max(MAX_SHARD_GROUP_BYTES // schema.sample_bytes, MIN_SAMPLES_PER_SHARD)
    return min(1 << (fitting.bit_length() - 1), MAX_SAMPLES_PER_SHARD)


def plan_part(
    refs: Sequence[SampleRef],
    schema: TableSchema,
    *,
    placement: str,
    samples_per_shard: int,
    profile: str,
    n_tiles: int,
    strict: bool = False,
    deleted_from: Collection[str] = (),
) -> PartPlan:
    """Order samples and cut them into shards.

    Parameters
    ----------
    refs
        References of the samples, at least one.
    placement
        Placement of samples, as in :class:`tensorbank_indexer.source.Source`.
    strict
        True if the part is removed when something is found; its name then differs from that of a part that stays.
    deleted_from
        Parts of which some of these samples were deleted. The name of the part differs from theirs: a deletion is by the name
        of a part, so rows of a part of the same name would be deleted, too.
    """
    numbers = place_numbers(refs).tolist()

    def place(i: int) -> tuple[str, int, str]:
        return (refs[i].archive if placement == "archive" else "", numbers[i], refs[i].stem)

    ordered = [refs[i] for i in sorted(range(len(refs)), key=place)]
    shards = tuple(
        tuple(ordered[i : i + samples_per_shard]) for i in range(0, len(ordered), samples_per_shard)
    )
    identity = {
        "writer": WRITER_VERSION,
        "profile": profile,
        "samples_per_shard": samples_per_shard,
        "n_tiles": n_tiles,
        **({"strict": True} if strict else {}),
        **({"deleted_from": sorted(deleted_from)} if deleted_from else {}),
        "schema": [m.to_json() for m in schema],
        "samples": [
            [r.archive, r.stem, sorted((name, m.etag, m.offset) for name, m in r.members.items())]
            for r in ordered
        ],
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return PartPlan(f"part-{digest[:16]}", profile, samples_per_shard, shards)
