"""The repair of rows of samples: from tiles and archives, or from what is right in the row itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arrow_numpy import as_numpy
from tensorbank.catalog import with_keys
from tensorbank.layout import place_of_key
from tensorbank.verification import FindingKind
from tensorbank_indexer.repairs.damaged_index import DamagedIndex
from tensorbank_indexer.repairs.derived_rows import (
    Pair,
    Place,
    from_archives,
    from_rows,
    is_whole,
    rows_where,
)
from tensorbank_indexer.repairs.repair_report import Unrepaired
from tensorbank_indexer.repairs.shard_repair import refs_of
from tensorbank_indexer.rows import StoredSample, index_rows
from tensorbank_indexer.source import Source

__all__ = ["repair_samples"]

OWN_ROW = frozenset({FindingKind.WRONG_STATISTICS, FindingKind.WRONG_MODALITIES})
"""The flaws of rows of samples which all else in the row is enough to mend."""

Numbers = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class _Moved:
    """Rows of samples with the addresses that their tiles have, by key and part, the numbers of these, and keys of the shards."""

    numbers: Numbers
    rows: Mapping[Pair, dict[str, Any]]
    shards: frozenset[str] = frozenset()


def repair_samples(index: DamagedIndex, source: Source | None) -> frozenset[str]:
    """Derive lost and wrong rows of samples; return the keys of shards that only look damaged, since rows lead to wrong places.

    Raises
    ------
    Unrepaired
        They do not follow from tiles and archives.
    """
    wrong = index.of_level("samples")
    lost = index.files("samples", lost=True)
    moved = _wrong_addresses(index)
    if not lost and not wrong and not moved.rows:
        return frozenset()
    own = index.numbers("samples")
    by_own_row = np.union1d(index.named([f for f in wrong if f.kind in OWN_ROW]), moved.numbers)
    by_archive = np.setdiff1d(index.named([f for f in wrong if f.kind not in OWN_ROW]), by_own_row)
    if lost or len(by_archive):
        if index.files("tiles", lost=True):
            raise Unrepaired("rows of samples follow from tiles, and files of these are lost as well")
        tiles = np.unique(index.numbers("tiles"))
        by_archive = np.union1d(by_archive, tiles[~np.isin(tiles, own)] if lost else by_archive[:0])

    def derive(live: bool) -> pa.Table:
        wanted = by_archive[~np.isin(by_archive, index.dead)] if live else by_archive
        made = [*_from_archives(index, wanted, source), *_from_own_rows(index, by_own_row, moved)]
        return (
            pa.concat_tables(made)
            if made
            else with_keys(index_rows([], index.schema, part="", shard=0, n_tiles=1).samples)
        )

    index.replace("samples", derive, lost, index.among(np.union1d(by_own_row, by_archive)))
    return moved.shards


def _from_own_rows(index: DamagedIndex, numbers: Numbers, moved: _Moved) -> list[pa.Table]:
    if not len(numbers):
        return []
    places = index.places(index.among(numbers), moved.rows)
    return [
        from_rows(index.catalog.store, rows, index.schema, place, 1, trusted=False).samples
        for place, rows in sorted(places.items())
    ]


def _wrong_addresses(index: DamagedIndex) -> _Moved:
    """Find the rows of samples that lead elsewhere than their tiles, where only tiles lead to whole blocks."""
    folders = {level: index.folder(level) for level in ("samples", "tiles")}
    named = index.named(
        f
        for f in index.findings
        if (f.kind == FindingKind.BAD_REF and f.key == folders["samples"])
        or (f.kind == FindingKind.WRONG_TILES and f.key == folders["tiles"])
    )
    if not len(named) or index.files("tiles", lost=True):
        return _Moved(np.zeros(0, np.uint64), {})
    addresses = _addresses(index, named)
    found: dict[Pair, dict[str, Any]] = {}
    shards: set[str] = set()
    for row in rows_where(index.paths("samples"), ["key", "part"], index.among(named)):
        pair = (row["key"], row["part"])
        for name, ref in addresses.get(pair, {}).items():
            said = (row.get(name) or {}).get("ref")
            if said is None or said == {k: ref[k] for k in said}:
                continue
            modality = index.schema[name]
            if is_whole(index.catalog.store, modality, said) or not is_whole(
                index.catalog.store, modality, ref
            ):
                continue
            row[name]["ref"] = {k: ref[k] for k in said}
            found[pair] = row
            shards |= {said["key"], ref["key"]}
    keys = pa.array([key for key, _ in found], pa.int64())
    parts = pa.array([part for _, part in found], pa.string())
    numbers = np.unique(index.numbers_of(pa.table({"key": keys, "part": parts})))
    return _Moved(numbers, found, frozenset(shards))


def _addresses(index: DamagedIndex, numbers: Numbers) -> dict[Pair, dict[str, Any]]:
    """Return where tiles say that samples lie, by modality."""

    def wanted(rows: pa.Table) -> npt.NDArray[np.bool_]:
        first: npt.NDArray[np.bool_] = as_numpy(rows["tile"], 0) == 0
        return index.among(numbers)(rows) & first

    addresses: dict[Pair, dict[str, Any]] = {}
    for row in rows_where(index.paths("tiles"), ["key", "part", "tile"], wanted):
        held = addresses.setdefault((row["key"], row["part"]), {})
        for name in index.schema.names:
            if row.get(name) is not None:
                held.setdefault(name, row[name]["ref"])
    return addresses


def _from_archives(index: DamagedIndex, numbers: Numbers, source: Source | None) -> list[pa.Table]:
    """Return rows of samples that tiles name, by shards."""
    if not len(numbers):
        return []
    addresses = _addresses(index, numbers)
    refs = {} if source is None else refs_of(source, {key for key, _ in addresses})
    made = from_archives(source, refs, index.catalog.store, addresses, index.schema)
    places: dict[Place, list[StoredSample]] = {}
    for (pair, held), sample in zip(addresses.items(), made, strict=True):
        shard = place_of_key(next(iter(held.values()))["key"])[1]
        places.setdefault((pair[1], shard), []).append(sample)
    tables = []
    for (part, shard), samples in sorted(places.items()):
        samples.sort(key=lambda sample: sample.row)
        tables.append(with_keys(index_rows(samples, index.schema, part=part, shard=shard, n_tiles=1).samples))
    return tables
