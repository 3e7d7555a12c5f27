"""Tables of the user's own, as they are registered: Arrow, data frames, files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError

__all__ = ["read_own_table"]

TEXTS = ("sample_id", "split")
"""The columns that are texts in every table, whatever their values look like: 0012 is not the sample 12."""


def read_own_table(name: str, data: Any) -> pa.Table:
    """Return what is to be registered as an Arrow table; files are read.

    Raises
    ------
    InvalidInputError
        The data are no table that Arrow has types for, the file cannot be read as what its name says, or two columns have one
        name but for capitals, which SQL's names do not have.
    NotFoundError
        There is no such file.
    """
    rows = _as_arrow(data)
    columns = [column.lower() for column in rows.column_names]
    if twice := [c for c, lower in zip(rows.column_names, columns, strict=True) if columns.count(lower) > 1]:
        raise InvalidInputError(
            f"{name!r} has the columns {' and '.join(map(repr, twice))}, which are one name in SQL; rename one of them"
        )
    return rows


def _as_arrow(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, str | os.PathLike):
        return _from_file(Path(data))
    if hasattr(data, "__arrow_c_stream__"):
        try:
            return pa.table(data)
        except (pa.ArrowException, TypeError, ValueError) as error:
            reason = str(error.args[0] if error.args else error)[:200]
            raise InvalidInputError(
                f"this {type(data).__name__} cannot be turned into an Arrow table: {reason}"
            ) from error
    raise InvalidInputError(
        f"data of type {type(data).__name__} cannot be registered; give an Arrow table, a data frame, or a Parquet or CSV file"
    )


def _from_file(path: Path) -> pa.Table:
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"there is no file {path}"
        raise NotFoundError(f"{what}; give a Parquet or CSV file")
    is_csv = ".csv" in [suffix.lower() for suffix in path.suffixes]
    try:
        return _read_csv(path) if is_csv else pyarrow.parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        what = "CSV" if is_csv else "Parquet"
        raise InvalidInputError(
            f"{path} cannot be read as {what}: {error}", kind=ErrorKind.UNREADABLE_FILE
        ) from error


def _read_csv(path: Path) -> pa.Table:
    types = {name: pa.string() for name in TEXTS}
    return pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=types))
