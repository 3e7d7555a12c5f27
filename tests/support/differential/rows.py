"""Samples of the bed: places, pixels, and by numpy the rows of the index that say what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely

from tensorbank import Band, Modality, TableSchema
from tensorbank.layout import shard_key
from tensorbank.reading.codec import codec_for
from tensorbank.statistics.band_stats import QUANTILES
from tensorbank.storage.store import Store

__all__ = ["POLYGONS", "PREDICATES", "SCHEMA", "Facts", "Part", "make_part", "places", "spoil"]

SIZE = 8
SCHEMA = TableSchema(
    (
        Modality("S2L2A", "int16", (Band("B04"), Band("B08")), 1, SIZE, SIZE),
        Modality("S1GRD", "float32", (Band("vv"), Band("vh")), 1, SIZE, SIZE),
        Modality("NDVI", "float32", (Band("NDVI"),), 1, SIZE, SIZE),
        Modality("LULC", "uint8", (Band("LULC"),), 1, SIZE, SIZE, ((0, "water"), (1, "trees"), (4, "built"))),
    )
)
SEASONS = ("autumn", "spring", "summer", "winter")
SAMPLES_PER_SHARD = 8
GRID = 2

PREDICATES = (
    # name of the pixels, quantifier, comparison, constant, comparison and constant of the share
    *(
        ("S2L2A.B08", "any", op, c, None, 0.0)
        for op, c in ((">", 3000), ("<", 400), ("=", 1200), (">=", 5000))
    ),
    *(("S2L2A.B04", "all", op, c, None, 0.0) for op, c in (("<", 2000), (">", 500), ("!=", 900))),
    *(("NDVI", "any", op, c, None, 0.0) for op, c in ((">", 0.6), ("<=", -0.2), (">", 0.1))),
    *(("NDVI", "all", op, c, None, 0.0) for op, c in ((">", 0.0), ("<", 0.35))),
    *(("S1GRD.vv", "any", op, c, None, 0.0) for op, c in (("<", -20.0), (">", -8.5))),
    *(("S1GRD.vh", "all", op, c, None, 0.0) for op, c in (("<", -10.0), (">=", -25.0))),
    *(("NDVI", "share", op, c, s, v) for op, c, s, v in ((">", 0.3, ">", 0.5), (">", 0.2, "<=", 0.1))),
    *(
        ("S2L2A.B08", "share", op, c, s, v)
        for op, c, s, v in (("<", 1500, ">=", 0.25), (">", 2500, "<", 0.9))
    ),
    *(("LULC", "any", "=", c, None, 0.0) for c in (0, 1, 4)),
    ("LULC", "all", "=", 1, None, 0.0),
    ("LULC", "share", "=", 1, ">", 0.4),
    ("LULC", "share", "!=", 0, ">=", 0.75),
    ("LULC", "share", "=", 1, "<=", 0.1),
    ("LULC", "all", "<=", 4, None, 0.0),
)
POLYGONS = tuple(
    shapely.to_geojson(shape)
    for shape in (
        shapely.box(-100, -60, 20, 10),
        shapely.Polygon([(10, 0), (120, 10), (60, 70)]),
        shapely.box(170, -80, 180, 80),
        shapely.box(-180, -80, -174.5, 80),
    )
)
MATCHES = {
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
    "=": np.equal,
    "!=": np.not_equal,
}


@dataclass
class Part:
    """The pixels and rows of one part."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    tiles: list[dict[str, Any]] = field(default_factory=list)
    shards: list[dict[str, Any]] = field(default_factory=list)


Facts = dict[tuple[int, str], bool | None]


