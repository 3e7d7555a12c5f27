"""Write what commands answer: lines, tables, and rows in several formats."""

from __future__ import annotations

import enum
import json
import math
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

__all__ = ["Format", "counted", "fields", "print_table", "say", "size", "write_rows"]


class Format(enum.StrEnum):
    """The formats in which ``query`` prints rows."""

    table = "table"
    json = "json"
    csv = "csv"
    arrow = "arrow"


def say(text: str) -> None:
    """Print one line on standard output, as it is."""
    sys.stdout.write(text + "\n")


def write_rows(rows: Any, form: Format) -> None:
    """Write an Arrow table on standard output."""
    import pyarrow as pa
    from pyarrow import csv

    if form is Format.arrow:
        with pa.ipc.new_stream(sys.stdout.buffer, rows.schema) as sink:
            sink.write_table(rows)
    elif form is Format.json:
        for record in rows.to_pylist():
            say(json.dumps(_finite(record), default=_plain, allow_nan=False))
    elif form is Format.csv:
        flat = pa.table({n: pa.array(_texts(rows[n]), pa.string()) for n in rows.column_names})
        csv.write_csv(flat, sys.stdout.buffer)
    elif sys.stdout.isatty():
        print_table(rows.column_names, [[_cell(v) for v in record.values()] for record in rows.to_pylist()])
        say(counted(rows.num_rows, "row"))
    else:
        columns = [_texts(rows[n]) for n in rows.column_names]
        print_table(rows.column_names, list(zip(*columns, strict=True)))
        say(counted(rows.num_rows, "row"))


def _texts(column: Any) -> list[str]:
    """Return the values of a column for programs: the shortest digits that read back equal, in the column's own precision."""
    import pyarrow as pa

    if pa.types.is_floating(column.type):
        return ["" if v is None else v for v in column.cast(pa.string()).to_pylist()]
    return [_cell(v, digits=None) for v in column.to_pylist()]


def _cell(value: object, digits: int | None = 6) -> str:
    """Return a value as text: an address for a tensor, a float with so many digits, or as many as it takes."""
    if value is None:
        return ""
    if isinstance(value, dict) and set(value) == {"key", "offset", "length"}:
        return f"{value['key']} [{value['offset']}, {value['offset'] + value['length']})"
    if isinstance(value, float):
        return repr(value) if digits is None else f"{value:.{digits}g}"
    if isinstance(value, bytes):
        return value.hex()
    return json.dumps(value, default=_plain) if isinstance(value, dict | list) else str(value)


def _plain(value: object) -> str | float:
    if isinstance(value, Decimal):  # JSON's readers take a number for a float64
        return float(value) if Decimal(float(value)) == value else str(value)
    return value.hex() if isinstance(value, bytes) else str(value)


def _finite(value: Any) -> Any:
    """Return a value with null for NaN and the infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, not those of what they hold."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 row`` or ``1,632 blocks``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def size(n_bytes: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.2f} {unit}"
    return f"{n_bytes / 1e3:,.1f} kB"


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on the terminal, or tab-separated lines where there is none."""
    if not sys.stdout.isatty():
        for row in (header, *rows):
            say("\t".join(map(str, row)))
        return
    grid = Grid(*header)
    for row in rows:
        grid.add_row(*map(str, row))
    Console().print(grid)
