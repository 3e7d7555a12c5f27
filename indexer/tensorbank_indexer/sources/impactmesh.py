"""ImpactMesh, floods and fires: ``{split}/{S2L2A,S1RTC,DEM,MASK}.tar``, four dates of a patch, one tar a modality and split.

Hosted at Hugging Face as ``ibm-esa-geospatial/ImpactMesh-Flood`` and ``ImpactMesh-Fire``. Members are
``{modality}/{patch}_S2L2A.zarr.zip``, ``_S1RTC.zarr.zip``, ``_DEM.tif``, and ``_annotation_flood.tif`` or
``_annotation_wildfire.tif``; what stands before the first underscore of a patch is its event.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np

from tensorbank_indexer.cf import NO_TIME, Position, is_plausible, problem_of, read_position
from tensorbank_indexer.containers import (
    Allowance,
    Boundary,
    Problem,
    ReadLimits,
    SourceFiles,
    ZipArchive,
    readable,
)
from tensorbank_indexer.members import Member, read_geotiff, read_member, require_rasterio
from tensorbank_indexer.source import Archive, Finding, MemberAddress, RawSample, SampleRef, Scan, SourceFile
from tensorbank_indexer.sources.folders import (
    COMPRESSED,
    COMPRESSED_AS_A_WHOLE,
    is_document,
    stray_findings,
)
from tensorbank_indexer.sources.member_tars import MemberTars
from tensorbank_indexer.zarr_groups import ZarrGroup

__all__ = ["ImpactMeshSource", "is_impactmesh"]

IMPACTMESH: Mapping[str, str] = MappingProxyType(
    {
        "licence": "CC-BY-4.0",
        "references": "https://huggingface.co/ibm-esa-geospatial",
        "attribution": "ImpactMesh (IBM, DLR, ESA); contains modified Copernicus Sentinel data, Copernicus DEM and "
        "annotations of the Copernicus Emergency Management Service",
    }
)
"""The attributes that every copy of the dataset has; they are written into each part that is made of it."""
TAR = re.compile(r"(?:(?P<split>[A-Za-z0-9][\w\-]*)/)?(?P<modality>S2L2A|S1RTC|DEM|MASK)\.tar")
QUICKLOOKS = re.compile(r"(?:[^/]+/)?S2RGB\.tar")
"""Pictures of the S2L2A that are there, which are not read."""
ENDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "S2L2A": ("_S2L2A.zarr.zip",),
        "S1RTC": ("_S1RTC.zarr.zip",),
        "DEM": ("_DEM.tif",),
        "annotation": ("_annotation_flood.tif", "_annotation_wildfire.tif"),
    }
)
"""The ends of members' names behind the patch, by modality."""
CLASSES = "annotation"
"""The modality of ``MASK.tar``, after its members' names: a table has a column ``mask`` of its own meaning."""
IMAGES = frozenset({"DEM", CLASSES})
DATED = ("S2L2A", "S1RTC")


def is_impactmesh(paths: Iterable[str]) -> bool:
    """Tell whether there are tars as ImpactMesh calls them."""
    return any(TAR.fullmatch(path) for path in paths)


