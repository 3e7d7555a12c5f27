"""The schema of a table, from a look at the first samples of each kind of archive.

The majority of the looked-at samples decides, so that one damaged member cannot.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tensorbank.errors import FormatError
from tensorbank.schema import Modality, TableSchema
from tensorbank_indexer.modalities import describe
from tensorbank_indexer.source import SampleRef, Source

__all__ = ["ORDER", "extend", "survey"]

ORDER: tuple[str, ...] = ("S2L2A", "S2L1C", "S2RGB", "S1RTC", "S1GRD", "DEM", "NDVI", "LULC", "cloud_mask")
"""Order of the known modalities in a schema; others follow by name."""

SAMPLES_PER_KIND = 5


def survey(source: Source, refs: Iterable[SampleRef]) -> TableSchema:
    """Modalities of the first samples of every (split, subset).

    Raises
    ------
    FormatError
        None of them could be read.
    """
    chosen: dict[tuple[str, str], list[SampleRef]] = defaultdict(list)
    for ref in refs:
        kind = chosen[ref.split, ref.subset]
        if len(kind) < SAMPLES_PER_KIND:
            kind.append(ref)
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    described: dict[str, Modality] = {}
    for kind in chosen.values():
        for raw in source.read(kind):
            for name, given in raw.modalities.items():
                modality = describe(name, given.pixels.dtype.name, given.bands, given.pixels.shape)
                key = modality.to_json()
                described[key] = modality
                votes[name][key] += 1
    if not votes:
        raise FormatError(f"none of the first samples of {source.root} has a readable modality")
    winners = {name: described[counter.most_common(1)[0][0]] for name, counter in votes.items()}
    return TableSchema(tuple(winners[name] for name in _ordered(winners)))


def extend(table: TableSchema, found: TableSchema) -> TableSchema:
    """The table's schema with modalities that it does not have yet; what it has stays as it is."""
    return TableSchema((*table.modalities, *(m for m in found if m.name not in table)))


def _ordered(names: Iterable[str]) -> Sequence[str]:
    return sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))
