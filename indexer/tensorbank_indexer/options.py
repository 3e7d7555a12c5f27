"""The options of an ingest."""

from __future__ import annotations

from dataclasses import dataclass

from tensorbank.errors import InvalidInputError, nearest
from tensorbank.reading import DEFAULT_PROFILE, PROFILES

__all__ = ["AUTO", "IngestOptions"]

AUTO = "auto"
"""The word for the profile that suits the samples and the machines that will read them."""


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """The options of an ingest.

    Parameters
    ----------
    profile
        Codec profile, one of :data:`tensorbank.reading.codec.PROFILES`, or ``auto``: chosen for each part by what its first
        samples take, for machines of ``reader_cores`` and ``reader_network_gbps``.
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
    reader_cores, reader_network_gbps
        Cores of a reading machine that are free to decode, and its network in gigabits a second; only ``auto`` asks.
    licence
        Licence of the copy, kept with the part; None: what the source says of itself.
    refresh
        Replace the modalities of samples whose files are other ones now, and add those of files that came later.
    dry_run
        Write nothing: scan, and report what is new and what has changed.
    single_writer
        Go on although the store does not honour conditional writes.
    """

    profile: str = DEFAULT_PROFILE
    n_workers: int | None = None
    samples_per_shard: int | None = None
    samples_per_part: int = 16_384
    n_tiles: int = 4
    revision: str | None = None
    strict: bool = False
    single_writer: bool = False
    licence: str | None = None
    refresh: bool = False
    dry_run: bool = False
    reader_cores: int = 8
    reader_network_gbps: float = 25.0

    def __post_init__(self) -> None:
        names = (*PROFILES, AUTO)
        if self.profile not in names:
            raise InvalidInputError(f"no codec profile {self.profile!r}.{nearest(self.profile, names)}")
        if not self.reader_network_gbps > 0:
            raise InvalidInputError(
                f"reader_network_gbps is {self.reader_network_gbps}; more than 0 is needed"
            )
        for name in ("n_workers", "samples_per_shard", "samples_per_part", "n_tiles", "reader_cores"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"{name} is {value}; at least 1 is needed")
