"""Parameters of a statement: values in place of ``$name``, as the literals that one would write. Pure but for DuckDB's tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np

from tensorbank.arguments import instance
from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.sql.quoting import literal

__all__ = ["bound"]

_NAME = re.compile(r"\w+")


def bound(sql: str, values: Mapping[str, Any]) -> str:
    """Return a statement with its parameters replaced by their values.

    A list stands for its members after ``IN``, and for a list elsewhere. A time without a zone is of UTC.

    Raises
    ------
    InvalidInputError
        A parameter has no value, a value has no parameter, or SQL has no literal for it.
    """
    instance("the statement", sql, str, "give SQL as a text")
    if sql.encode("utf-8", "replace").decode() != sql:
        raise InvalidInputError(f"the statement {sql[:80]!r} is no valid Unicode", kind=ErrorKind.SQL)
    if not values and "$" not in sql:
        return sql
    text = sql.encode()
    starts = [start for start, _ in duckdb.tokenize(sql)]  # in bytes
    tokens = [text[a:b].decode() for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    known = _by_lower_case(values)
    made: list[str] = [text[: starts[0]].decode()] if starts else [sql]
    used = set()
    skip = False
    for place, token in enumerate(tokens):
        if skip:
            skip = False
            continue
        name = _NAME.match(tokens[place + 1]) if token == "$" and place + 1 < len(tokens) else None
        if name is None:
            made.append(token)
            continue
        if name[0].lower() not in known:
            give = name[0] if name[0].isidentifier() else "c"
            hint = (
                nearest(name[0], values) or f" Give it by name, such as bank.sql('... ${give}', {give}=...)."
            )
            raise InvalidInputError(
                f"the statement's parameter ${name[0]} has no value.{hint}", kind=ErrorKind.PARAMETER
            )
        used.add(name[0].lower())
        before = [t.strip().lower() for t in tokens[max(0, place - 2) : place]]
        made.append(_literal(name[0], known[name[0].lower()], before))
        made.append(tokens[place + 1][name.end() :])
        skip = True
    if unused := [name for name in values if name.lower() not in used]:
        raise InvalidInputError(
            f"the statement has no parameter ${unused[0]}; write ${unused[0]} where its value is to stand",
            kind=ErrorKind.PARAMETER,
        )
    return "".join(made)


def _by_lower_case(values: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for name, value in values.items():
        if name.lower() in known:
            raise InvalidInputError(
                f"parameter ${name} is given twice, since names in SQL ignore case", kind=ErrorKind.PARAMETER
            )
        known[name.lower()] = value
    return known


def _literal(name: str, value: Any, before: list[str]) -> str:
    """Return a value as SQL; ``before`` are the last two words in front of it."""
    value = _as_python(value)
    if not isinstance(value, list | tuple | set | frozenset):
        return f" {_scalar(name, value)} "
    members = [
        _scalar(name, _as_python(v))
        for v in (sorted(value, key=repr) if isinstance(value, set | frozenset) else value)
    ]
    listed = ", ".join(members)
    if before[-1:] == ["in"]:
        return f" ({listed or 'SELECT NULL WHERE false'}) "
    if before == ["in", "("]:
        return f" {listed or 'SELECT NULL WHERE false'} "
    return f" [{listed}] "


def _as_python(value: Any) -> Any:
    """Return a value of numpy, pandas or Arrow as Python's own; times to the microsecond, as SQL has them."""
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "Mm":
        unit = np.datetime_data(str(value.dtype))[0]
        if unit in ("ns", "ps", "fs", "as"):  # which tolist() would give as whole numbers
            value = value.astype(f"{value.dtype.kind}8[us]")
    for convert in ("tolist", "to_pylist", "as_py"):
        if hasattr(value, convert):
            return getattr(value, convert)()
    return value


def _scalar(name: str, value: Any) -> str:
    if value is None or type(value).__name__ in ("NaTType", "NAType"):  # of pandas
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, Decimal) and value.is_finite()):
        text = f"{value:f}" if isinstance(value, Decimal) else str(value)
        return f"({text})" if value < 0 else text
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, datetime):
        zoned = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return f"TIMESTAMPTZ '{zoned.isoformat(' ')}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, timedelta):
        return f"to_microseconds({value // timedelta(microseconds=1)})"
    if isinstance(value, str) and "\0" not in value and value.encode("utf-8", "replace").decode() == value:
        return literal(value)
    raise InvalidInputError(
        f"parameter ${name} is {type(value).__name__} {str(value)[:80]!r}; "
        "a number, text, bool, date, time, None or a list of them is possible",
        kind=ErrorKind.PARAMETER,
    )


def _float(value: float) -> str:
    """Return the literal of a DOUBLE: without an exponent SQL would take it for a decimal number."""
    if not math.isfinite(value):
        return f"'{value}'::DOUBLE"
    text = repr(value) if "e" in repr(value) else f"{value!r}e0"
    return f"({text})" if text.startswith("-") else text
