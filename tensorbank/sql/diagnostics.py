"""DuckDB's errors in the words of TensorBank: what was wrong, and the nearest valid names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import duckdb

from tensorbank.errors import ErrorKind, IntegrityError, InvalidInputError, TensorBankError, nearest
from tensorbank.schema import Modality

__all__ = ["tensor_type", "translate", "translated"]

_MISTAKES = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.ParserException,
    duckdb.OutOfMemoryException,
)
"""The classes of errors that are about the statement, or about the limits it runs under, and never about a file."""
_OF_READING = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException)

_OWN_FUNCTION = re.compile(r"Macro (\w+)\(\) does not support|Function with name (\w+) does not exist")
_USAGE = {
    "bands": "bands(S2L2A, ['B04', 'B08'])",
    "hilbert_cell": "hilbert_cell(hilbert, level)",
    "nd": "pixels_any(nd(S2L2A.B08, S2L2A.B11), '> 0.2'), inside of a predicate of pixels",
    "split_fraction": "split_fraction(cell_id, seed)",
    "within_bbox": "within_bbox(lon, lat, west, south, east, north)",
}
"""Examples of the functions that TensorBank adds, of which DuckDB tells little."""


def translate(
    error: duckdb.Error | RecursionError, tables: Callable[[], Sequence[str]], paths: Sequence[str]
) -> TensorBankError:
    """Return the error to raise for one that DuckDB raised: what was wrong, the nearest valid names, or the damaged index file.

    Parameters
    ----------
    tables
        Gives the names of the bank's tables.
    paths
        Index files that the statement reads.
    """
    if isinstance(error, RecursionError):
        return InvalidInputError("the statement is nested too deeply", kind=ErrorKind.SQL)
    text = _sentence(str(error))
    if not isinstance(error, _MISTAKES) and (path := _unreadable(error, paths)):
        return IntegrityError(f"index file {path} cannot be read: {text}")
    called = _OWN_FUNCTION.search(text)
    if called and (usage := _USAGE.get((called[1] or called[2]).lower())):
        return InvalidInputError(f"{called[1] or called[2]}() is called as {usage}", kind=ErrorKind.SQL)
    missing = re.search(r"Table with name (\S+) does not exist", text)
    if missing:
        name = missing[1].strip('"')
        hint = nearest(name, tables()) or " No table of this bank is known."
        return InvalidInputError(f"there is no table {name!r}.{hint}", kind=ErrorKind.UNKNOWN_TABLE)
    return InvalidInputError(f"the SQL cannot be answered: {text}", kind=ErrorKind.SQL)


@contextmanager
def translated(tables: Callable[[], Sequence[str]], paths: Sequence[str] = ()) -> Iterator[None]:
    """Raise the errors of DuckDB as :func:`translate` has them; ``paths`` may grow meanwhile."""
    try:
        yield
    except (duckdb.Error, RecursionError) as error:
        raise translate(error, tables, paths) from error


def tensor_type(modality: Modality | None, kind: str) -> str:
    """Return a column's type as people read it: of a handle, that of its tensors; ``kind`` is DuckDB's name of the type."""
    if not kind.startswith('STRUCT("ref"'):
        return kind
    if modality is None:
        return "TENSOR"
    return f"TENSOR {modality.dtype}[{', '.join(map(str, modality.sample_shape))}]"


def _unreadable(error: duckdb.Error, paths: Sequence[str]) -> str | None:
    """Return the index file that an error is about: the one that it names, else the first whose footer cannot be read.

    Of damage inside a page DuckDB often names no file, and has no class of error either, or one of reading. Then all pages are
    read: that takes long, but nobody waits for an answer any more. Files that are read through us were compared with their
    checksums as they were read.
    """
    report = str(error)
    named = next((p for p in paths if p in report), None)
    if named is not None:
        return named
    checks = ["SELECT count(*) FROM parquet_metadata(?)"]
    if type(error) is duckdb.Error or isinstance(error, _OF_READING):
        checks.append("SELECT max(hash(x)) FROM read_parquet(?) AS x")
    with duckdb.connect(":memory:") as con:  # the other connection may not survive the error
        for check in checks:
            for path in (path for path in paths if "://" not in path):
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
    """Return the report with the long type of a handle column called a tensor."""
    while (start := text.find('STRUCT("ref"')) >= 0:
        depth, end = 0, start
        for end in range(text.index("(", start), len(text)):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth == 0:
                break
        text = f"{text[:start]}TENSOR{text[end + 1 :]}"
    return text
