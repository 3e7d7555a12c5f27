"""Facts of a sample: the columns of its index row that are not modalities, such as place, time, clouds and names.

An archive may say anything here. What cannot be used is null in the row and a finding in the report, and the sample goes on:
every value passes one gate before it enters the index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from tensorbank.errors import FormatError
from tensorbank.index_schema import SAMPLE_COLUMNS
from tensorbank_indexer.guarded_source import is_text
from tensorbank_indexer.measures import (
    CategoryMeasure,
    Measure,
    contains,
    hilbert_index,
    normal_place,
    place_of,
    season_of,
)
from tensorbank_indexer.source import Finding, RawSample, SampleRef

__all__ = ["OPTICAL_MODALITIES", "RADAR_MODALITIES", "sample_facts"]

IDENTITY_COLUMNS = ("sample_id", "part", "split", "subset", "stem")
"""The columns without which a sample cannot be told from another."""
EMPTY_COLUMNS = ("split", "subset")
"""The identity columns that may be empty texts."""
OPTICAL_MODALITIES = ("S2L2A", "S2L1C", "S2RGB")
RADAR_MODALITIES = ("S1RTC", "S1GRD")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TIME = np.iinfo(np.int64).min
SHARE_TOLERANCE = 1e-6
"""The amount by which a share may lie outside of 0 to 1, for rounding."""
_CLOUD_CLASSES = slice(3, 5)  # thin and thick cloud of the SEnSEI-v2 classes
_NO_PLACE = "kept without a footprint"


def sample_facts(
    raw: RawSample, part: str, measures: Mapping[str, Measure]
) -> tuple[dict[str, object], list[Finding]]:
    """Return the columns of the samples table that are not modalities, by name, and findings about what could not be used.

    ``measures`` are those of the modalities that the sample has. Columns that are null are left out.

    Raises
    ------
    FormatError
        A column of :data:`IDENTITY_COLUMNS` is no text, so that nothing names the sample.
    """
    doubts = _Doubts(raw.ref)
    s2_times = _times(raw, OPTICAL_MODALITIES)
    s1_times = _times(raw, RADAR_MODALITIES)
    columns: dict[str, object] = {
        "sample_id": raw.sample_id,
        "part": part,
        "split": raw.ref.split,
        "subset": raw.ref.subset,
        "cell_id": raw.cell_id,
        "location_id": raw.location_id,
        "S2_time": s2_times[0] if s2_times else None,
        "S1_time": s1_times[0] if s1_times else None,
        "S2_times": s2_times or None,
        "S1_times": s1_times or None,
        "modalities": sorted(measures),
        "stem": raw.ref.stem,
    }
    if s1_times and s2_times:
        columns["S1_S2_difference_s"] = (s1_times[0] - s2_times[0]).total_seconds()
    columns |= _centre(raw, s2_times or s1_times, doubts)
    columns |= _clouds(raw, measures, doubts)
    columns |= _footprint(raw, columns, doubts)
    return _gated(columns, doubts), doubts.findings


class _Doubts:
    """The findings of one sample."""

    def __init__(self, ref: SampleRef) -> None:
        self.ref = ref
        self.findings: list[Finding] = []

    def add(self, kind: str, reason: str, action: str) -> None:
        self.findings.append(Finding(kind, self.ref.archive, reason, action, member=self.ref.stem))


def _gated(columns: dict[str, object], doubts: _Doubts) -> dict[str, object]:
    """Return the columns whose value is one of the column's type and neither NaN nor infinite; the others are null.

    Raises
    ------
    FormatError
        A column of :data:`IDENTITY_COLUMNS` is no text.
    """
    sound: dict[str, object] = {}
    for field in SAMPLE_COLUMNS:
        value = columns.get(field.name)
        if field.name in IDENTITY_COLUMNS and not (
            is_text(value) or (value == "" and field.name in EMPTY_COLUMNS)
        ):
            raise FormatError(f"{field.name} is {value!a}, which cannot name anything")
        if value is None:
            continue
        reason = _misfit(value, field.type)
        if reason is None:
            sound[field.name] = value
        else:
            doubts.add("bad-value", f"{field.name} is {ascii(value)[:80]}: {reason}", "left empty")
    return sound


def _misfit(value: object, kind: pa.DataType) -> str | None:
    """Say why a value cannot be one of a column, None if it can."""
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    try:
        pa.scalar(value, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError, UnicodeError) as error:
        return str(error).split("\n", 1)[0] or type(error).__name__
    return None


def _centre(raw: RawSample, times: Sequence[datetime], doubts: _Doubts) -> dict[str, object]:
    """Return longitude, latitude, place on the Hilbert curve and season."""
    if raw.lon is None or raw.lat is None:
        return {}
    try:
        lon, lat = normal_place(float(raw.lon), float(raw.lat))
    except (FormatError, TypeError, ValueError) as error:
        doubts.add("bad-centre", str(error), "kept without a centre")
        return {}
    if lon != raw.lon:
        doubts.add(
            "longitude-range",
            f"the longitude of the centre is {raw.lon:g}, beyond 180",
            f"taken for {lon:g}",
        )
    seasons = {season_of(t.month, lat) for t in times}
    return {
        "lon": lon,
        "lat": lat,
        "hilbert": int(hilbert_index(np.array([lon]), np.array([lat]))[0]),
        "season": min(seasons) if len(seasons) == 1 else ("mixed" if seasons else None),
    }


def _footprint(raw: RawSample, columns: Mapping[str, object], doubts: _Doubts) -> dict[str, object]:
    """Return the EPSG code, bounds, box and footprint; none of them if the georeference cannot be trusted."""
    if raw.epsg is None:
        return {}
    if raw.x is None or raw.y is None:
        return {"epsg": raw.epsg}
    try:
        place = place_of(int(raw.epsg), raw.x, raw.y)
    except Exception as error:  # noqa: BLE001 - one sample's georeference: any cause costs its place only
        doubts.add("bad-georeference", str(error), _NO_PLACE)
        return {}
    lon, lat = columns.get("lon"), columns.get("lat")
    if isinstance(lon, float) and isinstance(lat, float) and not contains(place, lon, lat):
        west, south, east, north = place.bbox
        doubts.add(
            "place-mismatch",
            f"the centre at longitude {lon:g}, latitude {lat:g} lies outside of the footprint, which by EPSG:{raw.epsg} reaches "
            f"from {west:g}, {south:g} to {east:g}, {north:g}",
            f"{_NO_PLACE}; its centre is taken as it is",
        )
        return {}
    return {
        "epsg": raw.epsg,
        "bounds": dict(zip(("x_min", "y_min", "x_max", "y_max"), place.bounds, strict=True)),
        "bbox": dict(zip(("west", "south", "east", "north"), place.bbox, strict=True)),
        "footprint": place.footprint,
    }


def _times(raw: RawSample, names: tuple[str, ...]) -> list[datetime]:
    """Return the dates of the first of these modalities that has all of them; else none."""
    for name in names:
        given = raw.modalities.get(name)
        if given is not None and given.times_ns is not None and _NO_TIME not in given.times_ns:
            return [_EPOCH + timedelta(microseconds=int(t) // 1000) for t in given.times_ns]
    return []


def _clouds(raw: RawSample, measures: Mapping[str, Measure], doubts: _Doubts) -> dict[str, object]:
    """Return the cloud cover per date: the archive's figure, else the share of thin and thick cloud in its mask."""
    given = list(raw.cloud_cover) if raw.cloud_cover is not None else []
    covers = [_share(c) for c in given]
    mask = measures.get("cloud_mask")
    measured: list[float | None] = []
    if isinstance(mask, CategoryMeasure):
        per_date = mask.tile_classes.sum(axis=(1, 2))
        total = mask.tile_count.sum(axis=(1, 2))
        measured = [float(c) for c in per_date[:, _CLOUD_CLASSES].sum(axis=1) / total]
    if None in covers:
        wrong = ", ".join(str(c) for c, sound in zip(given, covers, strict=True) if sound is None)
        instead = len(measured) == len(covers)
        doubts.add(
            "cloud-cover-range",
            f"the archive's cloud cover is {wrong}, not a share of 0 to 1",
            "taken from the cloud mask" if instead else "left empty",
        )
        if instead:
            covers = [m if c is None else c for c, m in zip(covers, measured, strict=True)]
    covers = covers or measured
    sound = [c for c in covers if c is not None]
    if not sound:
        return {}
    return {"cloud_cover": float(np.mean(sound)), "cloud_covers": covers}


def _share(value: object) -> float | None:
    """Return a figure between 0 and 1, rounding aside, or None if it is none."""
    if (
        not isinstance(value, int | float | np.number)
        or not -SHARE_TOLERANCE <= float(value) <= 1.0 + SHARE_TOLERANCE
    ):
        return None
    return min(max(float(value), 0.0), 1.0)
