"""DuckDB's errors as sentences of ours: what was wrong, and the nearest valid names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import duckdb

from tensorbank.errors import ErrorKind, IntegrityError, InvalidInputError, nearest
from tensorbank.schema import Modality

__all__ = ["Translated", "tensor_type"]

_MISTAKES = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.ParserException,
    duckdb.OutOfMemoryException,
)


_OWN_FUNCTION = re.compile(r"Macro (\w+)\(\) does not support|Function with name (\w+) does not exist")
_USAGE = {
    "bands": "bands(S2L2A, ['B04', 'B08'])",
    "hilbert_cell": "hilbert_cell(hilbert, level)",
    "nd": "pixels_any(nd(S2L2A.B08, S2L2A.B11), '> 0.2'), inside of a predicate of pixels",
    "split_fraction": "split_fraction(cell_id, seed)",
    "within_bbox": "within_bbox(lon, lat, west, south, east, north)",
}
"""Examples of the functions that TensorBank adds, of which DuckDB tells little."""
_OF_PAGES = ("bit width", "ut of buffer", "TProtocol", "know what type", "ecompress", "orrupt")
"""The words of reports about the inside of a Parquet file, which do not name it."""


class Translated:
    """The DuckDB's errors as sentences of ours, with the nearest valid names.

    Parameters
    ----------
    tables
        Gives the names of the bank's tables.
    paths
        Index files that the statement reads.
    slip
        Finds which name is wrong, if DuckDB's report is about one.
    """

    def __init__(
        self,
        tables: Callable[[], Sequence[str]],
        paths: Sequence[str],
        slip: Callable[[str], InvalidInputError | None] = lambda _: None,
    ) -> None:
        self.tables = tables
        self.paths = paths
        self.slip = slip

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, RecursionError):
            raise InvalidInputError("the statement is nested too deeply", kind=ErrorKind.SQL) from error
        if not isinstance(error, duckdb.Error):
            return
        text = _sentence(str(error))
        if not isinstance(error, _MISTAKES) and (path := _unreadable(self.paths, str(error))):
            raise IntegrityError(f"index file {path} cannot be read: {text}") from error
        if isinstance(error, duckdb.BinderException | duckdb.ConversionException):
            slip = self.slip(str(error))
            if slip is not None:
                raise slip from error
        called = _OWN_FUNCTION.search(text)
        if called and (usage := _USAGE.get((called[1] or called[2]).lower())):
            raise InvalidInputError(
                f"{called[1] or called[2]}() is called as {usage}", kind=ErrorKind.SQL
            ) from error
        missing = re.search(r"Table with name (\S+) does not exist", text)
        if missing:
            name = missing[1].strip('"')
            hint = nearest(name, self.tables()) or " No table of this bank is known."
            raise InvalidInputError(
                f"there is no table {name!r}.{hint}", kind=ErrorKind.UNKNOWN_TABLE
            ) from error
        raise InvalidInputError(f"the SQL cannot be answered: {text}", kind=ErrorKind.SQL) from error


def tensor_type(modality: Modality | None, kind: str) -> str:
    """A column's type as people read it: of a handle, that of its tensors."""
    if not kind.startswith('STRUCT("ref"'):
        return kind
    if modality is None:
        return "TENSOR"
    return f"TENSOR {modality.dtype}[{', '.join(map(str, modality.sample_shape))}]"


def _unreadable(paths: Sequence[str], report: str) -> str | None:
    """The index file that an error is about: the one it names, else the first that cannot be read."""
    named = next((p for p in paths if p in report), None)
    if named is not None:
        return named
    with duckdb.connect(":memory:") as con:  # the other connection may not survive the error
        checks = ["SELECT count(*) FROM parquet_metadata(?)"]
        if any(word in report for word in _OF_PAGES):
            checks.append("SELECT max(hash(x)) FROM read_parquet(?) AS x")
        for check in checks:
            for path in paths:
                try:
                    con.execute(check, [path]).fetchall()
                except duckdb.Error:
                    return path
    return None


def _sentence(text: str) -> str:
    """Return one sentence from DuckDB's report: what was wrong, and its candidates."""
    text = _without_handle_types(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    hints = [line for line in lines[1:] if line.startswith(("Candidate", "Did you mean"))]
    return " ".join([lines[0].rstrip("."), *hints])[:400]


def _without_handle_types(text: str) -> str:
    """The report with the long type of a handle column called a tensor."""
    while (start := text.find('STRUCT("ref"')) >= 0:
        depth, end = 0, start
        for end in range(text.index("(", start), len(text)):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth == 0:
                break
        text = f"{text[:start]}TENSOR{text[end + 1 :]}"
    return text
