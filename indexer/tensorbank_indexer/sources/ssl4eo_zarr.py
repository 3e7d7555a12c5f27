"""SSL4EO-S12 v1.1 as zarr files: ``{split}/{modality}/ssl4eos12_{split}_seasonal_data_{N}.zarr.zip``, many
locations a file.

Hosted at Hugging Face as ``embed2scale/SSL4EO-S12-v1.1-Zarr``. S2L1C and S2L2A carry an offset of 1000, which
is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from tensorbank.errors import FormatError
from tensorbank_indexer.cf import Position
from tensorbank_indexer.containers import (
    Allowance,
    Boundary,
    ReadLimits,
    SourceFiles,
    is_identifier,
    readable,
)
from tensorbank_indexer.members import CLOUD_MASK_ORDER, Assembly
from tensorbank_indexer.source import Archive, Finding, MemberAddress, RawSample, SampleRef, Scan, SourceFile
from tensorbank_indexer.sources.folders import sort_files
from tensorbank_indexer.sources.location_file import LocationFile
from tensorbank_indexer.sources.member_tars import CATEGORICAL
from tensorbank_indexer.sources.ssl4eo_wds import SSL4EO_S12

__all__ = ["FILE_NAME", "Ssl4eoZarrSource"]

FILE_NAME = re.compile(r"[a-z0-9]+_[a-z]+_seasonal_data_\d+\.zarr\.zip")
SUBSET = "ssl4eos12"
TIMED = ("S2L2A", "S2L1C", "S2RGB", "S1GRD")
"""The modalities by how well they tell the first date of a location."""


class Ssl4eoZarrSource:
    """A copy of the dataset, whole or in part. Implements ``Source``.

    A sample is a location with its four dates; ``stem``, ``sample_id`` and ``location_id`` are its seven
    digits. Modalities are joined by id, not by position. The address of a modality is its whole file.
    Locations that lie in several files are for the caller to find, as equal stems: ``scan`` knows one archive
    only.

    While an archive is read, the stored chunks that hold one group of locations stay in memory: some 600 MB
    for published files with all modalities.
    """

    format = "ssl4eo-s12-zarr"
    placement = "archive"
    attributes = SSL4EO_S12

    def __init__(self, files: SourceFiles, limits: ReadLimits | None = None) -> None:
        self.root = files.root
        self._files = files
        self._limits = limits or ReadLimits()

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        """See ``Source.archives``."""
        folders = sort_files(self._files.walk(), self._files.name, FILE_NAME)
        return folders.archives(self._files, {name: SUBSET for _, name in folders.files})

    def scan(self, archive: Archive) -> Scan:
        """See ``Source.scan``."""
        findings: list[Finding] = []
        opened: dict[str, LocationFile] = {}
        rows: dict[str, dict[str, int]] = {}
        for file in archive.files:

            def report(kind: str, reason: str, file: SourceFile = file) -> None:
                opened.pop(file.modality, None)
                reason = readable(f"{file.path}: {reason}")
                findings.append(
                    Finding(kind, archive.name, reason, "modality left out", modality=file.modality)
                )

            with Boundary(report):
                opened[file.modality] = LocationFile(self._files, file.path, file.size_bytes, self._limits)
                rows[file.modality] = _rows(archive, file, opened[file.modality], findings)
        ids = list(dict.fromkeys(i for found in sorted(rows.values(), key=len, reverse=True) for i in found))
        addresses = {f.modality: MemberAddress(f.path, 0, f.size_bytes, f.etag) for f in archive.files}
        refs: list[SampleRef] = []
        for position, sample_id in enumerate(ids):
            for modality in sorted(m for m in rows if sample_id not in rows[m]):
                reason = f"{modality} has no location {sample_id}."
                findings.append(
                    Finding(
                        "missing-member",
                        archive.name,
                        reason,
                        "read without it",
                        member=sample_id,
                        modality=modality,
                    )
                )
            members = {m: addresses[m] for m in sorted(rows) if sample_id in rows[m]}
            lon, lat, time_ns = _place(opened, {m: rows[m][sample_id] for m in members})
            refs.append(
                SampleRef(
                    archive.name,
                    archive.split,
                    archive.subset,
                    sample_id,
                    sample_id,
                    lon,
                    lat,
                    time_ns,
                    members,
                    position,
                )
            )
        return Scan(archive, tuple(refs), tuple(findings))

    def read(self, refs: Sequence[SampleRef]) -> Iterator[RawSample]:
        """See ``Source.read``. Files of one archive stay open until a reference to another one comes."""
        archive = ""
        opened: dict[str, LocationFile | tuple[str, str]] = {}
        for ref in refs:
            if ref.archive != archive:
                archive, opened = ref.archive, {}
            assembly = Assembly(ref)
            allowance = Allowance(self._limits)
            ranks = {modality: rank for rank, modality in enumerate(CLOUD_MASK_ORDER)}
            for modality in sorted(ref.members, key=lambda m: (ranks.get(m, len(ranks)), m)):
                if modality not in opened:
                    opened[modality] = self._open(ref.members[modality])
                self._add(assembly, modality, opened[modality], allowance)
            yield assembly.finish(location_id=ref.sample_id, sample_id=ref.sample_id)

    def _open(self, address: MemberAddress) -> LocationFile | tuple[str, str]:
        """Return the file of an address, or kind and reason of a finding about it."""
        problems: list[tuple[str, str]] = []
        with Boundary(lambda kind, reason: problems.append((kind, reason))):
            return LocationFile(self._files, address.path, address.length_bytes, self._limits)
        return problems[0]

    def _add(
        self, assembly: Assembly, modality: str, file: LocationFile | tuple[str, str], allowance: Allowance
    ) -> None:
        if isinstance(file, tuple):
            assembly.find(file[0], modality, file[1], "modality left out")
            return
        with assembly.boundary(modality):
            row = file.sample_ids.index(assembly.ref.sample_id)
            member = file.member(
                row,
                modality=modality,
                want_cloud_mask=modality in CLOUD_MASK_ORDER and assembly.needs_cloud_mask,
                codes=modality in CATEGORICAL,
                allowance=allowance,
            )
            assembly.add(modality, member)


def _rows(
    archive: Archive, file: SourceFile, opened: LocationFile, findings: list[Finding]
) -> dict[str, int]:
    """Return the row of each location; what is wrong with the file goes to ``findings``."""

    def find(kind: str, reason: str, action: str, member: str = "") -> None:
        findings.append(
            Finding(
                kind,
                archive.name,
                readable(f"{file.path}: {reason}"),
                action,
                member=readable(member, 200),
                modality=file.modality,
            )
        )

    for name in ("sample", "bands"):
        if name not in opened.group:
            raise FormatError(f"There is no array {name!r}.")
    if opened.archive.has_deflated:
        find(
            "deflated-entries",
            "Entries of the zip archive are deflated, so their bytes cannot be addressed in place.",
            "read all the same",
        )
    if opened.group.version == 3:
        find("zarr-v3", "The group is zarr version 3, the published ones are version 2.", "read all the same")
    rows: dict[str, int] = {}
    for row, sample_id in enumerate(opened.sample_ids):
        if not is_identifier(sample_id):
            find(
                "damaged-id",
                f"The id of number {row} is empty, too long or not printable.",
                "left out",
                sample_id,
            )
        elif sample_id in rows:
            find(
                "duplicate-member",
                f"Location {sample_id} occurs again as number {row}.",
                "the first is taken",
                sample_id,
            )
        else:
            rows[sample_id] = row
    return rows


def _place(opened: Mapping[str, LocationFile], rows: Mapping[str, int]) -> tuple[float, float, int]:
    """Return the longitude, latitude and first date of a location, from the first modality that tells them."""
    ranks = {modality: rank for rank, modality in enumerate(TIMED)}
    for modality in sorted(rows, key=lambda m: (ranks.get(m, len(ranks)), m)):
        # What is wrong becomes a finding when the location is read.
        position = Position()
        with Boundary(lambda _kind, _reason: None):
            position = opened[modality].position(rows[modality], [])
        times = [] if position.times_ns is None else [int(t) for t in position.times_ns if t > 0]
        if position.lon is not None and position.lat is not None and times:
            return position.lon, position.lat, min(times)
    return math.nan, math.nan, 0
