"""Modalities that a table loses: the columns go at once, the tensors when nothing needs them any more."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.catalog import Catalog, Change, LevelChange, Published, TableVersion
from tensorbank.corrections.rewritten_files import rewritten
from tensorbank.errors import InvalidInputError
from tensorbank.index_files import NewFile
from tensorbank.layout import LEVELS
from tensorbank.schema import TableSchema

__all__ = ["drop_modality"]

OPERATION = "drop-modality"


def drop_modality(catalog: Catalog, table: str, name: str) -> Published:
    """Remove a modality from a table, by one commit; tensors of the others are not touched.

    One that was dropped already is said to be so, and nothing changes. Versions before keep it, and its bytes stay as long as one
    of them does. A modality of the same name that is added later has nothing of this one. Samples without any other modality
    stay, with none.

    Raises
    ------
    NotFoundError
        There is no such table, or it has no such modality (``kind`` is ``unknown-modality``).
    InvalidInputError
        It is the only modality of the table, or the bank cannot be written to.
    ConflictError, StorageError
        The change could not be committed.
    """
    written: dict[str, NewFile] = {}

    def make(head: TableVersion) -> Change | None:
        if name not in head.schema and _was_dropped(catalog, table, name):
            return None
        dropped = head.schema[name]
        rest = TableSchema(tuple(m for m in head.schema if m is not dropped))
        if not rest.modalities:
            raise InvalidInputError(
                f"{name} is the only modality of {table}, and a table needs one; add another first"
            )
        levels = {}
        for level, files in catalog.levels(head, LEVELS).items():
            # A file from before the modality has no column of it.
            having = [f for f in files.files if name in pq.read_schema(catalog.path(f)).names]
            for file in having:
                if file.key not in written:
                    written[file.key] = rewritten(
                        catalog, table, level, file, lambda rows: _without(rows, name)
                    )
            levels[level] = LevelChange(tuple(written[f.key] for f in having), tuple(having))
        return Change(OPERATION, levels, {"modality": name}, schema=rest)

    return catalog.publish(table, make)


def _was_dropped(catalog: Catalog, table: str, name: str) -> bool:
    """Tell whether the history has it that a modality was dropped."""
    return any(e.operation == OPERATION and e.details.get("modality") == name for e in catalog.history(table))


def _without(rows: pa.Table, name: str) -> pa.Table:
    """Return rows of the index without a modality: its column, and its name in the lists of modalities."""
    rows = rows.drop_columns([name])
    place = rows.schema.get_field_index("modalities")
    if place < 0:
        return rows
    field = rows.schema.field(place)
    lists = (None if words is None else [w for w in words if w != name] for words in rows[place].to_pylist())
    return rows.set_column(place, field, pa.array(lists, field.type))
