"""The way of a table from format 1 to the present one: its index files are written anew, with keys and checksums."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.catalog.changes import KEYS, Change, TableVersion
from tensorbank.catalog.commits import Write
from tensorbank.catalog.membership import KEY_COLUMNS, rows_of_keys, with_keys
from tensorbank.delta import LevelChange
from tensorbank.index_files import IndexFile, LevelFiles, NewFile, with_nan
from tensorbank.layout import LEVELS

__all__ = ["upgrading"]


def upgrading(
    files: Callable[[TableVersion, str], LevelFiles], path: Callable[[IndexFile], str], write: Write
) -> Callable[[TableVersion], Change | None]:
    """Return what makes the change that upgrades a table; None if it is of the present format."""

    def make(head: TableVersion) -> Change | None:
        if head.pins is not None:
            return None
        changes: dict[str, LevelChange] = {}
        keys: list[pa.Table] = []
        for level in LEVELS:
            there = files(head, level)
            if level != "samples" and head.samples.parts is not None:
                there = there.of_parts(head.samples.parts)
            written: list[NewFile] = []
            for file in there.files:
                rows = _without_nan(pq.read_table(path(file)))
                written.append(write(level, rows if level == "shards" else with_keys(rows)))
                if level == "samples":
                    keys.append(rows.select(KEY_COLUMNS))
            changes[level] = LevelChange(tuple(written), there.files)
        if keys:
            changes[KEYS] = LevelChange(added=(write(KEYS, rows_of_keys(pa.concat_tables(keys))),))
        return Change("upgrade", changes, {"from_format": 1})

    return make


def _without_nan(rows: pa.Table) -> pa.Table:
    """Return rows with null in place of NaN, which the present format has nowhere."""
    for name in with_nan(rows):
        column = pc.if_else(pc.is_nan(rows[name]), None, rows[name])
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return rows
