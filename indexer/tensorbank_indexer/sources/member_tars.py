"""Sources whose archives are same-named tars, one a modality, of zarr groups in zips: TerraMesh, SSL4EO-S12
as WebDataset.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from tensorbank.errors import ErrorKind, FormatError
from tensorbank_indexer.cf import Position, read_position
from tensorbank_indexer.containers import (
    Allowance,
    Boundary,
    ReadLimits,
    SourceFiles,
    TarIndex,
    ZipArchive,
    index_tar,
    is_identifier,
    readable,
)
from tensorbank_indexer.members import CLOUD_MASK_ORDER, Assembly, Member, read_member
from tensorbank_indexer.modalities import KNOWN
from tensorbank_indexer.source import Archive, Finding, MemberAddress, SampleRef, Scan, SourceFile
from tensorbank_indexer.sources.folders import sort_files
from tensorbank_indexer.sources.member_rows import MEMBER_SUFFIX, MemberRow
from tensorbank_indexer.sources.metadata_table import MetadataTable
from tensorbank_indexer.zarr_groups import ZarrGroup

__all__ = ["MemberTars", "TAR_NAME"]

TAR_NAME = re.compile(r"(?P<subset>[a-z0-9]+)_shard_\d+\.tar")
REMOTE_READAHEAD_BYTES = 4096
APPLE_DOUBLE = "._"
"""The start of the names of files that tar on a Mac adds beside those with extended attributes."""
CATEGORICAL = frozenset(name for name, known in KNOWN.items() if known.classes)
N_THREADS = 16
"""The number of requests at a time to a remote store."""
N_SAMPLES_AHEAD = 4
"""The number of samples of a remote store whose bytes are fetched while one is decoded:
4 x 2 MB for TerraMesh, 4 x 20 MB for SSL4EO-S12."""
TIMED = ("S2L2A", "S2L1C", "S2RGB", "NDVI", "S1RTC", "S1GRD", "LULC", "DEM")
"""The modalities by how well they tell date and place of a sample."""
StemOf = Callable[[str, str], str | None]
"""A function from a modality and the name of a member to the name of its sample in the archive; None if it is no such member."""
ReadMember = Callable[..., Member]
"""A function that decodes a member, as :func:`read_member` does."""


@dataclass
class MemberTars:
    """A reader that lists, scans and reads tars of one root. The adapters say what an id means.

    A stem that occurs twice in an archive is reported and its first member taken. Archives are scanned
    independently of each other: the same stem in two archives of a split is for the caller to find, as
    ``SampleRef.stem``.
    """

    files: SourceFiles
    limits: ReadLimits = field(default_factory=ReadLimits)
    _tables: dict[str, MetadataTable] = field(default_factory=dict, repr=False)

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        """Return the archives by split, subset and name; and stray or missing files."""
        folders = sort_files(self.files.walk(), self.files.name, TAR_NAME)
        subsets = {name: name.partition("_shard_")[0] for _, name in folders.files}
        return folders.archives(self.files, subsets)

    def joined(
        self, archive: Archive, stem_of: StemOf
    ) -> tuple[dict[str, dict[str, MemberAddress]], list[Finding]]:
        """Read the tars' headers, and return the members by stem and modality; and what is missing, odd or damaged."""
        findings: list[Finding] = []
        indexes = self.mapped(self._index, archive.files)
        members: dict[str, dict[str, MemberAddress]] = {}
        for file, index in zip(archive.files, indexes, strict=True):
            members[file.modality] = _members(archive, file, index, findings, stem_of)
        stems = _union(members.values())
        for modality, addresses in sorted(members.items()):
            for stem in stems:
                if stem not in addresses:
                    reason = f"{modality} has no member {stem}."
                    findings.append(
                        Finding(
                            "missing-member",
                            archive.name,
                            reason,
                            "read without it",
                            member=stem,
                            modality=modality,
                        )
                    )
        joined = {
            stem: {m: addresses[stem] for m, addresses in members.items() if stem in addresses}
            for stem in stems
        }
        return joined, findings

    def scan(self, archive: Archive) -> Scan:
        """Read the tars' headers, join members by stem, and find id, place and time in a table or in the members."""
        joined, findings = self.joined(archive, _zarr_stem)
        rows = self._rows(archive, joined, findings)
        refs = tuple(
            SampleRef(
                archive.name,
                archive.split,
                archive.subset,
                stem,
                row.sample_id,
                row.lon,
                row.lat,
                row.time_ns,
                joined[stem],
                i,
                row.metadata,
            )
            for i, (stem, row) in enumerate((stem, rows[stem]) for stem in joined)
        )
        return Scan(archive, refs, tuple(findings))

    def assemble(self, refs: Sequence[SampleRef], read: ReadMember = read_member) -> Iterator[Assembly]:
        """Read and decode members, one ``Assembly`` a reference, in order. ``read`` decodes one."""
        if self.files.is_local:
            for ref in refs:
                fetch = {m: partial(self._fetch, address) for m, address in ref.members.items()}
                yield self._assembly(ref, fetch, read)
            return
        with ThreadPoolExecutor(N_THREADS) as pool:
            waiting: deque[tuple[SampleRef, dict[str, Future[bytes]]]] = deque()
            for ref in refs:
                waiting.append(
                    (ref, {m: pool.submit(self._fetch, address) for m, address in ref.members.items()})
                )
                if len(waiting) > N_SAMPLES_AHEAD:
                    yield self._assembled(*waiting.popleft(), read)
            while waiting:
                yield self._assembled(*waiting.popleft(), read)

    def _assembled(self, ref: SampleRef, fetched: Mapping[str, Future[bytes]], read: ReadMember) -> Assembly:
        return self._assembly(ref, {modality: future.result for modality, future in fetched.items()}, read)

    def _assembly(self, ref: SampleRef, fetch: Mapping[str, Any], read: ReadMember) -> Assembly:
        assembly = Assembly(ref)
        allowance = Allowance(self.limits)
        ranks = {modality: rank for rank, modality in enumerate(CLOUD_MASK_ORDER)}
        for modality in sorted(ref.members, key=lambda m: (ranks.get(m, len(ranks)), m)):
            wanted = modality in ranks and assembly.needs_cloud_mask
            with assembly.boundary(modality):
                member = read(
                    fetch[modality](),
                    modality=modality,
                    want_cloud_mask=wanted,
                    codes=modality in CATEGORICAL,
                    allowance=allowance,
                )
                assembly.add(modality, member)
        return assembly

    def _fetch(self, address: MemberAddress) -> bytes:
        if address.length_bytes > self.limits.max_sample_bytes:
            raise FormatError(
                f"It has {address.length_bytes} bytes, more than the {self.limits.max_sample_bytes} of a sample.",
                kind=ErrorKind.OVER_LIMIT,
            )
        return self.files.read(address.path, address.offset, address.offset + address.length_bytes)

    def _index(self, file: SourceFile) -> TarIndex:
        readahead = {} if self.files.is_local else {"readahead_bytes": REMOTE_READAHEAD_BYTES}
        reasons: list[str] = []
        with Boundary(lambda _kind, reason: reasons.append(reason)):
            return index_tar(partial(self.files.read, file.path), file.size_bytes, **readahead)
        return TarIndex((), damaged=tuple(reasons))

    def _rows(
        self, archive: Archive, joined: Mapping[str, Mapping[str, MemberAddress]], findings: list[Finding]
    ) -> dict[str, MemberRow]:
        path = PurePosixPath(archive.files[0].path)
        # {modality}/{tar}, without a split: the root is the folder of one, the table lies beside it.
        is_split = len(path.parts) == 2
        table = self._tables.setdefault(archive.split, MetadataTable(self.files, archive.split, is_split))
        rows: dict[str, MemberRow] = {}

        def find(kind: str, reason: str, member: str = "") -> None:
            action = "id, place and time are taken from the members"
            findings.append(Finding(kind, archive.name, reason, action, member=member))

        with Boundary(find, "corrupt-metadata"):
            rows, problems = table.rows(path.name, joined)
            for member, reason in problems:
                find("corrupt-metadata", reason, member)
        unknown = [stem for stem in joined if stem not in rows]
        found = self.mapped(lambda stem: self.look(stem, joined[stem]), unknown)
        return rows | dict(zip(unknown, found, strict=True))

    def mapped(self, function: Any, items: Sequence[Any]) -> list[Any]:
        """Return what a function returns of each item; of a remote store, many at a time."""
        if self.files.is_local or len(items) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(N_THREADS) as pool:
            return list(pool.map(function, items))

    def look(self, stem: str, members: Mapping[str, MemberAddress]) -> MemberRow:
        """Return the id, place and first date of a sample, from the small arrays of its first readable member."""
        ranks = {modality: rank for rank, modality in enumerate(TIMED)}
        best = MemberRow(stem, math.nan, math.nan, 0, {})
        for modality in sorted(members, key=lambda m: (ranks.get(m, len(ranks)), m)):
            address = members[modality]
            position = Position()
            # What is wrong becomes a finding when the member is read.
            with Boundary(lambda _kind, _reason: None):
                position = read_position(self.group(address), [])
            row = _row(stem, position)
            if row.time_ns and not math.isnan(row.lon):
                return row
            if best.sample_id == stem:
                best = row
        return best

    def group(self, address: MemberAddress) -> ZarrGroup:
        """Return the zarr group of a member behind range reads."""

        def read(start: int, end: int) -> bytes:
            return self.files.read(address.path, address.offset + start, address.offset + end)

        if self.files.is_local:
            return ZarrGroup(ZipArchive(read, address.length_bytes), Allowance(self.limits))
        # Some ten requests for small arrays take longer than one for all of a member.
        return ZarrGroup(ZipArchive.of(self._fetch(address)), Allowance(self.limits))


