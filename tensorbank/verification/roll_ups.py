"""Checks of the rows of shards against those of samples: numbers, bounds and moments merge exactly, or to float64 rounding.

Roll-ups count the rows of deleted samples until a compaction makes them anew. A shard of a part with deletions is therefore
compared with the rows that count by what must hold either way: it has at least as many, and its bounds are no narrower.
Histograms follow from pixels alone, and are looked at with the blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.layout import is_shard_key, place_of_key
from tensorbank.maintenance import RollUps
from tensorbank.schema import TableSchema
from tensorbank.verification.findings import Finding, FindingKind
from tensorbank.verification.sample_rows import batches, pairs_of, whole

__all__ = ["roll_up_flaws"]

RELATIVE = 1e-6
"""The distance at most that means, shares and sums of squares may be from the merged ones, relative to the range of the values
(and its square)."""
COUNTS = ("n_samples", "length", "count", "valid")
LOW = ("min", "min_mean", "min_lon", "min_lat", "min_cloud_cover", "west", "south", "first_time")
HIGH = ("max", "max_mean", "max_lon", "max_lat", "max_cloud_cover", "east", "north", "last_time")

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Flaw:
    """A number of one row of shards that is not what the samples say; ``row`` is the place of the row."""

    row: int
    path: str
    said: float
    wanted: float


def roll_up_flaws(
    schema: TableSchema,
    shards: Sequence[str],
    samples: Sequence[str],
    gone: pa.Table | None,
    used: Collection[str],
    folder: str,
) -> Iterator[Finding]:
    """Yield what is wrong in the rows of shards.

    Parameters
    ----------
    shards, samples
        Local paths of the files of the levels.
    gone
        Table of ``key`` and ``part`` of rows that do not count.
    used
        Keys of the shards that rows of samples lead to.
    """
    tables = [pa.concat_tables(batches(path)) for path in shards]
    rows = pa.concat_tables(tables, promote_options="permissive").combine_chunks() if tables else None
    if rows is None or not rows.num_rows:
        if used:
            reason = f"none of {len(used)} shards has a row"
            yield Finding(FindingKind.MISSING_ROLL_UP, folder, reason)
        return
    parts: dict[str, int] = {}
    dead = np.zeros(0, np.uint64) if gone is None else np.unique(pairs_of(gone, parts))
    lost = frozenset(() if gone is None else gone["part"].to_pylist())
    rolled = RollUps(rows, schema, frozenset(rows["part"].to_pylist()))
    for path in samples:
        for batch in batches(path, n_rows=8192):
            if not len(dead):
                rolled.add(batch)
                continue
            counts = as_arrow(~np.isin(pairs_of(batch, parts), dead))
            rolled.add(batch.filter(counts))
    wanted = rolled.rows(keep_empty=True).combine_chunks()
    placeless = _placeless(schema, rows)
    loose = np.array([part in lost for part in rows["part"].to_pylist()], np.bool_) | placeless
    yield from _strays(schema, rows, as_numpy(wanted["n_samples"], 0) + placeless, lost, used, folder)
    flaws: dict[int, list[_Flaw]] = {}
    for field in wanted.schema:
        if field.name in ("part", "shard", "seasons"):
            continue
        said = rows.schema.get_field_index(field.name)
        if said < 0:
            continue
        for flaw in _compare(field.name, whole(rows.column(said)), whole(wanted[field.name]), loose):
            flaws.setdefault(flaw.row, []).append(flaw)
    yield from map(partial(_told, rows, schema, folder), flaws.values())
    yield from _wrong_seasons(rows, wanted, loose, folder)
    yield from _misplaced(schema, rows, folder)


def _wrong_seasons(
    rows: pa.Table, wanted: pa.Table, loose: npt.NDArray[np.bool_], folder: str
) -> Iterator[Finding]:
    """Yield a finding about each row that lists other seasons than its samples have."""
    both = zip(rows["seasons"].to_pylist(), wanted["seasons"].to_pylist(), loose.tolist(), strict=True)
    for row, (said, seasons, is_loose) in enumerate(both):
        if not (set(said or ()) >= set(seasons) if is_loose else sorted(said or ()) == seasons):
            place = (str(rows["part"][row]), rows["shard"][row].as_py())
            reason = f"the row of part and shard {place[0]} {place[1]} lists the seasons {said}, its samples have {seasons}"
            yield Finding(FindingKind.WRONG_ROLL_UP, folder, reason, level="shards", shards=(place,))


def _misplaced(schema: TableSchema, rows: pa.Table, folder: str) -> Iterator[Finding]:
    """Yield a finding about each row that leads to a shard of another number than its own."""
    places = list(zip(rows["part"].to_pylist(), rows["shard"].to_pylist(), strict=True))
    for modality in schema:
        if rows.schema.get_field_index(modality.name) < 0:
            continue
        for place, key in zip(places, whole(rows[modality.name]).field("key").to_pylist(), strict=True):
            if is_shard_key(key) and place_of_key(key)[1] != place[1]:
                reason = f"the row of part and shard {place[0]} {place[1]} leads to {key}"
                yield Finding(
                    FindingKind.WRONG_ROLL_UP, folder, reason, modality.name, level="shards", shards=(place,)
                )


def _strays(
    schema: TableSchema,
    rows: pa.Table,
    n_samples: npt.NDArray[np.int64],
    lost: Collection[str],
    used: Collection[str],
    folder: str,
) -> Iterator[Finding]:
    """Yield findings about rows of no sample, rows that are there twice, and shards without a row."""
    names = list(zip(rows["part"].to_pylist(), rows["shard"].to_pylist(), strict=True))
    times = Counter(names)
    for part, shard in sorted(name for name, n in times.items() if n > 1):
        reason = f"shard {shard} of part {part} has {times[part, shard]} rows"
        yield Finding(FindingKind.STRAY_ROLL_UP, folder, reason)
    for (part, shard), n in zip(names, n_samples.tolist(), strict=True):
        if not n and part not in lost and times[part, shard] == 1:
            reason = f"the row of shard {shard} of part {part} is of no sample"
            yield Finding(FindingKind.STRAY_ROLL_UP, folder, reason, level="shards", shards=((part, shard),))
    known: set[str] = set()
    for modality in schema:
        if rows.schema.get_field_index(modality.name) >= 0:
            known.update(k for k in whole(rows[modality.name]).field("key").to_pylist() if k)
    for key in sorted({*used} - known):
        yield Finding(FindingKind.MISSING_ROLL_UP, folder, f"shard {key} has no row")


def _placeless(schema: TableSchema, rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Tell which rows lead to no shard, (n,), since the modalities of their samples were dropped: nothing compares with them."""
    found = np.ones(rows.num_rows, np.bool_)
    for modality in schema:
        if rows.schema.get_field_index(modality.name) >= 0:
            found &= as_numpy(whole(rows[modality.name]).is_null())
    return found


