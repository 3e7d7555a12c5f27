"""The origins of samples as the rows of a version say them: the part, and the member of each modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tensorbank.arrow_numpy import as_arrow
from tensorbank.catalog import Catalog, TableVersion, key_of, keys_of
from tensorbank.layout import place_of_key
from tensorbank.planning import Planner
from tensorbank.sql import literal, quoted
from tensorbank_indexer.source import MemberAddress, SampleRef

__all__ = ["StoredMember", "StoredOrigin", "live_rows", "stored_origins"]


@dataclass(frozen=True, slots=True)
class StoredMember:
    """The member that a modality of a sample was read from; ``folder`` is the key of the part where its pixels lie now."""

    address: MemberAddress
    folder: str


@dataclass(frozen=True, slots=True)
class StoredOrigin:
    """The origin of one sample of a table: its part, and the member of each modality that it has, by name."""

    part: str
    members: Mapping[str, StoredMember]


def live_rows(catalog: Catalog, version: TableVersion, refs: Sequence[SampleRef]) -> pa.Table:
    """Return ``key``, ``stem_key`` and ``part`` of the rows that a version has of some samples, in no order."""
    rows = _rows(catalog, version, refs, ["split", "subset", "stem"])
    stems = as_arrow(keys_of(rows, "split", "subset", "stem"))
    return pa.table({"key": rows["key"], "stem_key": stems, "part": rows["part"]})


def stored_origins(
    catalog: Catalog, version: TableVersion, refs: Sequence[SampleRef]
) -> dict[int, StoredOrigin]:
    """Return the origins of those of some samples that a version has, by key."""
    names = version.schema.names
    fields = ("source.path", 'source."offset"', "source.length", "source.etag", "ref.key")
    chosen = [
        f"{quoted(name)}.{field} AS m{n}_{i}"
        for n, name in enumerate(names)
        for i, field in enumerate(fields)
    ]
    rows = _rows(catalog, version, refs, chosen)
    keys, parts = rows["key"].to_pylist(), rows["part"].to_pylist()
    members: list[dict[str, StoredMember]] = [{} for _ in keys]
    for n, name in enumerate(names):
        columns = (rows[f"m{n}_{i}"].to_pylist() for i in range(len(fields)))
        for mine, (path, offset, length, etag, key) in zip(members, zip(*columns, strict=True), strict=True):
            if key is not None:
                address = MemberAddress(path, offset, length, etag)
                mine[name] = StoredMember(address, place_of_key(key)[0].rpartition("/")[0])
    return {key: StoredOrigin(part, mine) for key, part, mine in zip(keys, parts, members, strict=True)}


def _rows(
    catalog: Catalog, version: TableVersion, refs: Sequence[SampleRef], columns: Sequence[str]
) -> pa.Table:
    """Return ``key``, ``part`` and further columns of the rows that a version has of some samples."""
    keys = np.array([key_of(ref.split, ref.sample_id) for ref in refs], np.int64)
    ids = [ref.sample_id for ref in refs]
    given = "given_keys" if version.table.lower() != "given_keys" else "given_samples"
    low, high = (literal(bound) for bound in (min(ids, default=""), max(ids, default="")))
    planner = Planner(catalog, {version.table: version.version}, {given: pa.table({"key": as_arrow(keys)})})
    return planner.arrow(
        f"SELECT {', '.join(['key', 'part', *columns])} FROM {quoted(version.table)} "
        f"WHERE sample_id BETWEEN {low} AND {high} AND key IN (SELECT key FROM {given})"
    )
