"""Bounds of the columns of an index file, as Delta's add-actions state them.

Format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics. Only bounds that are sound are stated: a
text longer than :data:`MAX_TEXT` has a lower bound and no upper one, numbers that are not finite and types without order have
none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["bounds_of_file", "statistics_json", "statistics_of_column"]

MAX_TEXT = 256
Bounds = dict[str, Any]


def bounds_of_file(metadata: pq.FileMetaData, schema: pa.Schema) -> tuple[Bounds, Bounds]:
    """Return the smallest and largest values of the columns of a file, nested as its structs are.

    Parameters
    ----------
    metadata
        Footer of a file that was just written; those of others may be inconsistent, which ends the process.
    """
    low: Bounds = {}
    high: Bounds = {}
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    for number, path in enumerate(_leaves(schema)):
        if path is None:
            continue
        columns = [group.column(number) for group in groups]  # to be kept: statistics are views of them
        found = [column.statistics for column in columns]
        known = [s for s in found if s is not None and s.has_min_max]
        if not known or any(s is None or (not s.has_min_max and s.num_values) for s in found):
            continue  # nothing but nulls, or values without a bound
        _put(low, path, min(s.min for s in known))
        _put(high, path, max(s.max for s in known))
    return low, high


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, ...] | None]:
    """Yield the path of each column of a Parquet file, None for one within a list."""
    for field in schema:
        yield from _of_field(field, (field.name,))


def _of_field(field: pa.Field, path: tuple[str, ...]) -> Iterator[tuple[str, ...] | None]:
    if pa.types.is_struct(field.type):
        for child in field.type:
            yield from _of_field(child, (*path, child.name))
    elif (
        pa.types.is_list(field.type)
        or pa.types.is_large_list(field.type)
        or pa.types.is_fixed_size_list(field.type)
    ):
        for _ in _of_field(field.type.value_field, path):
            yield None
    else:
        yield path


def _put(bounds: Bounds, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        bounds = bounds.setdefault(name, {})
    bounds[path[-1]] = value


def statistics_json(n_rows: int, low: Mapping[str, Any], high: Mapping[str, Any]) -> str:
    """Return the statistics of an add-action as its JSON text."""
    found = {
        "numRecords": n_rows,
        "minValues": _plain(low, upper=False),
        "maxValues": _plain(high, upper=True),
    }
    return json.dumps(found, separators=(",", ":"))


def statistics_of_column(statistics: str, path: Sequence[str]) -> str:
    """Return the statistics of an add-action, as JSON, without the bounds of all columns but one."""
    found = json.loads(statistics)
    for side in ("minValues", "maxValues"):
        value: Any = found[side]
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        for name in reversed(path if value is not None else ()):
            value = {name: value}
        found[side] = value or {}
    return json.dumps(found, separators=(",", ":"))


def _plain(bounds: Mapping[str, Any], *, upper: bool) -> dict[str, Any]:
    plain = {}
    for name, value in bounds.items():
        stated = _plain(value, upper=upper) if isinstance(value, Mapping) else _stated(value, upper=upper)
        if stated is not None and stated != {}:
            plain[name] = stated
    return plain


def _stated(value: Any, *, upper: bool) -> Any:
    """Return a bound as JSON has it, None for one that cannot be stated."""
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else None if upper else value[:MAX_TEXT]
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        return utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, date):
        return value.isoformat()
    return None
