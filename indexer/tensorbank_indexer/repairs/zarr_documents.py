"""Zarr documents of parts and arrays, derived again: from each other, from rows of samples, from history and archives.

What only a document of a part said is lost with it, such as why its codec was chosen. No reader of a table needs that.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

import tensorbank
from tensorbank.catalog import Catalog, TableVersion, find_document_flaw, part_document
from tensorbank.errors import NotFoundError, TensorBankError
from tensorbank.layout import array_attributes, array_document, place_of_key
from tensorbank.reading import DEFAULT_PROFILE, codec_for
from tensorbank.schema import Modality
from tensorbank_indexer.repairs.repair_report import Unrepaired
from tensorbank_indexer.source import Source

__all__ = ["repair_documents"]

_INDEX_END = 4
_PAIR_BYTES = 16


def repair_documents(
    catalog: Catalog,
    version: TableVersion,
    folder: str,
    damaged: Collection[str],
    source: Source | None,
    *,
    dry_run: bool,
) -> list[str]:
    """Put the documents of a part back; return their keys.

    Parameters
    ----------
    folder
        Key of the folder of the part.
    damaged
        Keys of the documents that are missing or not as they were written.

    Raises
    ------
    Unrepaired
        Nothing tells what they said.
    """
    part = _Part(catalog, version, folder)
    group_key = f"{folder}/zarr.json"
    group = part.document(group_key)
    if group is not None and "tensorbank.crc32c" in group.get("attributes", {}):
        damaged = {*damaged} - {group_key}  # it is sound, and an array's document is not what it repeats
    elif group_key in damaged:
        group = None
    said = {} if group is None else group.get("consolidated_metadata", {}).get("metadata", {})
    arrays: dict[str, Mapping[str, Any]] = {}
    made: dict[str, bytes] = {}
    for modality in part.modalities(said):
        key = f"{folder}/{modality.name}/zarr.json"
        if key not in damaged and (there := part.document(key)) is not None:
            arrays[modality.name] = there
    for modality in part.modalities(said):
        key = f"{folder}/{modality.name}/zarr.json"
        if key in damaged:
            document = said.get(modality.name) or part.array(modality, said or arrays)
            arrays[modality.name] = document
            made[key] = json.dumps(document, indent=1).encode()
    if group_key in damaged:
        attributes = part.attributes(source)
        ordered = {m.name: arrays[m.name] for m in version.schema if m.name in arrays}
        made[group_key] = part_document(folder.rpartition("/")[2], attributes, ordered)
    if lost := sorted({*damaged} - {*made}):
        raise Unrepaired(f"nothing tells what {lost[0]} said: no row of samples leads to it")
    if not dry_run:
        for key, data in made.items():
            catalog.store.put(key, data)
    return list(made)


class _Part:
    """One part, as what is left of a table tells of it."""

    def __init__(self, catalog: Catalog, version: TableVersion, folder: str) -> None:
        self.catalog = catalog
        self.version = version
        self.folder = folder
        self.name = folder.rpartition("/")[2]
        self.owners: set[str] = set()
        self.etags: dict[str, str] = {}
        self._refs: dict[str, list[Mapping[str, Any]]] = {}
        for file in version.samples.files:
            try:
                path = catalog.path(file)
            except TensorBankError:
                continue  # it is repaired, too
            self._look(path)

    def _look(self, path: str) -> None:
        names = [n for n in self.version.schema.names if n in pq.read_schema(path).names]
        with pq.ParquetFile(path) as parquet:
            for name in names:
                columns = ["part", *(f"{name}.{f}" for f in ("ref", "source"))]
                for batch in parquet.iter_batches(8192, columns=columns):
                    keys = pc.struct_field(batch[name], ["ref", "key"])
                    mine = batch.filter(pc.fill_null(pc.starts_with(keys, f"{self.folder}/"), False))
                    for row in mine.to_pylist():
                        self.owners.add(row["part"])
                        ref, source = row[name]["ref"], row[name]["source"]
                        self.etags.setdefault(source["path"], source["etag"])
                        self._note(name, ref)

    def _note(self, name: str, ref: Mapping[str, Any]) -> None:
        """Keep the last sample of each shard, and the last of all."""
        refs = self._refs.setdefault(name, [])
        at = next((i for i, r in enumerate(refs) if r["key"] == ref["key"]), None)
        if at is None:
            refs.append(ref)
        elif refs[at]["offset"] < ref["offset"]:
            refs[at] = {**ref, "row": max(ref["row"], refs[at]["row"])}
        else:
            refs[at] = {**refs[at], "row": max(ref["row"], refs[at]["row"])}

    def modalities(self, said: Collection[str]) -> list[Modality]:
        """Return the modalities that the part has as far as is known, in the order of the table."""
        listed = {
            o.key[len(self.folder) + 1 :].partition("/")[0] for o in self.catalog.store.objects(self.folder)
        }
        return [m for m in self.version.schema if m.name in {*said, *self._refs, *listed}]

    def document(self, key: str) -> Mapping[str, Any] | None:
        """Return a document that is sound."""
        try:
            data = self.catalog.store.get(key)
            if key == f"{self.folder}/zarr.json" and find_document_flaw(data, self.name):
                return None
            found = json.loads(data)
        except (TensorBankError, ValueError):
            return None
        return found if isinstance(found, Mapping) else None

    def array(self, modality: Modality, others: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return the document of an array, whose form is that of another array of the part, or follows from its shards."""
        known = next(iter(others.values()), None)
        if known is not None:
            n_samples = int(known["shape"][0])
            n_slots = int(known["chunk_grid"]["configuration"]["chunk_shape"][0])
        else:
            n_slots = self._n_slots(modality)
            n_samples = 1 + max(ref["row"] for refs in self._refs.values() for ref in refs)
        group = self.document(f"{self.folder}/zarr.json") or {}
        profile = str(
            group.get("attributes", {}).get("codec_profile", self.details.get("profile", DEFAULT_PROFILE))
        )
        names = {*others, modality.name, *self._refs}
        return array_document(
            modality,
            [m for m in self.version.schema if m.name in names],
            n_samples=n_samples,
            samples_per_shard=n_slots,
            blosc=codec_for(profile, modality).configuration(),
            attributes=array_attributes(modality),
        )

    def _n_slots(self, modality: Modality) -> int:
        """Return the samples that a shard has room for: its index takes the rest of its bytes."""
        for ref in self._refs.get(modality.name, ()):
            try:
                size = self.catalog.store.size(ref["key"])
            except NotFoundError:
                continue
            n_index = size - ref["offset"] - ref["length"] - _INDEX_END
            n_slots, rest = divmod(n_index, _PAIR_BYTES * modality.n_blocks)
            if n_slots > 0 and not rest and ref["row"] // n_slots == place_of_key(ref["key"])[1]:
                return int(n_slots)
        raise Unrepaired(
            f"no document and no whole shard tells how many samples a shard of {self.folder} has room for"
        )

    @cached_property
    def details(self) -> Mapping[str, Any]:
        """The details of the commit that added the part, as the history has them."""
        told = (e.details for e in self.catalog.history(self.version.table) if e.part == self.name)
        return next(told, {})

    def attributes(self, source: Source | None) -> Mapping[str, object]:
        """Return what history and archives tell of where the part came from."""
        details = self.details
        base = sorted(self.owners - {self.name})
        given = {} if source is None or source.root != details.get("source") else dict(source.attributes)
        found: dict[str, object] = {
            "Conventions": "CF-1.11",
            "source": details.get("source", ""),
            "source_format": details.get("source_format", ""),
            "source_revision": details.get("source_revision", ""),
            "source_etags": dict(sorted(self.etags.items())),
            **({"rows_of": base[0]} if base and self.name not in self.owners else {}),
            "crs": "each sample lies in the UTM zone of its EPSG code: column epsg of the samples table",
            "history": f"document made again by tensorbank {tensorbank.__version__}, from the history and the index",
            "codec_profile": details.get("profile", DEFAULT_PROFILE),
            **given,
            **({"licence": details["licence"]} if details.get("licence") else {}),
        }
        return {name: value for name, value in found.items() if value not in ("", {})}
