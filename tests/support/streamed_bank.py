"""A bank whose rows are made by hand and whose blocks are really there, so that loaders can stream it. No part of ingest."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from support.handmade_index import part_of
from tensorbank import Band, Bank, Modality, TableSchema
from tensorbank.index_schema import samples_schema
from tensorbank.reading.codec import codec_for

S2 = Modality("S2", "int16", (Band("B04"), Band("B08")), 2, 12, 10)
S1 = Modality("S1", "float32", (Band("vv"),), 1, 12, 10)
SCHEMA = TableSchema((S2, S1))


def add_part(bank: Bank, table: str, part: str, n: int, *, missing: float = 0.2) -> list[dict[str, Any]]:
    """Write the blocks of a part of ``n`` samples and commit its rows, which are returned. S2 is there for all samples."""
    commit = part_of(table, part, n, schema=SCHEMA, missing=0)
    rng = np.random.default_rng(n)
    rows = commit.samples.to_pylist()
    shards: dict[str, bytes] = {}
    for number, row in enumerate(rows):
        for modality in SCHEMA:
            if modality is S1 and rng.random() < missing:
                row[modality.name] = None
                continue
            ref = row[modality.name]["ref"]
            codec = codec_for("balanced", modality)
            pixels = rng.integers(0, 200, modality.sample_shape).astype(modality.dtype)
            blocks = [codec.encode(block) for block in pixels.reshape(-1, modality.height, modality.width)]
            before = shards.get(ref["key"], b"")
            lengths = [len(block) for block in blocks]
            ref |= {"offset": len(before), "length": sum(lengths), "block_bytes": lengths}
            row[modality.name]["source"] = {
                "path": f"{part}.tar",
                "offset": 512 * number,
                "length": 100 + number,
                "etag": f"etag-of-{part}",
            }
            shards[ref["key"]] = before + b"".join(blocks)
        row["modalities"] = [m.name for m in SCHEMA if row[m.name] is not None]
    for key, data in shards.items():
        bank.catalog.store.put(key, data + b"index at the end")
    samples = pa.Table.from_pylist(rows, schema=samples_schema(SCHEMA))
    bank.catalog.commit(table, dataclasses.replace(commit, samples=samples))
    return rows


def make_bank(
    bank: Bank, table: str, n: int, *, parts: tuple[str, ...] = ("part-0",)
) -> list[dict[str, Any]]:
    """Make a table of parts of ``n`` samples each, and return all rows."""
    bank.catalog.create(table, SCHEMA, single_writer=True)
    return [row for part in parts for row in add_part(bank, table, part, n)]
