"""The ``Source`` port and its values: the interface of archive formats that can be ingested.

A source is opened on the root of a dataset (a folder or any fsspec URL). It lists *archives*
(files that belong together: the same-named tar of every modality, the same-numbered zip), *scans*
one archive into sample references without decoding pixels, and *reads* references into tensors.
Defects never stop a source: each becomes a ``Finding`` that names archive, member, modality, reason
and what was done; sound samples go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "Archive",
    "Finding",
    "MemberAddress",
    "RawModality",
    "RawSample",
    "SampleRef",
    "Scan",
    "Source",
    "SourceFile",
]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of an archive.

    ``path`` is relative to the root of the source; ``etag`` is the store's ETag, or
    ``mtime-<ns>-<size>`` where the store has none: it changes when the file is rewritten.
    """

    modality: str
    path: str
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Archive:
    """The files that hold the modalities of the same samples."""

    name: str
    split: str
    subset: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True, slots=True)
class MemberAddress:
    """Bytes ``[offset, offset + length_bytes)`` of a source file that hold one modality of one sample."""

    path: str
    offset: int
    length_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of an ingest report.

    ``kind`` is stable and kebab-case (``missing-member``, ``corrupt-chunk``, ...), ``reason`` says what
    was found, ``action`` what was done about it. ``member``, ``modality`` are empty where they do not apply.
    """

    kind: str
    archive: str
    reason: str
    action: str
    member: str = ""
    modality: str = ""


@dataclass(frozen=True, slots=True)
class SampleRef:
    """One sample of an archive, found but not yet read.

    ``stem`` is its member name without suffix, unique in its archive. ``sample_id``, ``lon``, ``lat`` (degrees)
    and ``time_ns`` (first optical date, ns since 1970, UTC) are known from a metadata table or a cheap
    look into one member; they decide place and order before pixels are read. Unknown ones are NaN and 0.
    """

    archive: str
    split: str
    subset: str
    stem: str
    sample_id: str
    lon: float
    lat: float
    time_ns: int
    members: Mapping[str, MemberAddress]
    position: int = 0
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scan:
    """The content of one archive."""

    archive: Archive
    samples: tuple[SampleRef, ...]
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class RawModality:
    """One modality of one sample as the archive means it.

    ``pixels`` has shape (time, band, y, x), the first row in the north, the first column in the west. They are the
    archive's bit for bit, unless it declares packing or missing values: then they are floats, and NaN if missing.
    ``times_ns`` is (time,) int64, ns since 1970 UTC, or None where the archive has none (DEM) or it is damaged. ``product_ids``
    has one id a date, or none.
    ``bands`` are the names stored in the archive.
    """

    pixels: npt.NDArray[np.generic]
    bands: tuple[str, ...]
    times_ns: npt.NDArray[np.int64] | None
    product_ids: tuple[str, ...]
    address: MemberAddress


@dataclass(slots=True)
class RawSample:
    """One sample, read. ``modalities`` lacks what was missing or damaged; ``findings`` says why.

    ``x``, ``y`` are pixel-centre coordinates in metres of ``epsg``, (x,) and (y,) float64, or None where the archive has none.
    ``cell_id`` groups tiles of one Major-TOM cell, ``location_id`` the dates of one SSL4EO-S12 location.
    ``cloud_cover`` is the metadata table's figure per date, where there is one.
    """

    ref: SampleRef
    sample_id: str
    epsg: int | None
    lon: float | None
    lat: float | None
    x: npt.NDArray[np.float64] | None
    y: npt.NDArray[np.float64] | None
    modalities: dict[str, RawModality]
    cell_id: str | None = None
    location_id: str | None = None
    cloud_cover: tuple[float, ...] | None = None
    findings: list[Finding] = field(default_factory=list)


class Source(Protocol):
    """One archive format at one root.

    It is pickled to worker processes, so it holds an address and options, never open files. ``archives`` and ``scan`` are called
    in the process of the ingest, ``scan`` by several threads at once; ``read`` is called by workers, one call at a time in each.
    A defect is a finding. An exception costs the sample or archive at which it is raised, but for a ``StorageError``, which ends
    the run: the source is out of reach.
    """

    format: str
    root: str
    placement: str
    """The placement: ``"anywhere"`` if single samples can be read cheaply in any order, ``"archive"`` if
    those of one archive must be read together."""

    attributes: Mapping[str, str]
    """The attributes that every copy of the dataset has: ``licence``, ``references``, ``attribution``."""

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        """Return the archives in a stable order, and findings about stray or unreadable files."""
        ...

    def scan(self, archive: Archive) -> Scan:
        """List the samples of one archive; reads headers and metadata only."""
        ...

    def read(self, refs: Sequence[SampleRef]) -> Iterator[RawSample]:
        """Read samples in the given order, one ``RawSample`` a reference, with bounded memory.

        A sample without any readable modality is still yielded, with ``modalities`` empty.
        """
        ...
