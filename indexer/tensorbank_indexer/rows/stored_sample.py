"""A sample whose blocks lie in a shard, as the index rows are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorbank_indexer.measures import Measure

__all__ = ["StoredModality", "StoredSample"]


@dataclass(frozen=True, slots=True)
class StoredModality:
    """One modality of one stored sample: its address, its origin and its statistics.

    ``ref`` has the fields of :data:`tensorbank.index_schema.REF_TYPE`, ``source`` those of ``SOURCE_TYPE``. ``product_ids``
    has one id a date, or none. ``radiometric_offset`` is None for modalities that cannot have one.
    """

    ref: Mapping[str, object]
    source: Mapping[str, object]
    product_ids: tuple[str, ...]
    radiometric_offset: Mapping[str, object] | None
    measure: Measure


@dataclass(frozen=True, slots=True)
class StoredSample:
    """One stored sample. ``row`` is its place on the sample axis of its part; ``facts`` holds the columns of the samples table
    that are not modalities, by name, and lacks those that are null.
    """

    row: int
    facts: Mapping[str, object]
    modalities: Mapping[str, StoredModality]
