"""A copy of the rows of samples sorted by one column, as its Delta table says it. Pure.

A copy says of which index files of samples it has all rows. It may be read in their place as long as they belong to a snapshot,
and whatever other files the snapshot has are read beside it: so no change of a table has to know of its copies, and a copy that
is out of date costs time, never a row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from tensorbank.delta import VersionState
from tensorbank.errors import InvalidInputError, nearest
from tensorbank.index_files import IndexFile, LevelFiles, NewFile

__all__ = ["SortedCopy", "copy_name", "leaf_of", "mentioned", "name_of", "settings_of", "sortable"]

COLUMN = "tensorbank.column"
"""The setting that says the path of the column, as a list in JSON."""
SOURCES = "tensorbank.sources"
"""The setting that says the names of the files of samples whose rows a copy has, as a list in JSON."""
EMPTY = "tensorbank.empty"
"""The setting that says the names of those files of a copy whose rows have no value in the column, as a list in JSON."""
_ODD = re.compile(r"[^A-Za-z0-9_.]")


@dataclass(frozen=True)
class SortedCopy:
    """The rows of some index files of samples, sorted by a column.

    Parameters
    ----------
    column
        Path of the column, as the schema spells it.
    files
        Files of the copy.
    sources
        Names of the files of samples whose rows it has, all of them and no others.
    empty
        Names of its files whose rows have no value in the column.
    """

    column: tuple[str, ...]
    files: LevelFiles
    sources: frozenset[str]
    empty: frozenset[str]

    @classmethod
    def of(cls, state: VersionState) -> SortedCopy | None:
        """Return the copy that a version of its Delta table holds, None where nothing says of what."""
        try:
            column = json.loads(state.configuration[COLUMN])
            sources = json.loads(state.configuration[SOURCES])
            empty = json.loads(state.configuration[EMPTY])
        except (KeyError, ValueError):
            return None
        return cls(tuple(column), state.files, frozenset(sources), frozenset(empty))

    @property
    def leaf(self) -> tuple[str, ...]:
        """The path of the column as conditions name it, in lower case."""
        return tuple(name.lower() for name in self.column)

    def rest_of(self, samples: LevelFiles) -> tuple[IndexFile, ...] | None:
        """Return the files of samples whose rows it lacks, None if it has rows of files that are not among them."""
        names = {name_of(file): file for file in samples.files}
        if not self.sources <= names.keys():
            return None
        return tuple(file for name, file in names.items() if name not in self.sources)


def name_of(file: IndexFile | NewFile) -> str:
    """Return the name of an index file in its folder, which follows from its content."""
    return file.key.rpartition("/")[2]


def settings_of(
    column: Sequence[str], sources: Iterable[IndexFile], empty: Iterable[NewFile]
) -> dict[str, str]:
    """Return the settings of the Delta table of a copy of some files; ``empty`` are its own without a value in the column."""
    return {
        COLUMN: json.dumps(list(column)),
        SOURCES: json.dumps(sorted(map(name_of, sources))),
        EMPTY: json.dumps(sorted(map(name_of, empty))),
    }


def copy_name(column: Sequence[str]) -> str:
    """Return the name of the level of a column's copy: its path with dots, and ``_`` for what a key should not have."""
    return _ODD.sub("_", ".".join(column))


def mentioned(names: Collection[str], words: Iterable[str]) -> tuple[str, ...]:
    """Return the names of copies by whose column a statement with these words may ask."""
    longest = max(map(len, names), default=0)  # lists of thousands of ids are one word, and no name
    said = {_ODD.sub("_", word).lower() for word in words if len(word) <= longest}
    return tuple(name for name in names if name.lower() in said or name.lower().rpartition(".")[2] in said)


def leaf_of(column: str, schema: pa.Schema) -> tuple[str, ...]:
    """Return the path of a column of samples, given with dots in whatever capitals.

    Raises
    ------
    InvalidInputError
        There is no such column, or its values have no order: lists, structs, and truth values.
    """
    known = dict(_leaves(schema))
    found = [path for path in known if ".".join(path).lower() == column.lower()]
    if len(found) != 1:
        raise InvalidInputError(
            f"samples have no column {column!r} to be sorted by; name one as SQL does, such as cloud_cover or S2L2A.B04.mean."
            f"{nearest(column, map('.'.join, sortable(schema)))}"
        )
    if not _is_sortable(known[found[0]]):
        raise InvalidInputError(
            f"samples cannot be sorted by {column}, which holds {known[found[0]]}; choose a number, a text or a time"
        )
    return found[0]


def sortable(schema: pa.Schema) -> tuple[tuple[str, ...], ...]:
    """Return the paths of the columns of samples whose values have an order."""
    return tuple(path for path, kind in _leaves(schema) if _is_sortable(kind))


def _leaves(
    fields: Iterable[pa.Field], above: tuple[str, ...] = ()
) -> Iterable[tuple[tuple[str, ...], pa.DataType]]:
    for field in fields:
        path = (*above, field.name)
        if pa.types.is_struct(field.type):
            yield from _leaves(field.type, path)
        else:
            yield path, field.type


def _is_sortable(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_string(kind)
        or pa.types.is_timestamp(kind)
    )
