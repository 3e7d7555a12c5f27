"""Whether a sample fits its table, and the plain columns of its index row."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np

from tensorbank.schema import Modality
from tensorbank_indexer.geography import hilbert_index, place_of, season_of
from tensorbank_indexer.measure import CategoryMeasure
from tensorbank_indexer.rows import MeasuredModality
from tensorbank_indexer.source import Finding, RawModality, RawSample, SampleRef

__all__ = ["conform", "plain_columns"]

_OPTICAL = ("S2L2A", "S2L1C", "S2RGB")
_RADAR = ("S1RTC", "S1GRD")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def conform(given: RawModality, modality: Modality, ref: SampleRef) -> Finding | None:
    """None if the pixels are what the table holds, maybe of fewer dates, else why they are left out."""
    shape = given.pixels.shape
    fits = 0 < shape[0] <= modality.n_times and shape[1:] == modality.sample_shape[1:]
    expected = {
        "shape": (shape, shape if fits else modality.sample_shape),
        "dtype": (given.pixels.dtype.name, modality.dtype),
        "bands": (given.bands, modality.band_names),
    }
    for kind, (got, wanted) in expected.items():
        if got != wanted:
            return Finding(
                f"other-{kind}",
                ref.archive,
                f"{kind} is {_text(got)} where the table has {_text(wanted)}",
                "modality left out, the sample's others kept",
                member=ref.stem,
                modality=modality.name,
            )
    return None


def plain_columns(raw: RawSample, part: str, modalities: Mapping[str, MeasuredModality]) -> dict[str, object]:
    """Columns of the samples table that are not modalities, by name; absent ones are null."""
    s2_times = _times(raw, _OPTICAL)
    s1_times = _times(raw, _RADAR)
    columns: dict[str, object] = {
        "sample_id": raw.sample_id,
        "part": part,
        "split": raw.ref.split,
        "subset": raw.ref.subset,
        "cell_id": raw.cell_id,
        "location_id": raw.location_id,
        "lon": raw.lon,
        "lat": raw.lat,
        "epsg": raw.epsg,
        "S2_time": s2_times[0] if s2_times else None,
        "S1_time": s1_times[0] if s1_times else None,
        "S2_times": s2_times or None,
        "S1_times": s1_times or None,
        "modalities": sorted(modalities),
        "stem": raw.ref.stem,
    }
    if s1_times and s2_times:
        columns["S1_S2_difference_s"] = (s1_times[0] - s2_times[0]).total_seconds()
    if raw.lon is not None and raw.lat is not None:
        columns["hilbert"] = int(hilbert_index(np.array([raw.lon]), np.array([raw.lat]))[0])
        seasons = {season_of(t.month, raw.lat) for t in s2_times or s1_times}
        columns["season"] = min(seasons) if len(seasons) == 1 else ("mixed" if seasons else None)
    columns |= _clouds(raw, modalities)
    if raw.epsg is not None and raw.x is not None and raw.y is not None:
        place = place_of(raw.epsg, raw.x, raw.y)
        columns["bounds"] = dict(zip(("x_min", "y_min", "x_max", "y_max"), place.bounds, strict=True))
        columns["bbox"] = dict(zip(("west", "south", "east", "north"), place.bbox, strict=True))
        columns["footprint"] = place.footprint
    return columns


def _times(raw: RawSample, names: tuple[str, ...]) -> list[datetime]:
    for name in names:
        given = raw.modalities.get(name)
        if given is not None and given.times_ns is not None:
            return [_EPOCH + timedelta(microseconds=int(t) // 1000) for t in given.times_ns]
    return []


def _clouds(raw: RawSample, modalities: Mapping[str, MeasuredModality]) -> dict[str, object]:
    """Cloud cover per date: the archive's figure, else the share of thin and thick cloud in its mask."""
    covers = list(raw.cloud_cover) if raw.cloud_cover is not None else []
    mask = modalities.get("cloud_mask")
    if not covers and mask is not None and isinstance(mask.measure, CategoryMeasure):
        per_date = mask.measure.tile_classes.sum(axis=(1, 2))
        total = mask.measure.tile_count.sum(axis=(1, 2))
        covers = [float(c) for c in per_date[:, 3:5].sum(axis=1) / total]
    if not covers:
        return {}
    return {"cloud_cover": float(np.mean(covers)), "cloud_covers": [float(c) for c in covers]}


def _text(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)