def places(
    rng: np.random.Generator, parts: int, n: int, prefix: str, table: str
) -> Iterator[list[dict[str, Any]]]:
    """Yield the plain columns of each part's samples:
    sorted by season and longitude, so that blocks differ in what they hold."""
    total = parts * n
    season = np.sort(rng.integers(0, 4, total))
    lon = rng.uniform(-179.9, 179.9, total)
    lon[:4] = 179.93, -179.94, 179.95, -179.96  # their footprints lie across the date line
    order = np.lexsort((lon, season))
    season, lon = season[order], lon[order]
    lat = np.clip(60 * np.sin(lon / 50) + rng.normal(0, 8, total), -85, 85)
    moment = np.datetime64("2020-01-01T00:00:00") + np.timedelta64(1, "D") * (season * 90)
    seconds = rng.permutation(90 * 86_400)[:total]
    ids = rng.permutation(total) if table == "tm" else rng.permutation(2 * total)[:total]
    for number in range(parts):
        rows = []
        for i in range(number * n, (number + 1) * n):
            at = (moment[i] + np.timedelta64(int(seconds[i]), "s")).astype("datetime64[us]").item()
            half = float(rng.uniform(0.1, 0.6))
            west, east = lon[i] - half, lon[i] + half
            placed = lat[i] < lat.max() and rng.random() > 0.05  # others have a centre only
            rows.append(
                {
                    "sample_id": f"{prefix}{ids[i]:04d}",
                    "split": "val" if number % 2 and rng.random() < 0.7 else "train",
                    "subset": "made",
                    "cell_id": f"c{int((lon[i] + 180) // 40)}",
                    "location_id": f"l{i // 3:03d}",
                    "season": None if rng.random() < 0.03 else SEASONS[season[i]],
                    # beyond 2 ** 53, where neighbouring integers are one float
                    "hilbert": 2**53 + (i * 3 if table == "tm" else -i),
                    "lon": None if rng.random() < 0.04 else float(lon[i]),
                    "lat": None if rng.random() < 0.04 and placed else float(lat[i]),
                    "bbox": {
                        "west": float(west if west >= -180 else west + 360),
                        "south": float(max(lat[i] - half, -90)),
                        "east": float(east if east <= 180 else east - 360),
                        "north": float(min(lat[i] + half, 90)),
                    }
                    if placed
                    else None,
                    "footprint": shapely.to_wkb(_footprint(west, lat[i] - half, east, lat[i] + half))
                    if placed
                    else None,
                    "S2_time": None if rng.random() < 0.05 else at.replace(microsecond=i * 3001 % 10**6),
                    "S1_time": at if rng.random() < 0.5 else None,
                    "cloud_cover": None
                    if rng.random() < 0.1
                    else round(float(np.clip(season[i] / 4 + rng.normal(0, 0.1), 0, 1)), 4),
                    "stem": f"stem-{i}",
                    "_level": float(np.clip((lon[i] + 180) / 360 * 0.8 + rng.normal(0, 0.05), 0, 1)),
                }
            )
        yield rows


def _footprint(west: float, south: float, east: float, north: float) -> Any:
    south, north = max(south, -90.0), min(north, 90.0)
    if west >= -180 and east <= 180:
        return shapely.box(west, south, east, north)
    if west < -180:
        west, east = west + 360, east + 360
    return shapely.MultiPolygon(
        [shapely.box(west, south, 180, north), shapely.box(-180, south, east - 360, north)]
    )


def _pixels(modality: Modality, level: float, rng: np.random.Generator, *, old: bool) -> np.ndarray | None:
    """Return the pixels (band, y, x) of one sample, None where it lacks the modality;
    an old bank counts infinities among them."""
    if rng.random() < 0.12:
        return None
    shape = (len(modality.bands), SIZE, SIZE)
    y = np.linspace(-0.1, 0.1, SIZE)[:, None]
    noise = rng.normal(0, 0.03, shape) + y
    if modality.name == "S2L2A":
        return np.clip((level + noise) * 6000, 0, 10_000).round(-2).astype(np.int16)
    if modality.name == "LULC":
        codes = np.array([0, 1, 4, 9], np.uint8)  # the last has no name
        return codes[np.clip((level + 2 * noise) * 4, 0, 3).astype(int)]
    values = (level + noise) - 0.3 if modality.name == "NDVI" else -25 + 20 * (level + noise)
    values = values.astype(np.float32)
    if rng.random() < 0.3:
        values[rng.random(shape) < rng.choice([0.05, 1.0], p=[0.8, 0.2])] = np.nan
    if old and rng.random() < 0.4:
        values[rng.random(shape) < 0.05] = -np.inf
    return values


