"""The tables of a bank: their snapshots, the commits that make them, and the index files that each holds."""

from __future__ import annotations

from tensorbank.catalog.catalog import Catalog
from tensorbank.catalog.commits import Commit
from tensorbank.catalog.history import SnapshotInfo
from tensorbank.catalog.level_files import LevelFiles
from tensorbank.catalog.mirror import IndexMirror, default_cache_folder
from tensorbank.catalog.nan_columns import of_file
from tensorbank.catalog.provenance import Provenance, provenance_of

__all__ = [
    "Catalog",
    "Commit",
    "IndexMirror",
    "LevelFiles",
    "Provenance",
    "SnapshotInfo",
    "default_cache_folder",
    "of_file",
    "provenance_of",
]