class ImpactMeshSource:
    """A copy of ImpactMesh, whole or in part: any splits and modalities. Implements ``Source``.

    The ``subset`` of a sample is its event. DEM and ``annotation``, which is what ``MASK.tar`` holds, have one date, the others
    four. The annotation holds classes, and -1 where nobody knows: of floods 0 no water, 1 permanent water, 2 flood; of fires
    0 unburnt, 1 burnt. Pixels of S2L2A that were not recorded are -9999.

    Raises
    ------
    InvalidInputError
        rasterio is not installed (kind ``missing-extra``).
    """

    format = "impactmesh"
    placement = "anywhere"
    attributes = IMPACTMESH

    def __init__(self, files: SourceFiles, limits: ReadLimits | None = None) -> None:
        require_rasterio()
        self.root = files.root
        self._tars = MemberTars(files, limits or ReadLimits())

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        """See ``Source.archives``."""
        files = self._tars.files
        paths = files.walk()
        by_split: dict[str, dict[str, str]] = defaultdict(dict)
        findings, strays = [], []
        for path in paths:
            found = TAR.fullmatch(path)
            if found:
                modality = CLASSES if found["modality"] == "MASK" else found["modality"]
                by_split[found["split"] or files.name][modality] = path
            elif COMPRESSED.search(path) and TAR.fullmatch(COMPRESSED.sub("", path)):
                reason = f"{path} {COMPRESSED_AS_A_WHOLE}"
                findings.append(Finding("compressed-archive", "", reason, "left out", member=path))
            elif not is_document(path) and not QUICKLOOKS.fullmatch(path):
                strays.append(path)
        wanted = {modality for modalities in by_split.values() for modality in modalities}
        stats = files.stat([path for modalities in by_split.values() for path in modalities.values()])
        tags = dict(zip((p for m in by_split.values() for p in m.values()), stats, strict=True))
        archives = []
        for split, modalities in sorted(by_split.items()):
            members = tuple(
                SourceFile(m, path, tags[path].size_bytes, tags[path].etag)
                for m, path in sorted(modalities.items())
            )
            archives.append(Archive(split, split, "", members))
            for modality in sorted(wanted - modalities.keys()):
                reason = f"There is no tar of {modality} in {split}, although other splits have one."
                action = "samples are read without it"
                findings.append(Finding("missing-member", split, reason, action, modality=modality))
        return archives, [*stray_findings(strays), *findings]

    def scan(self, archive: Archive) -> Scan:
        """See ``Source.scan``."""
        joined, findings = self._tars.joined(archive, patch_of)
        stems = list(joined)
        places = self._tars.mapped(lambda stem: self._place(joined[stem]), stems)
        refs = []
        for number, (stem, place) in enumerate(zip(stems, places, strict=True)):
            lon, lat = (math.nan if degrees is None else degrees for degrees in (place.lon, place.lat))
            times = [] if place.times_ns is None else [int(t) for t in place.times_ns if t != NO_TIME]
            event = stem.partition("_")[0]
            refs.append(
                SampleRef(
                    archive.name,
                    archive.split,
                    event,
                    stem,
                    stem,
                    lon,
                    lat,
                    min(times, default=0),
                    joined[stem],
                    number,
                )
            )
        return Scan(archive, tuple(refs), tuple(findings))

    def read(self, refs: Sequence[SampleRef]) -> Iterator[RawSample]:
        """See ``Source.read``."""
        for assembly in self._tars.assemble(refs, _read):
            yield assembly.finish(sample_id=assembly.ref.sample_id)

    def _place(self, members: Mapping[str, MemberAddress]) -> Position:
        """Return the place and times of the first member that tells both."""
        found = Position()
        for modality in DATED:
            if modality in members:
                # What is wrong becomes a finding when the member is read.
                with Boundary(lambda _kind, _reason: None):
                    group = self._tars.group(members[modality])
                    position = read_position(group, [])
                    found = _completed(position, group, [])
                    if found.lon is not None and found.times_ns is not None:
                        return found
        return found


def patch_of(modality: str, name: str) -> str | None:
    """Return the patch that a member is of, by its name; None if its tar should not hold it."""
    file = PurePosixPath(name).name
    return next((file.removesuffix(end) for end in ENDS.get(modality, ()) if file.endswith(end)), None)


def _read(
    data: bytes | memoryview, *, modality: str, want_cloud_mask: bool, codes: bool, allowance: Allowance
) -> Member:
    if modality in IMAGES:
        return read_geotiff(data, modality=modality, codes=modality == CLASSES, allowance=allowance)
    member = read_member(
        data, modality=modality, want_cloud_mask=want_cloud_mask, codes=codes, allowance=allowance
    )
    with problem_of(member.problems, "read without its attributes"):
        _completed(member.position, ZarrGroup(ZipArchive.of(data), allowance), member.problems)
    return member


def _completed(position: Position, group: ZarrGroup, problems: list[Problem]) -> Position:
    """Add the centre and the times that the attributes of a group tell; ``datetime`` has texts that are joined by semicolons."""
    attributes = group.attributes()
    joined = attributes.get("datetime")
    if isinstance(joined, str):
        try:
            times = np.array([_time_ns(text) for text in joined.split(";")], np.int64)
        except (ValueError, OverflowError) as error:
            reason = f"datetime is {readable(joined, 80)}: {error}."
            problems.append(Problem("damaged-time", reason, "times are those of the array, if it has any"))
        else:
            if is_plausible(times).all() or position.times_ns is None:
                position.times_ns = times
    if position.lon is None or position.lat is None:
        centre = [
            _degrees(attributes.get(f"center_{name}"), most) for name, most in (("lon", 360.0), ("lat", 90.0))
        ]
        position.lon, position.lat = (None, None) if None in centre else (centre[0], centre[1])
    return position


def _time_ns(text: str) -> int:
    """Return a time of ISO 8601 in ns since 1970, UTC where it has no zone."""
    found = datetime.fromisoformat(text.strip())
    moment = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return int(np.datetime64(moment.replace(tzinfo=None), "ns").astype(np.int64))


def _degrees(value: Any, most: float) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) <= most else None
