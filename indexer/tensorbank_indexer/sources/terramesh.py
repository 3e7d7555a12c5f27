"""TerraMesh: ``{train|val}/{modality}/{majortom|ssl4eos12}_shard_{N}.tar``, one date a sample.

Hosted at Hugging Face as ``ibm-esa-geospatial/TerraMesh``; tables ``{split}_metadata.parquet`` since 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from tensorbank_indexer.containers import ReadLimits, SourceFiles
from tensorbank_indexer.source import Archive, Finding, RawSample, SampleRef, Scan
from tensorbank_indexer.sources.member_tars import MemberTars

__all__ = ["TerraMeshSource"]

TERRAMESH: Mapping[str, str] = MappingProxyType(
    {
        "licence": "CC-BY-SA-4.0; subset ssl4eos12: CC-BY-4.0",
        "references": "https://arxiv.org/abs/2504.11172",
        "attribution": "TerraMesh (IBM, ESA); contains modified Copernicus Sentinel data, Copernicus DEM, ESRI land cover",
    }
)
"""The attributes that every copy of the dataset has; they are written into each part that is made of it."""


class TerraMeshSource:
    """A copy of TerraMesh, whole or in part: any splits, subsets, modalities and tars. Implements ``Source``.

    A tile of subset majortom has a ``cell_id``, a season of subset ssl4eos12 a ``location_id``. Duplicates of
    a stem in several archives are for the caller to find: ``scan`` knows one archive only.
    """

    format = "terramesh"
    placement = "anywhere"
    attributes = TERRAMESH

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
            sample_id = assembly.agreed_id()
            cell_id, location_id = group_ids(assembly.ref.subset, sample_id)
            yield assembly.finish(cell_id=cell_id, location_id=location_id)


def group_ids(subset: str, sample_id: str) -> tuple[str | None, str | None]:
    """Return the cell and location of a sample: ``282D_485L_3_3`` is a tile of cell 282D_485L, ``0194630_1`` a season of
    0194630.
    """
    if subset == "majortom":
        return sample_id.rsplit("_", 2)[0], None
    return None, sample_id.rsplit("_", 1)[0]
