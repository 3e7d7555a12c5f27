"""The options of an ingest."""

from __future__ import annotations

from dataclasses import dataclass

from tensorbank.errors import InvalidInputError, nearest
from tensorbank.reading import PROFILES

__all__ = ["IngestOptions"]


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """The options of an ingest.

    Parameters
    ----------
    profile
        Codec profile, one of :data:`tensorbank.reading.codec.PROFILES`.
    n_workers
        Processes that read, measure and encode; the machine's processors if None. 1 works in this process.
    samples_per_shard
        Samples in one shard; None chooses by the size of a sample.
    samples_per_part
        Samples after whose scan a commit is made.
    n_tiles
        Cells of the finest index level along each axis of a sample. 4 keeps the index below 0.5 % of TerraMesh.
    revision
        Revision of the source, such as the commit of a dataset on a hub; a hash of its files' ETags if None.
    strict
        Commit nothing of a part if anything was damaged, missing or doubtful, and leave nothing of it in the bank.
    licence
        Licence of the copy, kept with the part; None: what the source says of itself.
    single_writer
        Go on although the store does not honour conditional writes.
    """

    profile: str = "balanced"
    n_workers: int | None = None
    samples_per_shard: int | None = None
    samples_per_part: int = 16_384
    n_tiles: int = 4
    revision: str | None = None
    strict: bool = False
    single_writer: bool = False
    licence: str | None = None

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise InvalidInputError(f"no codec profile {self.profile!r}.{nearest(self.profile, PROFILES)}")
        for name in ("n_workers", "samples_per_shard", "samples_per_part", "n_tiles"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"{name} is {value}; at least 1 is needed")
