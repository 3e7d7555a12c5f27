"""Open a source: by the name of its format, or by the layout of what lies at its root."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from tensorbank.errors import ErrorKind, FormatError, InvalidInputError, nearest
from tensorbank_indexer.containers import Boundary, ReadLimits, SourceFiles, index_tar
from tensorbank_indexer.source import MemberAddress, Source
from tensorbank_indexer.sources.folders import Folders, sort_files
from tensorbank_indexer.sources.impactmesh import ImpactMeshSource, is_impactmesh
from tensorbank_indexer.sources.member_tars import TAR_NAME, MemberTars
from tensorbank_indexer.sources.ssl4eo_wds import Ssl4eoWdsSource
from tensorbank_indexer.sources.ssl4eo_zarr import FILE_NAME, Ssl4eoZarrSource
from tensorbank_indexer.sources.terramesh import TerraMeshSource

__all__ = ["FORMATS", "detect_format", "open_source"]

OpenFormat = Callable[[SourceFiles, ReadLimits | None], Source]
FORMATS: MappingProxyType[str, OpenFormat] = MappingProxyType(
    {found.format: found for found in (TerraMeshSource, Ssl4eoZarrSource, Ssl4eoWdsSource, ImpactMeshSource)}
)
"""The formats of this package, by name."""
SOURCE_GROUP = "tensorbank.sources"
"""The group of entry points by which other packages add formats: each is a name, and a class or function that takes
``SourceFiles`` and ``ReadLimits`` (or None) and returns a ``Source``."""
EXPECTED = (
    "Expected are {split}/{modality}/majortom_shard_*.tar or ssl4eos12_shard_*.tar "
    "(terramesh, ssl4eo-s12-wds) "
    "or {split}/{modality}/ssl4eos12_*_seasonal_data_*.zarr.zip (ssl4eo-s12-zarr) "
    "or {split}/S2L2A.tar, S1RTC.tar, DEM.tar, MASK.tar (impactmesh)."
)
TERRAMESH_MEMBER = re.compile(r"(majortom|ssl4eos12)_[a-z]+_\d+\.zarr\.zip")
WDS_MEMBER = re.compile(r"[a-z0-9]+_[a-z]+_seasonal_data_\d+\.zarr\.zip")
FIRST_HEADERS_BYTES = 64 << 10
"""The bytes of a tar in which its first member's header lies."""


def open_source(
    url: str,
    *,
    format: str | None = None,  # noqa: A002
    limits: ReadLimits | None = None,
    **storage_options: Any,
) -> Source:
    """Open the archives at a root.

    Parameters
    ----------
    url
        Root of a dataset, or the folder of one of its splits: local, or any URL that fsspec reads.
    format
        One of ``FORMATS``, or a format that an installed package adds in the group ``tensorbank.sources`` of entry points. If not
        given, it is detected from the layout, which lists the root; only ``FORMATS`` are.
    limits
        Memory and time that the reading of one sample may take; for archives that are larger than the published ones.
    storage_options
        Options of the fsspec file system, such as ``anon=True`` or ``endpoint_url``.

    Raises
    ------
    InvalidInputError
        There is no such format or protocol, or the package that adds the format cannot be imported.
    NotFoundError
        There is nothing at the root.
    FormatError
        What lies there is no known format; the message says what was seen.
    StorageError
        The store refused or cannot be reached.
    """
    opened = None if format is None else _format_named(format)
    files = SourceFiles(url, storage_options)
    return (opened or FORMATS[detect_format(files)])(files, limits)


def _format_named(name: str) -> OpenFormat:
    """Return a format of this package or of another one."""
    if name in FORMATS:
        return FORMATS[name]
    added = {entry.name: entry for entry in entry_points(group=SOURCE_GROUP)}
    if name not in added:
        raise InvalidInputError(
            f"There is no source format {name!r}.{nearest(name, [*FORMATS, *added])} A package adds one by an entry point "
            f"in the group {SOURCE_GROUP}."
        )
    try:
        found: OpenFormat = added[name].load()
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(
            f"The source format {name!r} is {added[name].value}, which cannot be imported: {error}. Install or "
            "repair the package that adds it."
        ) from error
    return found


