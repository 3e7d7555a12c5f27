"""The difference of two versions of a table: samples, statistics, modalities and columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow import csv

from tensorbank.catalog import Catalog, TableVersion
from tensorbank.errors import InvalidInputError
from tensorbank.planning import Planner
from tensorbank.sql import quoted
from tensorbank.statistics import Statistics

__all__ = ["Difference", "Moved", "changed_samples", "diff"]

_IN_BOTH = "a.key IS NOT NULL AND b.key IS NOT NULL"
ROUNDING = 1e-12
"""The relative difference up to which two means are the same."""
_STATED = ("count", "valid", "min", "max", "mean")


@dataclass(frozen=True, slots=True)
class Moved:
    """The statistics of one band, or of one class, that are others in two versions.

    ``before`` and ``after`` have ``n_samples``, and of a band ``count``, ``valid``, ``min``, ``max`` and ``mean``, of a class its
    ``share`` of all pixels. They are empty where the version lacks the modality.
    """

    modality: str
    name: str
    before: Mapping[str, float | None]
    after: Mapping[str, float | None]


@dataclass(frozen=True)
class Difference:
    """The difference of version ``b`` of a table from version ``a``.

    Parameters
    ----------
    n_added, n_removed, n_changed
        Samples that only ``b`` has, that only ``a`` has, and whose tensors come from another member or file.
    changed
        Changed samples by modality. A sample that has a modality in one of the versions alone is among them.
    values_changed
        Samples in both versions with another value of a column that was added later, by its name.
    statistics
        What moved.
    """

    table: str
    a: int
    b: int
    n_added: int
    n_removed: int
    n_changed: int
    changed: Mapping[str, int] = field(default_factory=dict)
    modalities_added: tuple[str, ...] = ()
    modalities_dropped: tuple[str, ...] = ()
    columns_added: tuple[str, ...] = ()
    columns_dropped: tuple[str, ...] = ()
    values_changed: Mapping[str, int] = field(default_factory=dict)
    statistics: tuple[Moved, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True if both versions hold the same."""
        return not (
            self.n_added
            or self.n_removed
            or self.n_changed
            or self.modalities_added
            or self.modalities_dropped
            or self.columns_added
            or self.columns_dropped
            or any(self.values_changed.values())
        )


def diff(catalog: Catalog, table: str, a: int, b: int) -> Difference:
    """Return what differs in version ``b`` of a table from version ``a``. Samples are compared by SQL, and no pixel is read.

    Raises
    ------
    NotFoundError
        There is no such table or version.
    """
    before, after = catalog.version(table, a), catalog.version(table, b)
    both = [name for name in before.schema.names if name in after.schema.names]
    columns = [name for name in before.columns if name in after.columns]
    counts = [f"count_if({_is_changed(name)})" for name in both]
    values = [f"count_if({_IN_BOTH} AND a.{quoted(n)} IS DISTINCT FROM b.{quoted(n)})" for n in columns]
    sums = ["count_if(a.key IS NULL)", "count_if(b.key IS NULL)", f"count_if({_any_changed(both)})"]
    named = [f"{sql} AS c{i}" for i, sql in enumerate([*sums, *counts, *values])]
    (row,) = Planner(catalog).arrow(f"SELECT {', '.join(named)} {_pairs(table, a, b)}").to_pylist()
    found = [int(n) for n in row.values()]
    return Difference(
        table,
        a,
        b,
        n_added=found[0],
        n_removed=found[1],
        n_changed=found[2],
        changed={n: c for n, c in zip(both, found[3 : 3 + len(both)], strict=True) if c},
        modalities_added=_missing(after.schema.names, before.schema.names),
        modalities_dropped=_missing(before.schema.names, after.schema.names),
        columns_added=_missing(after.columns, before.columns),
        columns_dropped=_missing(before.columns, after.columns),
        values_changed={n: c for n, c in zip(columns, found[3 + len(both) :], strict=True) if c},
        statistics=tuple(_moved(*(_described(catalog, version) for version in (before, after)))),
    )


