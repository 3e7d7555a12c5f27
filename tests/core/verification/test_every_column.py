"""One wrong value at a time, in any column of a level whose file has a right checksum, is found by a deep look."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank.catalog import Change, LevelChange
from tensorbank.verification import verify
from tensorbank_indexer import IngestOptions, ingest

UNCHECKED = {
    "hilbert",
    "S1_times",
    "S1RTC.source.path",
    "S1RTC.source.offset",
    "S1RTC.source.length",
    "S1RTC.source.etag",
}
"""The columns of samples that nothing repeats and that follow from no pixel: what they say, the archives alone know."""


def leaves(fields: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for field in fields:
        path = (*above, field.name)
        if pa.types.is_struct(field.type):
            yield from leaves(field.type, path)
        else:
            yield path


def other(value: Any) -> Any:
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.01 + 0.5
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, dt.datetime):
        return value + dt.timedelta(days=1)
    return [other(value[0]), *value[1:]]


def planted(rows: pa.Table, path: tuple[str, ...]) -> pa.Table | None:
    """Rows of which one has another value in a column; None if none has a value there."""
    listed = rows.to_pylist()
    for row in listed:
        at = row
        for name in path[:-1]:
            at = at[name] if at else None
        if at and at[path[-1]] not in (None, []):
            at[path[-1]] = other(copy.deepcopy(at[path[-1]]))
            return pa.Table.from_pylist(listed, schema=rows.schema)
    return None


@pytest.mark.parametrize("level", ["samples", "tiles", "shards"])
def test_a_wrong_value_in_any_column_is_found(tmp_path, level):
    bank = tb.create(tmp_path / "bank")
    ingest(TinySource(2, modalities=("S1RTC",)), bank, "t", IngestOptions(n_workers=1, n_tiles=2))
    catalog = bank.catalog
    (file,) = catalog.files("t", level).files
    rows = pq.read_table(catalog.path(file))
    missed, n = set(), 0
    for path in leaves(rows.schema):
        new = planted(rows, path)
        if new is None or "vv" in path:
            continue
        n += 1
        there = catalog.files("t", level).files
        change = LevelChange((catalog.write("t", level, new),), there)
        catalog.publish("t", lambda _head, change=change: Change("plant", {level: change}))
        if verify(bank, "t", deep=True, n_threads=1).sound:
            missed.add(".".join(path))
    assert n > 20
    assert missed == (UNCHECKED if level == "samples" else set())