def detect_format(files: SourceFiles) -> str:
    """Return the name of the format of the files under a root.

    Raises
    ------
    NotFoundError, FormatError, StorageError
        As for ``open_source``.
    """
    paths = files.walk()
    tars, zips = (_sorted(paths, files.name, pattern) for pattern in (TAR_NAME, FILE_NAME))
    if tars is not None and zips is not None:
        raise FormatError(
            f"{files.root} holds both tars ({_first(tars)}) and zarr files ({_first(zips)}); name the format."
        )
    if zips is not None:
        return Ssl4eoZarrSource.format
    if tars is None and is_impactmesh(paths):
        return ImpactMeshSource.format
    if tars is None:
        seen = f"{len(paths)} files such as {', '.join(paths[:3])}" if paths else "no files"
        raise FormatError(f"{files.root} is not a dataset that is known: it holds {seen}. {EXPECTED}")
    if any(name.startswith("majortom_") for _, name in tars.files):
        return TerraMeshSource.format
    return _of_first_member(files, _tars_by_chance_of_dates(tars))


def _sorted(paths: Iterable[str], root_name: str, pattern: re.Pattern[str]) -> Folders | None:
    try:
        return sort_files(paths, root_name, pattern)
    except FormatError as error:
        if error.kind == ErrorKind.COMPRESSED_ARCHIVE:
            raise
        return None


def _first(folders: Folders) -> str:
    return next(iter(next(iter(folders.files.values())).values()))


def _tars_by_chance_of_dates(tars: Folders) -> list[str]:
    """Return the tars, those of DEM last: it has one date in either format."""
    paths = [
        (modality == "DEM", path)
        for modalities in tars.files.values()
        for modality, path in modalities.items()
    ]
    return [path for _, path in sorted(paths)]


def _of_first_member(files: SourceFiles, paths: Iterable[str]) -> str:
    """Tell TerraMesh from SSL4EO-S12, which name their tars alike: by the name or else the number of dates of a member."""
    looked: list[str] = []
    for path in paths:
        size_bytes = files.stat([path])[0].size_bytes
        # The index ends behind the first headers, since the rest looks cut off.
        head_bytes = min(size_bytes, FIRST_HEADERS_BYTES)
        found = _first_member(files, path, head_bytes, size_bytes)
        if found is None:
            continue
        name, address = found
        if TERRAMESH_MEMBER.fullmatch(name):
            return TerraMeshSource.format
        if WDS_MEMBER.fullmatch(name):
            return Ssl4eoWdsSource.format
        looked.append(f"{path} with {name}")
        shape: tuple[int, ...] = ()
        # What is wrong with it becomes a finding when it is read.
        with Boundary(lambda _kind, _reason: None):
            shape = MemberTars(files).group(address).spec("bands").shape
        if len(shape) == 4:
            return TerraMeshSource.format if shape[0] == 1 else Ssl4eoWdsSource.format
    seen = f"it holds {', '.join(looked[:3])}" if looked else "its tars have no members"
    raise FormatError(f"{files.root} has tars, but {seen}. {EXPECTED}")


def _first_member(
    files: SourceFiles, path: str, head_bytes: int, size_bytes: int
) -> tuple[str, MemberAddress] | None:
    """Return the first member of a tar: its name and address."""
    head = files.read(path, 0, head_bytes)
    zeros = b"\0" * 1024

    def read(start: int, end: int) -> bytes:
        return (head[start:end] + zeros)[: end - start] if start < len(head) else zeros[: end - start]

    members = index_tar(read, size_bytes).members
    if not members:
        return None
    name, offset, length = members[0]
    return PurePosixPath(name).name, MemberAddress(path, offset, length, "")