def changed_samples(catalog: Catalog, table: str, a: int, b: int, path: Path) -> int:
    """Write the samples that differ in two versions to a file, and return their number.

    The file is Parquet or CSV as its name says, and has the columns ``change`` (``added``, ``removed`` or ``changed``),
    ``split``, ``sample_id``, ``part_before``, ``part_after``, and ``modalities`` that changed, separated by commas.

    Raises
    ------
    InvalidInputError
        The name of the file ends with neither ``.parquet`` nor ``.csv``.
    NotFoundError
        There is no such table or version.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise InvalidInputError(
            f"{path} is to hold ids as Parquet or CSV; end its name with .parquet or .csv"
        )
    before, after = catalog.version(table, a), catalog.version(table, b)
    both = [name for name in before.schema.names if name in after.schema.names]
    listed = [f"CASE WHEN {_is_changed(name)} THEN {_text(name)} END" for name in both]
    rows = Planner(catalog).arrow(
        "SELECT CASE WHEN a.key IS NULL THEN 'added' WHEN b.key IS NULL THEN 'removed' ELSE 'changed' END AS change, "
        "coalesce(a.split, b.split) AS split, coalesce(a.sample_id, b.sample_id) AS sample_id, "
        f"a.part AS part_before, b.part AS part_after, concat_ws(',', {', '.join(listed or ['NULL'])}) AS modalities "
        f"{_pairs(table, a, b)} WHERE a.key IS NULL OR b.key IS NULL OR ({_any_changed(both)}) ORDER BY 1, 2, 3"
    )
    if path.suffix == ".csv":
        csv.write_csv(rows, path)
    else:
        pq.write_table(rows, path)
    return int(rows.num_rows)


def _pairs(table: str, a: int, b: int) -> str:
    name = quoted(table)
    return f"FROM {name} AS a AT (VERSION => {a}) FULL JOIN {name} AS b AT (VERSION => {b}) ON a.key = b.key"


def _is_changed(name: str) -> str:
    """Return SQL that tells whether a sample of both versions has another tensor of a modality in the second.

    It has if it comes from another member or file, or takes other bytes. If only its place differs, it was moved by maintenance;
    unless the ETag of its file is not known, which says nothing then.
    """
    member = ("ref.length", "source.path", 'source."offset"', "source.length", "source.etag")
    here, there = (f"{side}.{quoted(name)}" for side in "ab")
    other = [f"{here}.{f} IS DISTINCT FROM {there}.{f}" for f in member]
    place = ("ref.key", 'ref."offset"')
    moved = " OR ".join(f"{here}.{f} IS DISTINCT FROM {there}.{f}" for f in place)
    return f"{_IN_BOTH} AND ({' OR '.join(other)} OR ({here}.source.etag IS NULL AND ({moved})))"


def _any_changed(names: list[str]) -> str:
    return " OR ".join(f"({_is_changed(name)})" for name in names) or "false"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _missing(names: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)


def _described(catalog: Catalog, version: TableVersion) -> dict[str, Statistics]:
    return Planner(catalog, {version.table: version.version}).describe(version.table)


def _moved(before: Mapping[str, Statistics], after: Mapping[str, Statistics]) -> Iterator[Moved]:
    """Yield the statistics that differ, by modality and band or class."""
    for modality in dict.fromkeys((*before, *after)):
        old, new = (_stated(found.get(modality)) for found in (before, after))
        for name in dict.fromkeys((*old, *new)):
            was, now = old.get(name, {}), new.get(name, {})
            if was.keys() != now.keys() or not all(_is_like(was[key], now[key]) for key in was):
                yield Moved(modality, name, was, now)


def _is_like(a: float | None, b: float | None) -> bool:
    """Tell whether two numbers are the same but for rounding, which depends on the order of samples."""
    return a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=ROUNDING))


def _stated(found: Statistics | None) -> dict[str, dict[str, Any]]:
    """Return what statistics say, by band or class."""
    if found is None:
        return {}
    n = {"n_samples": found.n_samples}
    if found.shares is not None:
        return {
            name: n | {"share": share if math.isfinite(share) else None}
            for name, share in found.shares.items()
        }
    return {band.name: n | {name: getattr(band, name) for name in _STATED} for band in found.bands}
