"""The schema of a table, from a look at the first samples of each kind of archive.

The majority of the looked-at samples decides, so that one damaged member cannot. Of dates it is the largest number that two of
them have, since a sample may have fewer than its table, but not more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

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
    seen: dict[str, list[Modality]] = defaultdict(list)
    for kind in chosen.values():
        for raw in source.read(kind):
            for name, given in raw.modalities.items():
                seen[name].append(describe(name, given.pixels.dtype.name, given.bands, given.pixels.shape))
    if not seen:
        raise FormatError(f"none of the first samples of {source.root} has a readable modality")
    return TableSchema(tuple(_elected(seen[name]) for name in _ordered(seen)))


def _elected(seen: Sequence[Modality]) -> Modality:
    """What most of them are, of whatever number of dates; of those the largest number of dates that two have."""
    alike: dict[str, list[Modality]] = defaultdict(list)
    for modality in seen:
        alike[replace(modality, n_times=1).to_json()].append(modality)
    majority = max(alike.values(), key=len)
    n_with = Counter(m.n_times for m in majority)
    agreed = [n for n, count in n_with.items() if count > 1]
    return replace(majority[0], n_times=max(agreed or n_with))


def extend(table: TableSchema, found: TableSchema) -> TableSchema:
    """The table's schema with modalities that it does not have yet; what it has stays as it is."""
    return TableSchema((*table.modalities, *(m for m in found if m.name not in table)))


def _ordered(names: Iterable[str]) -> Sequence[str]:
    return sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))
