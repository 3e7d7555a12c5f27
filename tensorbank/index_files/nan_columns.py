"""Plain columns that hold NaN, which none of an index may: it makes DuckDB's answers depend on the layout.

NaN counts as the largest number in a comparison, and Parquet's statistics leave it out; so whether ``lon > 5`` finds it depends
on the row groups that are skipped. A table whose first commit bears :data:`FINITE` never had any, for a commit of NaN is refused.
Tables from before that are looked through, once a file and process (60 ms a million rows); where NaN is found, the column reads
as NULL, which costs the skipping of row groups by it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

__all__ = ["FINITE", "of_file", "with_nan"]

FINITE = "tensorbank.finite"
"""The application id of the transaction that the first commit of a table bears,
if none of its rows ever holds NaN."""
N_FILES = 8192


def with_nan(rows: pa.Table) -> frozenset[str]:
    """Return the names of the columns of floats that hold NaN; fields of structs are not looked at."""
    return frozenset(
        name
        for name, column in zip(rows.column_names, rows.columns, strict=True)
        if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py()
    )


@lru_cache(maxsize=N_FILES)
def of_file(path: str) -> frozenset[str]:
    """Return the columns with NaN of one immutable Parquet file on this machine."""
    with pyarrow.parquet.ParquetFile(Path(path)) as file:
        floats = [f.name for f in file.schema_arrow if pa.types.is_floating(f.type)]
        return with_nan(file.read(columns=floats)) if floats else frozenset()
