"""Findings of a verification: what is wrong in a table, under names that stay. Values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["MAX_NAMED", "Finding", "FindingKind", "VerifyReport"]

MAX_NAMED = 1024
"""The most samples that one finding names."""


class FindingKind(StrEnum):
    """The stable names of what a verification finds, each with a ``description``."""

    description: str

    def __new__(cls, name: str, description: str = "") -> FindingKind:
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.description = description
        return kind

    # The index as objects.
    DAMAGED_LOG = "damaged-log", "A commit or checkpoint is damaged, or a commit is missing."
    MISSING_PIN = "missing-pin", "The snapshot names a version of another level that is not there."
    MISSING_INDEX_FILE = "missing-index-file", "An index file that the log names is gone."
    DAMAGED_INDEX_FILE = "damaged-index-file", "An index file is not what its name and the log say."
    DAMAGED_TAG = "damaged-tag", "A tag cannot be read, or names a version that is not there."
    DAMAGED_LEASE = "damaged-lease", "A lease cannot be read."

    # The rows of the index, each level against the others.
    WRONG_KEY = "wrong-key", "The key of a row is not that of its split and sample_id."
    DUPLICATE_SAMPLE = "duplicate-sample", "Two rows that count are of one sample."
    WRONG_MODALITIES = "wrong-modalities", "The list of a sample's modalities is not that of its columns."
    BAD_REF = "bad-ref", "An address cannot be one: its key, its range, or the lengths of its blocks."
    MISSING_TILES = "missing-tiles", "A sample has fewer tiles than the others of its part."
    STRAY_TILES = "stray-tiles", "Tiles are of no sample, or are there twice."
    WRONG_TILES = "wrong-tiles", "Tiles lead elsewhere than their sample, or have another place or window."
    MISSING_ROLL_UP = "missing-roll-up", "A shard has no row in shards."
    STRAY_ROLL_UP = "stray-roll-up", "A row of shards is of no sample, or is there twice."
    WRONG_ROLL_UP = "wrong-roll-up", "A row of shards does not say what the rows of its samples say."
    MISSING_KEY = "missing-key", "The level keys lacks a row of samples."
    EXTRA_KEY = "extra-key", "The level keys has a key that no row of samples has."
    STRAY_DELETION = "stray-deletion", "The level deleted names a row that is not there."
    STRAY_VALUE = "stray-value", "An added column has a value of no sample."
    DUPLICATE_VALUE = "duplicate-value", "An added column has two values of one sample."
    WRONG_COPY = "wrong-copy", "A sorted copy has other rows than the samples it was made of."

    # Stored objects.
    MISSING_SHARD = "missing-shard", "A shard that samples lie in is gone."
    CUT_SHARD = "cut-shard", "A shard is shorter than its samples say."
    DAMAGED_SHARD_INDEX = "damaged-shard-index", "The index of a shard is damaged."
    OTHER_SHARD_INDEX = "other-shard-index", "The index of a shard leads to other bytes than the samples."
    ZARR_DOCUMENT = "zarr-document", "A zarr.json is missing, or not as it was written."
    DAMAGED_BLOCK = "damaged-block", "A block's checksum is wrong, or it does not decode."
    WRONG_STATISTICS = "wrong-statistics", "The index says other statistics than the pixels."
    UNREADABLE = "unreadable", "The store did not hand out an object."


@dataclass(frozen=True, slots=True)
class Finding:
    """A flaw of one object, or of rows of one level.

    ``key`` is that of the object, or of the level's folder. ``sample_ids`` are those it concerns, at most :data:`MAX_NAMED`;
    none where it concerns all that the object holds. ``level`` is that of wrong rows, and ``shards`` are part and number of the
    shards whose roll-ups are meant.
    """

    kind: FindingKind
    key: str
    reason: str
    modality: str = ""
    sample_ids: tuple[str, ...] = ()
    level: str = ""
    shards: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class VerifyReport:
    """The result of verifying one table at one version.

    ``n_samples`` are those that count. ``n_blocks``, ``n_bytes`` were read, checked and decoded, which only a deep verification
    does; ``n_known`` of its samples had been verified before. ``seconds`` is the time it took.
    """

    table: str
    version: int
    deep: bool = False
    n_samples: int = 0
    n_index_files: int = 0
    n_shards: int = 0
    n_blocks: int = 0
    n_bytes: int = 0
    n_known: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not self.findings

    def add(self, found: Iterable[Finding]) -> bool:
        """Add findings; tell whether there was none."""
        before = len(self.findings)
        self.findings.extend(found)
        return len(self.findings) == before
