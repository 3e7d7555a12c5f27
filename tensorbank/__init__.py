"""TensorBank: a tensor lakehouse for Earth-observation foundation models.

    import tensorbank as tb

    bank = tb.open("s3://eo-bank")
    query = bank.sql("SELECT S2L2A, S1RTC FROM terramesh WHERE cloud_cover < 0.1")
    for batch in query.dataloader(batch_size=64):
        ...

The guide is ``tensorbank/README.md``; each package of this one says in its docstring what it is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorbank.bank import Bank, Snapshot, Table
    from tensorbank.errors import (
        ConflictError,
        FormatError,
        IntegrityError,
        InvalidInputError,
        NotFoundError,
        StorageError,
        TensorBankError,
    )
    from tensorbank.opening import create, open  # noqa: A004 - tb.open is the name that users call
    from tensorbank.plans import Mix, Plan, Query, Selection, mix
    from tensorbank.ranges import ByteRange
    from tensorbank.schema import Band, Modality, TableSchema
    from tensorbank.statistics import BandStats, Normalization, Statistics, normalization
    from tensorbank.storage import StorageOptions

__version__ = "0.1.0"

__all__ = [
    "Band",
    "BandStats",
    "Bank",
    "ByteRange",
    "ConflictError",
    "FormatError",
    "IntegrityError",
    "InvalidInputError",
    "Mix",
    "Modality",
    "Normalization",
    "NotFoundError",
    "Plan",
    "Query",
    "Selection",
    "Snapshot",
    "Statistics",
    "StorageError",
    "StorageOptions",
    "Table",
    "TableSchema",
    "TensorBankError",
    "create",
    "mix",
    "normalization",
    "open",
]

_HOMES = {
    "tensorbank.storage.address": ("StorageOptions",),
    "tensorbank.bank": ("Bank", "Snapshot", "Table"),
    "tensorbank.errors": (
        "ConflictError",
        "FormatError",
        "IntegrityError",
        "InvalidInputError",
        "NotFoundError",
        "StorageError",
        "TensorBankError",
    ),
    "tensorbank.plans.mixture": ("Mix", "mix"),
    "tensorbank.opening": ("create", "open"),
    "tensorbank.plans.plan": ("Plan",),
    "tensorbank.statistics.published": ("Normalization", "normalization"),
    "tensorbank.plans.query": ("Query",),
    "tensorbank.plans.selection": ("Selection",),
    "tensorbank.ranges": ("ByteRange",),
    "tensorbank.schema": ("Band", "Modality", "TableSchema"),
    "tensorbank.statistics.summaries": ("Statistics",),
    "tensorbank.statistics.band_stats": ("BandStats",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that a program which needs one value does not pay for DuckDB."""
    if name not in _HOME:
        raise AttributeError(f"module 'tensorbank' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
