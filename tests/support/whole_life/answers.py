"""The answers that TensorBank gives about a version of a table, in the form of the model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

import tensorbank as tb
from support.whole_life.model import ASKED, MODALITIES, UNIVERSE, name_of
from tensorbank.catalog import key_of
from tensorbank.reading.sample_reader import SampleReader

__all__ = ["Answers", "ask"]

KEYS = np.array([key_of("train", name_of(n)) for n in UNIVERSE], np.int64)


@dataclass(frozen=True)
class Answers:
    """The answers of a reader: ``told`` and ``values`` as the model has them, and ``exact``, a hash of every byte of them and
    of the plan."""

    told: Mapping[str, Any]
    values: Mapping[str, Mapping[str, float]]
    exact: str


def ask(bank: tb.Bank, name: str, version: int) -> Answers:
    """Ask for all that there is at a version of a table."""
    pinned = bank.at({name: version})
    table = pinned.table(name)
    schema, columns = table.schema, table.columns
    chosen = ", ".join(f'"{c}"' for c in ("sample_id", "part", *columns, *schema.names))
    plan = pinned.sql(f'SELECT {chosen} FROM "{name}"').plan()
    exact = hashlib.sha256(plan.fingerprint.encode())
    samples: dict[str, dict[str, str]] = {}
    ids = plan.table["sample_id"].to_pylist()
    assert len({*ids}) == len(ids), f"version {version} has samples twice: {sorted(ids)}"
    if len(plan):
        with closing(SampleReader.of(plan)) as reader:
            tensors = reader.read(np.arange(len(plan)))
        for place, sample in enumerate(ids):
            samples[sample] = {
                h.name: hashlib.sha256(tensors[h.name][place].tobytes()).hexdigest()[:16]
                for h in plan.handles
                if plan.addresses[h.name].present[place]
            }
        for column in plan.table.columns:
            exact.update(repr(column.to_pylist()).encode())
        exact.update(repr(sorted(samples.items())).encode())
    values = {
        c: {s: v for s, v in zip(ids, plan.table[c].to_pylist(), strict=True) if v is not None}
        for c in columns
    }
    counts = ", ".join(f'count("{m}".ref.key) AS "{m}"' for m in schema.names)
    tiles = pinned.sql(
        f'SELECT sample_id, {counts} FROM "{name}".tiles GROUP BY sample_id ORDER BY sample_id'
    ).arrow()
    listed = ", ".join(f"'{name_of(n)}'" for n in ASKED)
    asked = f'SELECT sample_id FROM "{name}" WHERE sample_id IN ({listed}) ORDER BY sample_id'
    with mock.patch("tensorbank.sorted_copies.choice.WORTH", 2):  # so that copies of few rows are read
        few = pinned.sql(asked).arrow()
    summaries = table.describe()
    exact.update(repr((tiles.to_pylist(), {m: s.bands for m, s in summaries.items()})).encode())
    catalog = bank.catalog
    has = catalog.membership(catalog.version(name, version)).has_samples(KEYS)
    told = {
        "samples": samples,
        "asked": few["sample_id"].to_pylist(),
        "tiles": _tiles(tiles),
        "members": [name_of(n) for n in UNIVERSE if has[n]],
        "n_samples": table.snapshot().n_samples,
        "modalities": sorted(schema.names),
        "columns": sorted(columns),
        "statistics": {
            m: [(b.valid, b.min, b.max, round(b.mean, 6)) for b in s.bands]
            for m, s in summaries.items()
            if m in MODALITIES and s.bands and s.bands[0].valid
        },
    }
    return Answers(told, values, exact.hexdigest())


def _tiles(rows: pa.Table) -> dict[str, dict[str, int]]:
    return {
        row["sample_id"]: {m: n for m, n in row.items() if m != "sample_id" and n} for row in rows.to_pylist()
    }
