"""The tables of a bank: their names, their snapshots, and the commits that make them."""

from __future__ import annotations

from tensorbank.catalog.catalog import Catalog
from tensorbank.catalog.commits import Commit
from tensorbank.catalog.history import SnapshotInfo
from tensorbank.catalog.provenance import Provenance, provenance_of

__all__ = [
    "Catalog",
    "Commit",
    "Provenance",
    "SnapshotInfo",
    "provenance_of",
]