def _zarr_stem(_modality: str, name: str) -> str | None:
    """Return the name of a zarr group in a zip without its suffix; None of anything else."""
    return PurePosixPath(name).name.removesuffix(MEMBER_SUFFIX) if name.endswith(MEMBER_SUFFIX) else None


def _row(stem: str, position: Position) -> MemberRow:
    times = [] if position.times_ns is None else [int(t) for t in position.times_ns if t > 0]
    lon, lat = (math.nan if value is None else value for value in (position.lon, position.lat))
    return MemberRow(position.sample_id or stem, lon, lat, min(times) if times else 0, {})


def _members(
    archive: Archive, file: SourceFile, index: TarIndex, findings: list[Finding], stem_of: StemOf
) -> dict[str, MemberAddress]:
    """Return the addresses by stem; what is wrong with the tar goes to ``findings``."""

    def find(kind: str, reason: str, action: str, member: str = "") -> None:
        reason = readable(f"{file.path}: {reason}")
        findings.append(
            Finding(kind, archive.name, reason, action, member=readable(member, 200), modality=file.modality)
        )

    if index.truncated:
        find("truncated-archive", index.truncated, f"the {len(index.members)} complete members are read")
    for reason in index.damaged:
        find("corrupt-archive", reason, "reading goes on at the next sound header")
    for reason in index.refused:
        find("unsupported-member", reason, "left out")
    addresses: dict[str, MemberAddress] = {}
    for name, offset, size_bytes in index.members:
        stem = stem_of(file.modality, name)
        if PurePosixPath(name).name.startswith(APPLE_DOUBLE):
            find("stray-file", f"{name} holds what a Mac notes of a file, not a member.", "ignored", name)
        elif stem is None:
            find("stray-file", f"{name} is not a member of {file.modality}.", "ignored", name)
        elif not is_identifier(stem):
            find("unsupported-member", "Its name is empty, too long or not printable.", "left out", name)
        elif stem in addresses:
            find("duplicate-member", f"{stem} occurs again at byte {offset}.", "the first is taken", stem)
        else:
            addresses[stem] = MemberAddress(file.path, offset, size_bytes, file.etag)
    return addresses


def _union(members: Any) -> list[str]:
    """Return all stems, in the order of the modality that has most of them."""
    return list(
        dict.fromkeys(stem for addresses in sorted(members, key=len, reverse=True) for stem in addresses)
    )