def _told(rows: pa.Table, schema: TableSchema, folder: str, flaws: list[_Flaw]) -> Finding:
    first = flaws[0]
    place = (str(rows["part"][first.row]), rows["shard"][first.row].as_py())
    name = f"{place[0]} {place[1]}"
    more = f", and {len(flaws) - 1} more" if len(flaws) > 1 else ""
    modality = first.path.split(".")[0]
    reason = f"the row of part and shard {name} says {first.path} {first.said:g}, its samples {first.wanted:g}{more}"
    of = modality if modality in schema else ""
    return Finding(FindingKind.WRONG_ROLL_UP, folder, reason, of, level="shards", shards=(place,))


def _compare(path: str, said: pa.Array, wanted: pa.Array, loose: npt.NDArray[np.bool_]) -> Iterator[_Flaw]:
    """Yield where a column, or a field of it, differs from what it should be."""
    if not pa.types.is_struct(wanted.type):
        if not pa.types.is_nested(wanted.type) and not pa.types.is_string(wanted.type):
            yield from _differences(path, said, wanted, loose, np.zeros(len(said)))
        return
    mine = dict(zip([f.name for f in said.type], said.flatten(), strict=True))
    theirs = dict(zip([f.name for f in wanted.type], wanted.flatten(), strict=True))
    tolerances = _tolerances(theirs)
    for name, value in theirs.items():
        if name not in mine:
            continue
        if pa.types.is_floating(value.type) and (name in tolerances or ".share." in f"{path}."):
            tolerance = tolerances.get(name, np.full(len(said), RELATIVE))
            yield from _differences(f"{path}.{name}", mine[name], value, loose, tolerance)
        else:
            yield from _compare(f"{path}.{name}", mine[name], value, loose)


def _tolerances(fields: Mapping[str, pa.Array]) -> dict[str, Float64]:
    """Return how far the mean and the sum of squares of a band may be off, (n,) each."""
    if not {"mean", "m2", "min", "max", "valid"} <= {*fields}:
        return {}
    width = np.nan_to_num(np.abs(_numbers(fields["min"])) + np.abs(_numbers(fields["max"])))
    with np.errstate(over="ignore"):
        return {
            "mean": RELATIVE * width,
            "m2": RELATIVE * width**2 * np.nan_to_num(_numbers(fields["valid"])),
        }


def _differences(
    path: str, said: pa.Array, wanted: pa.Array, loose: npt.NDArray[np.bool_], tolerance: Float64
) -> Iterator[_Flaw]:
    name = path.rpartition(".")[2]
    mine, theirs = _numbers(said), _numbers(wanted)
    unknown = np.isnan(theirs)
    with np.errstate(invalid="ignore"):
        strict = (np.abs(mine - theirs) > tolerance) | (np.isnan(mine) & ~unknown)
        if name in LOW or ".min_share." in path:
            covers = mine > theirs
        elif name in HIGH or ".max_share." in path:
            covers = mine < theirs
        else:
            covers = (mine < theirs) if name in COUNTS else np.zeros(len(mine), np.bool_)
    wrong = np.where(loose, covers, strict) & ~unknown
    for row in np.flatnonzero(wrong).tolist():
        yield _Flaw(row, path, float(mine[row]), float(theirs[row]))


def _numbers(column: pa.Array) -> Float64:
    """Return a column as float64, NaN for null."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if column.null_count == len(column):
        return np.full(len(column), np.nan)
    return as_numpy(column.cast(pa.float64(), safe=False)).astype(np.float64, copy=False)
