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
    from tensorbank.plans import Plan
    from tensorbank.queries import Mix, Query, Selection, mix
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

_DOORS = ("errors", "ranges", "schema", "storage", "statistics", "plans", "queries", "bank", "opening")
"""The modules and packages that have the public names, lower ones first: what is imported on the way to a name is imported by the
package that has it, too."""


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that a program which needs one value does not pay for DuckDB."""
    if name in __all__:
        for door in _DOORS:
            module = importlib.import_module(f"tensorbank.{door}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'tensorbank' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
