"""The tables of a bank: their names, their snapshots, and the changes that make them."""

from __future__ import annotations

from tensorbank.catalog.catalog import Catalog
from tensorbank.catalog.changes import (
    COLUMNS_FOLDER,
    DELETED,
    KEYS,
    SORTED_FOLDER,
    Change,
    Published,
    TableVersion,
)
from tensorbank.catalog.commits import Commit
from tensorbank.catalog.membership import Membership, key_of, keys_of, rows_of_keys, with_keys
from tensorbank.catalog.provenance import (
    Provenance,
    find_document_flaw,
    part_attributes,
    part_document,
    provenance_of,
)
from tensorbank.catalog.publishing import FORMAT, PIN
from tensorbank.catalog.renaming import leads_to
from tensorbank.catalog.table_names import RENAMED
from tensorbank.delta import LevelChange, SnapshotInfo

__all__ = [
    "COLUMNS_FOLDER",
    "Catalog",
    "Change",
    "Commit",
    "DELETED",
    "FORMAT",
    "KEYS",
    "LevelChange",
    "PIN",
    "Membership",
    "Provenance",
    "Published",
    "RENAMED",
    "SORTED_FOLDER",
    "SnapshotInfo",
    "TableVersion",
    "find_document_flaw",
    "key_of",
    "keys_of",
    "leads_to",
    "part_attributes",
    "part_document",
    "provenance_of",
    "rows_of_keys",
    "with_keys",
]
