"""Roll-ups of shards that lost samples, made anew from the rows of those that are left.

Counts and bounds are exact, mean and sum of squares exact to float64 rounding: they merge as
:meth:`tensorbank.statistics.BandStats.merge` does it. Histograms are not known without the pixels, and become null.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.index_schema import shards_schema
from tensorbank.maintenance.level_columns import conformed
from tensorbank.schema import Modality, TableSchema

__all__ = ["RollUps"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
SIDES = (("west", np.minimum), ("south", np.minimum), ("east", np.maximum), ("north", np.maximum))


class RollUps:
    """The rows of shards of a table, of which those of some parts are made anew.

    Parameters
    ----------
    rows
        All of them, as they are.
    parts
        Parts whose shards lost samples.
    """

    def __init__(self, rows: pa.Table, schema: TableSchema, parts: Collection[str]) -> None:
        self._schema = shards_schema(schema)
        rows = conformed(rows, self._schema)
        lost = pc.is_in(rows["part"], value_set=pa.array(sorted(parts), pa.string()))
        self._kept, self._old = rows.filter(pc.invert(lost)), rows.filter(lost).combine_chunks()
        self._modalities = tuple(schema)
        n = self._old.num_rows
        self._n_samples = np.zeros(n, np.int64)
        self._of_modality: dict[tuple[str, ...], _Sums] = {}
        self._low = {name: np.full(n, np.inf) for name in ("lon", "lat", "cloud_cover", "time")}
        self._high = {name: np.full(n, -np.inf) for name in self._low}
        self._box = {name: np.full(n, np.inf if pick is np.minimum else -np.inf) for name, pick in SIDES}
        self._crossing = np.zeros(n, np.bool_)
        self._seasons: list[set[str]] = [set() for _ in range(n)]

    def add(self, samples: pa.Table) -> None:
        """Add rows of samples that count, once each."""
        if not self._old.num_rows or not samples.num_rows:
            return
        samples = samples.combine_chunks()
        parts = pc.take(self._old["part"], pa.nulls(samples.num_rows, pa.int32()))
        owner = np.full(samples.num_rows, -1, np.int64)
        for modality in self._modalities:
            if samples.schema.get_field_index(modality.name) < 0:
                continue
            column = _whole(samples[modality.name])
            keys = _whole(self._old[modality.name]).field("key")
            found = pc.index_in(column.field("ref").field("key"), value_set=keys, skip_nulls=True)
            shard = as_numpy(found.cast(pa.int64()), -1)
            (places,) = np.nonzero(shard >= 0)
            self._add_modality(modality, column.take(as_arrow(places)), shard[places])
            parts = pc.take(self._old["part"], as_arrow(shard, shard < 0))
            own = as_numpy(pc.fill_null(pc.equal(_whole(parts), _whole(samples["part"])), fill_value=False))
            owner = np.where((owner < 0) & own, shard, owner)
        (places,) = np.nonzero(owner >= 0)
        self._add_facts(samples.take(as_arrow(places)), owner[places])

    def _add_facts(self, samples: pa.Table, shard: Int64) -> None:
        np.add.at(self._n_samples, shard, 1)
        for name in ("lon", "lat", "cloud_cover"):
            _bound(self._low[name], self._high[name], shard, as_numpy(samples[name]))
        times = pc.coalesce(samples["S2_time"], samples["S1_time"])
        micros = as_numpy(pc.fill_null(times.cast(pa.int64()), np.iinfo(np.int64).min)).astype(np.float64)
        micros[as_numpy(times.is_null())] = np.nan
        _bound(self._low["time"], self._high["time"], shard, micros)
        box = _whole(samples["bbox"])
        sides = {name: as_numpy(box.field(name)) for name, _ in SIDES}
        known = ~np.isnan(sides["west"])
        for name, pick in SIDES:
            pick.at(self._box[name], shard[known], sides[name][known])
        self._crossing[shard[known & (sides["west"] > sides["east"])]] = True
        seasons = samples["season"].cast(pa.string()).to_pylist()
        for at, season in {*zip(shard.tolist(), seasons, strict=True)}:
            if season:
                self._seasons[at].add(season)

    def _add_modality(self, modality: Modality, column: pa.StructArray, shard: Int64) -> None:
        n = self._old.num_rows
        of_refs = self._of_modality.setdefault((modality.name,), _Sums(n))
        of_refs.add("n_samples", shard, np.ones(len(shard)))
        of_refs.add("length", shard, as_numpy(column.field("ref").field("length"), 0))
        if modality.categorical:
            count = as_numpy(column.field("count"), 0).astype(np.float64)
            of_refs.add("count", shard, count)
            of_refs.add("valid", shard, as_numpy(column.field("valid"), 0))
            for _, name in modality.classes:
                share = as_numpy(column.field("share").field(name), np.nan)
                known = ~np.isnan(share)
                of_refs.add(f"share {name}", shard[known], (share * count)[known])
                of_refs.bound(name, shard, share)
            return
        for path, band in _bands(modality, column):
            sums = self._of_modality.setdefault(path, _Sums(n))
            valid = as_numpy(band.field("valid"), 0).astype(np.float64)
            mean, std = as_numpy(band.field("mean")), as_numpy(band.field("std"))
            sums.add("count", shard, as_numpy(band.field("count"), 0))
            sums.add("unknown", shard, (valid > 0) & (np.isnan(mean) | np.isnan(std)))
            sums.merge(shard, valid, np.nan_to_num(mean), np.nan_to_num(std))
            sums.bound("value", shard, as_numpy(band.field("min")), as_numpy(band.field("max")))
            sums.bound("mean", shard, mean)

    def rows(self, *, keep_empty: bool = False) -> pa.Table:
        """Return all rows, without those of shards that have no sample any more, unless they are to be kept."""
        n = self._old.num_rows
        moment = self._schema.field("first_time").type
        columns: dict[str, pa.Array] = {
            "part": _whole(self._old["part"]),
            "shard": _whole(self._old["shard"]),
            "n_samples": as_arrow(self._n_samples.astype(np.int32)),
            "seasons": pa.array([sorted(s) for s in self._seasons], pa.list_(pa.string())),
            "bbox": self._boxes(),
        }
        for name in ("lon", "lat", "cloud_cover"):
            columns[f"min_{name}"], columns[f"max_{name}"] = (
                _finite(self._low[name]),
                _finite(self._high[name]),
            )
        for name, side in (("first_time", self._low), ("last_time", self._high)):
            micros = side["time"]
            whole = np.where(np.isfinite(micros), micros, 0).astype(np.int64)
            columns[name] = as_arrow(whole, ~np.isfinite(micros)).cast(moment)
        for modality in self._modalities:
            columns[modality.name] = self._roll_up(modality, self._schema.field(modality.name).type)
        arrays = [columns[f.name] if f.name in columns else pa.nulls(n, f.type) for f in self._schema]
        made = pa.Table.from_arrays(
            [a.cast(f.type) if a.type != f.type else a for a, f in zip(arrays, self._schema, strict=True)],
            schema=self._schema,
        )
        return pa.concat_tables(
            [self._kept, made if keep_empty else made.filter(as_arrow(self._n_samples > 0))]
        )

    def _boxes(self) -> pa.StructArray:
        whole = {"west": -180.0, "east": 180.0}
        sides = {name: self._box[name].copy() for name, _ in SIDES}
        for name, bound in whole.items():
            sides[name][self._crossing] = bound
        kind = self._schema.field("bbox").type
        none = as_arrow(~np.isfinite(sides["west"]))
        return pa.StructArray.from_arrays(
            [_finite(sides[f.name]) for f in kind], fields=list(kind), mask=none
        )

    def _roll_up(self, modality: Modality, kind: pa.StructType) -> pa.StructArray:
        n = self._old.num_rows
        refs = self._of_modality.get((modality.name,), _Sums(n))
        given: dict[str, Any] = {
            "key": _whole(self._old[modality.name]).field("key"),
            "n_samples": as_arrow(refs["n_samples"].astype(np.int32)),
            "length": as_arrow(refs["length"].astype(np.int64)),
        }
        if modality.categorical:
            given |= self._shares(modality, refs)
        elif len(modality.bands) == 1:
            given |= self._band((modality.name, "values"))
        else:
            given |= {name: self._band((modality.name, name)) for name in modality.band_names}
        return _struct(given, kind, n, refs["n_samples"] == 0)

    def _shares(self, modality: Modality, refs: _Sums) -> dict[str, Any]:
        count = refs["count"]
        names = [name for _, name in modality.classes]
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = {name: _finite(refs[f"share {name}"] / count) for name in names}
        return {
            "count": as_arrow(count.astype(np.int64)),
            "valid": as_arrow(refs["valid"].astype(np.int64)),
            "share": shares,
            "min_share": {name: _finite(refs.low(name)) for name in names},
            "max_share": {name: _finite(refs.high(name)) for name in names},
        }

    def _band(self, path: tuple[str, ...]) -> dict[str, Any]:
        sums = self._of_modality.get(path, _Sums(self._old.num_rows))
        valid = sums["valid"]
        unknown = (valid == 0) | (sums["unknown"] > 0)
        mean, m2 = (np.where(unknown, np.nan, sums[name]) for name in ("mean", "m2"))
        return {
            "count": as_arrow(sums["count"].astype(np.int64)),
            "valid": as_arrow(valid.astype(np.int64)),
            "min": _finite(sums.low("value")),
            "max": _finite(sums.high("value")),
            "mean": _finite(mean),
            "min_mean": _finite(sums.low("mean")),
            "max_mean": _finite(sums.high("mean")),
            "m2": _finite(m2),
        }


def _bands(modality: Modality, column: pa.StructArray) -> list[tuple[tuple[str, ...], pa.StructArray]]:
    """Return path and statistics of the bands of a modality."""
    if len(modality.bands) == 1:
        return [((modality.name, "values"), column)]
    return [((modality.name, name), column.field(name)) for name in modality.band_names]


class _Sums:
    """Sums and bounds by shard, (n,) each; zeros and infinities where nothing was added."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._sums: dict[str, Float64] = {}
        self._lows: dict[str, Float64] = {}
        self._highs: dict[str, Float64] = {}

    def __getitem__(self, name: str) -> Float64:
        return self._sums.get(name, np.zeros(self._n))

    def low(self, name: str) -> Float64:
        return self._lows.get(name, np.full(self._n, np.inf))

    def high(self, name: str) -> Float64:
        return self._highs.get(name, np.full(self._n, -np.inf))

    def add(self, name: str, shard: Int64, values: npt.NDArray[Any]) -> None:
        self._sums[name] = self[name] + np.bincount(shard, values.astype(np.float64), self._n)

    def merge(self, shard: Int64, valid: Float64, mean: Float64, std: Float64) -> None:
        """Merge moments of samples, (m,) each, into ``valid``, ``mean`` and ``m2`` of their shards."""
        new = np.bincount(shard, valid, self._n)
        with np.errstate(invalid="ignore", divide="ignore"):
            middle = np.nan_to_num(np.bincount(shard, valid * mean, self._n) / new)
            squares = np.bincount(shard, valid * (std**2 + (mean - middle[shard]) ** 2), self._n)
            total = self["valid"] + new
            share = np.nan_to_num(new / total)
        away = middle - self["mean"]
        self._sums["m2"] = self["m2"] + squares + away**2 * self["valid"] * share
        self._sums["mean"] = self["mean"] + away * share
        self._sums["valid"] = total

    def bound(self, name: str, shard: Int64, low: Float64, high: Float64 | None = None) -> None:
        self._lows.setdefault(name, self.low(name))
        self._highs.setdefault(name, self.high(name))
        _bound(self._lows[name], self._highs[name], shard, low, high)


