"""SSL4EO-S12 v1.1 as WebDataset: ``{split}/{modality}/ssl4eos12_shard_{N}.tar``, one member with four dates a
location.

Hosted at Hugging Face as ``embed2scale/SSL4EO-S12-v1.1`` since February 2026. Values have no offset of 1000.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from tensorbank_indexer.containers import ReadLimits, SourceFiles
from tensorbank_indexer.source import Archive, Finding, RawSample, SampleRef, Scan
from tensorbank_indexer.sources.member_tars import MemberTars

__all__ = ["Ssl4eoWdsSource"]

SSL4EO_S12: Mapping[str, str] = MappingProxyType(
    {
        "licence": "CC-BY-4.0",
        "references": "https://arxiv.org/abs/2503.00168",
        "attribution": "SSL4EO-S12 v1.1 (DLR, IBM and partners); contains modified Copernicus Sentinel data",
    }
)
"""The attributes that every copy of the dataset has; they are written into each part that is made of it."""


class Ssl4eoWdsSource:
    """A copy of the dataset, whole or in part. Implements ``Source``.

    ``location_id`` is the sample's id. DEM has one date, the other modalities have four. Duplicates of a stem
    in several archives are for the caller to find: ``scan`` knows one archive only.
    """

    format = "ssl4eo-s12-wds"
    placement = "anywhere"
    attributes = SSL4EO_S12

    def __init__(self, files: SourceFiles, limits: ReadLimits | None = None) -> None:
        self.root = files.root
        self._tars = MemberTars(files, limits or ReadLimits())

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        """See ``Source.archives``."""
        return self._tars.archives()

    def scan(self, archive: Archive) -> Scan:
        """See ``Source.scan``."""
        return self._tars.scan(archive)

    def read(self, refs: Sequence[SampleRef]) -> Iterator[RawSample]:
        """See ``Source.read``."""
        for assembly in self._tars.assemble(refs):
            yield assembly.finish(location_id=assembly.agreed_id())