def make_part(
    store: Store,
    table: str,
    part: str,
    rows: list[dict[str, Any]],
    rng: np.random.Generator,
    facts: tuple[Facts, Facts, Facts],
    *,
    old: bool,
) -> Part:
    made = Part()
    of_samples, of_tiles, of_areas = facts
    for first in range(0, len(rows), SAMPLES_PER_SHARD):
        group = rows[first : first + SAMPLES_PER_SHARD]
        shard = first // SAMPLES_PER_SHARD
        bodies: dict[str, bytearray] = {m.name: bytearray() for m in SCHEMA}
        pixels_of: dict[str, list[np.ndarray]] = {m.name: [] for m in SCHEMA}
        for i, given in enumerate(group):
            level = given.pop("_level")
            row: dict[str, Any] = {**given, "part": part, "row_of_shard": shard}
            row_number = first + i
            mine: dict[str, np.ndarray] = {}
            for m in SCHEMA:
                pixels = _pixels(m, level, rng, old=old)
                if pixels is None:
                    continue
                mine[m.name] = pixels
                pixels_of[m.name].append(pixels)
                body = bodies[m.name]
                offset = len(body)
                blocks = [bytes(codec_for("balanced", m).encode(np.ascontiguousarray(p))) for p in pixels]
                body += b"".join(blocks)
                row[m.name] = {
                    "ref": {
                        "key": shard_key(table, part, m.name, shard),
                        "row": row_number,
                        "offset": offset,
                        "length": sum(map(len, blocks)),
                        "block_bytes": [len(b) for b in blocks],
                    },
                    **_of_sample(m, pixels),
                }
            row["modalities"] = sorted(mine)
            made.samples.append(row)
            row_id = f"{table}/{row['sample_id']}"
            _note(of_samples, row_id, mine, slice(None), slice(None))
            if row["footprint"] is not None:
                shape = shapely.from_wkb(row["footprint"])
                for k, text in enumerate(POLYGONS):
                    of_areas[k, row_id] = bool(shapely.intersects(shape, shapely.from_geojson(text)))
            made.tiles += _tiles(row, mine, row_number, row_id, of_tiles)
        for m in SCHEMA:
            if bodies[m.name]:
                store.put(shard_key(table, part, m.name, shard), bytes(bodies[m.name]) + b"index")
        made.shards.append(_shard(table, part, shard, made.samples[first:], pixels_of))
    return made


def spoil(made: Part, rng: np.random.Generator) -> None:
    """Write NaN for what is missing, as often as not, and let it spoil the roll-ups as it did."""
    for row in [*made.samples, *made.tiles]:
        for name in ("lon", "lat", "cloud_cover"):
            if name in row and row[name] is None and rng.random() < 0.7:
                row[name] = np.nan
    for shard in made.shards:
        mine = [r for r in made.samples if r["row_of_shard"] == shard["shard"]]
        covers = [r["cloud_cover"] for r in mine if r["cloud_cover"] is not None]
        shard |= {"min_cloud_cover": min(covers, default=None), "max_cloud_cover": max(covers, default=None)}
        for m in SCHEMA:
            bands = [] if m.categorical or m.name not in shard else [shard[m.name]]
            bands = [b[n] for b in bands for n in m.band_names] if len(m.bands) > 1 else bands
            for band in bands:
                if rng.random() < 0.3:
                    spoilt = rng.choice([np.nan, -np.inf])
                    band |= dict.fromkeys(("mean", "min_mean", "max_mean", "m2"), spoilt)


def _note(facts: Facts, row: str, pixels: dict[str, np.ndarray], ys: slice, xs: slice) -> None:
    """Note the answers of all predicates for a window of a sample."""
    for k, (name, quantifier, op, constant, share_op, share) in enumerate(PREDICATES):
        modality, _, band = name.partition(".")
        given = pixels.get(modality)
        if given is None:
            facts[k, row] = None
            continue
        names = SCHEMA[modality].band_names
        window = given[names.index(band) if band else 0, ys, xs].astype(np.float64)
        matching = MATCHES[op](window, float(constant)) & np.isfinite(window)
        facts[k, row] = bool(
            {
                "any": matching.any(),
                "all": matching.all(),
                "share": share_op is not None and MATCHES[share_op](matching.sum() / matching.size, share),
            }[quantifier]
        )


def _of_sample(m: Modality, pixels: np.ndarray) -> dict[str, Any]:
    if m.categorical:
        share = {name: float((pixels == code).mean()) for code, name in m.classes}
        known = np.isin(pixels, [c for c, _ in m.classes])
        return {"count": pixels[0].size, "valid": int(known.sum()), "share": share}
    bands = {}
    for name, band in zip(m.band_names, pixels, strict=True):
        values = np.sort(band[~np.isnan(band.astype(np.float64))].astype(np.float64), axis=None)
        row: dict[str, Any] = {"count": band.size, "valid": len(values)}
        if len(values):
            with np.errstate(invalid="ignore"):
                moments = {"mean": values.mean(), "std": values.std()}
            row |= {"min": values[0], "max": values[-1]} | {
                n: v for n, v in moments.items() if not np.isnan(v)
            }
            row |= {q: values[int(np.floor(p * (len(values) - 1)))] for q, p in QUANTILES}
        bands[name] = row
    return bands if len(bands) > 1 else next(iter(bands.values()))