def _bound(low: Float64, high: Float64, shard: Int64, values: Float64, upper: Float64 | None = None) -> None:
    """Widen bounds by values, (m,) of shards, and of their upper ends where these differ; NaN counts for nothing."""
    upper = values if upper is None else upper
    known, known_upper = ~np.isnan(values), ~np.isnan(upper)
    np.minimum.at(low, shard[known], values[known])
    np.maximum.at(high, shard[known_upper], upper[known_upper])


def _finite(values: Float64) -> pa.Array:
    """Return numbers as Arrow's, null where they are not finite."""
    finite = np.isfinite(values)
    return as_arrow(np.where(finite, values, 0.0), ~finite)


def _struct(
    given: Mapping[str, Any], kind: pa.StructType, n: int, none: npt.NDArray[np.bool_] | None = None
) -> pa.StructArray:
    """Return a struct of arrays and structs by name; null for what is not given."""
    arrays = []
    for field in kind:
        value = given.get(field.name)
        if value is None:
            arrays.append(pa.nulls(n, field.type))
        elif isinstance(value, Mapping):
            arrays.append(_struct(value, field.type, n))
        else:
            arrays.append(value.cast(field.type))
    return pa.StructArray.from_arrays(
        arrays, fields=list(kind), mask=None if none is None else as_arrow(none)
    )


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