def _tiles(
    row: dict[str, Any], pixels: dict[str, np.ndarray], number: int, row_id: str, facts: Facts
) -> Iterator[dict[str, Any]]:
    half = SIZE // GRID
    for tile in range(GRID * GRID):
        y, x = divmod(tile, GRID)
        window = {"time_index": 0, "y0": y * half, "y1": (y + 1) * half, "x0": x * half, "x1": (x + 1) * half}
        ys, xs = slice(window["y0"], window["y1"]), slice(window["x0"], window["x1"])
        _note(facts, f"{row_id}/{tile}", pixels, ys, xs)
        found = {c: row[c] for c in ("sample_id", "part", "split", "season", "lon", "lat")}
        found |= {"row": number, "tile": tile, **window}
        for m in SCHEMA:
            if m.name in pixels:
                found[m.name] = {
                    "ref": {**row[m.name]["ref"], **window},
                    **_of_tile(m, pixels[m.name][:, ys, xs]),
                }
        yield found


def _of_tile(m: Modality, pixels: np.ndarray) -> dict[str, Any]:
    known = _of_sample(m, pixels)
    if m.categorical:
        return {"valid": known["valid"], "share": known["share"]}
    for band in [known] if len(m.bands) == 1 else list(known.values()):
        for name in ("count", *(q for q, _ in QUANTILES)):
            band.pop(name, None)
    return known


def _shard(
    table: str, part: str, shard: int, rows: list[dict[str, Any]], pixels: dict[str, list[np.ndarray]]
) -> dict[str, Any]:
    """The roll-up of some samples, computed from their pixels."""
    times = [t for r in rows if (t := r["S2_time"] or r["S1_time"]) is not None]
    covers = [r["cloud_cover"] for r in rows if r["cloud_cover"] is not None]
    boxes = [r["bbox"] for r in rows if r["bbox"] is not None]
    crossing = any(b["west"] > b["east"] for b in boxes)
    found: dict[str, Any] = {
        "part": part,
        "shard": shard,
        "n_samples": len(rows),
        "bbox": None
        if not boxes
        else {
            "west": -180.0 if crossing else min(b["west"] for b in boxes),
            "east": 180.0 if crossing else max(b["east"] for b in boxes),
            "south": min(b["south"] for b in boxes),
            "north": max(b["north"] for b in boxes),
        },
        "first_time": min(times, default=None),
        "last_time": max(times, default=None),
        "seasons": sorted({r["season"] for r in rows if r["season"]}),
        "min_cloud_cover": min(covers, default=None),
        "max_cloud_cover": max(covers, default=None),
    }
    for name in ("lon", "lat"):
        values = [r[name] for r in rows if r[name] is not None]
        found |= {f"min_{name}": min(values, default=None), f"max_{name}": max(values, default=None)}
    for m in SCHEMA:
        mine = [r for r in rows if m.name in r]
        if mine:
            head = {
                "key": mine[0][m.name]["ref"]["key"],
                "n_samples": len(mine),
                "length": sum(r[m.name]["ref"]["length"] for r in mine),
            }
            found[m.name] = head | _rolled_up(m, [r[m.name] for r in mine], np.stack(pixels[m.name]))
    return found


def _rolled_up(m: Modality, rows: list[dict[str, Any]], pixels: np.ndarray) -> dict[str, Any]:
    if m.categorical:
        names = [n for _, n in m.classes]
        return {
            "count": pixels.size,
            "valid": sum(r["valid"] for r in rows),
            "share": {n: float(np.mean([r["share"][n] for r in rows])) for n in names},
            "min_share": {n: min(r["share"][n] for r in rows) for n in names},
            "max_share": {n: max(r["share"][n] for r in rows) for n in names},
        }
    bands = {}
    for i, name in enumerate(m.band_names):
        values = pixels[:, i].astype(np.float64)
        values = values[~np.isnan(values)]
        each = [r if len(m.bands) == 1 else r[name] for r in rows]
        means = [b.get("mean", np.nan) for b in each if b["valid"]]
        band: dict[str, Any] = {"count": pixels[:, i].size, "valid": values.size}
        if values.size:
            band |= {"min": values.min(), "max": values.max(), "mean": values.mean()}
            with np.errstate(invalid="ignore"):
                m2 = float(values.var() * values.size)
            band |= {"min_mean": min(means), "max_mean": max(means), "m2": m2}
        bands[name] = band
    return bands if len(bands) > 1 else next(iter(bands.values()))
