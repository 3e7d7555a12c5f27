"""Places against pyproj, the curve against its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pyproj
import pytest
import shapely

from tensorbank import FormatError
from tensorbank_indexer.measures.geography import contains, hilbert_index, normal_place, place_of, season_of


def test_neighbours_on_the_curve_are_neighbours_on_the_map():
    side = 1 << 5
    step = (1 << 16) // side
    cells = list(itertools.product(range(side), repeat=2))
    lon = np.array([(x * step + 0.5) / (1 << 16) * 360 - 180 for x, _ in cells])
    lat = np.array([(y * step + 0.5) / (1 << 16) * 180 - 90 for _, y in cells])
    coarse = hilbert_index(lon, lat) >> 22
    assert sorted(coarse) == list(range(side * side)), "a coarse cell is a stretch of the curve"
    ordered = [cells[i] for i in np.argsort(coarse)]
    assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in itertools.pairwise(ordered))


def test_a_footprint_is_the_grid_s_outline():
    x = 600_005.0 + 10 * np.arange(264)
    y = 5_300_005.0 - 10 * np.arange(264)
    place = place_of(32632, x, y)
    assert place.bounds == (600_000.0, 5_297_370.0, 602_640.0, 5_300_010.0)
    back = pyproj.Transformer.from_crs(4326, 32632, always_xy=True)
    corners = shapely.get_coordinates(shapely.from_wkb(place.footprint))[:-1]
    ex, ey = back.transform(corners[:, 0], corners[:, 1])
    assert {(round(a), round(b)) for a, b in zip(ex, ey, strict=True)} == set(
        itertools.product((600_000, 602_640), (5_297_370, 5_300_010))
    )


def test_a_sample_on_the_antimeridian_has_a_small_box_and_two_pieces():
    to_utm = pyproj.Transformer.from_crs(4326, 32660, always_xy=True)
    x0, y0 = to_utm.transform(179.999, -16.0 + 66)
    place = place_of(32660, x0 + 10.0 * np.arange(264), y0 + 10.0 * np.arange(264))
    west, south, east, north = place.bbox
    assert west > 179.9
    assert east < -179.9
    assert north - south < 0.1
    footprint = shapely.from_wkb(place.footprint)
    assert footprint.geom_type == "MultiPolygon"
    assert footprint.bounds[0] >= -180
    assert footprint.bounds[2] <= 180


def test_seasons_turn_with_the_hemisphere():
    assert [season_of(m, 10) for m in (1, 4, 7, 10, 12)] == ["winter", "spring", "summer", "autumn", "winter"]
    assert [season_of(m, -10) for m in (1, 4, 7, 10)] == ["summer", "autumn", "winter", "spring"]


def test_an_unknown_epsg_code_is_named():
    with pytest.raises(FormatError, match="EPSG:1"):
        place_of(1, np.arange(3.0), np.arange(3.0))


GRIDS = {
    "a UTM tile": (32632, 600_005.0, 5_300_005.0, 10.0, 264),
    "a whole granule": (32632, 600_005.0, 5_300_005.0, 60.0, 1830),
    "across the antimeridian in UTM": (32660, 830_000.0, 2_000_000.0, 10.0, 264),
    "across the antimeridian in degrees": (4326, 179.9, 10.0, 0.001, 264),
    "across it in degrees below -180": (4326, -180.1, 10.0, 0.001, 264),
    "degrees of 0 to 360": (4326, 300.0, -10.0, 0.001, 264),
    "around the north pole": (3413, -1_280.0, -1_280.0, 10.0, 264),
    "around the south pole": (3031, -90_000.0, -120_000.0, 1_000.0, 200),
    "beside the north pole": (3413, 20_000.0, 30_000.0, 100.0, 264),
    "at 84 degrees in UTM": (32633, 480_000.0, 9_320_000.0, 10.0, 264),
}


@pytest.mark.parametrize("name", GRIDS)
def test_box_and_footprint_hold_every_pixel(name):
    """By brute force: the corners of the pixels, each transformed by itself."""
    epsg, x0, y0, step, size = GRIDS[name]
    x, y = x0 + step * np.arange(size), y0 - step * np.arange(size)
    place = place_of(epsg, x, y)
    west, south, east, north = place.bbox
    assert -180.0 <= west <= 180.0
    assert -180.0 <= east <= 180.0
    assert -90.0 <= south <= north <= 90.0
    footprint = shapely.from_wkb(place.footprint)
    assert footprint.is_valid
    assert footprint.bounds[0] >= -180.0
    assert footprint.bounds[2] <= 180.0
    # Inside by a quarter of a pixel: a straight edge on the map is a curve in degrees, followed in steps only.
    random = np.random.default_rng(0)
    px, py = random.uniform(x[0], x[-1], 400), random.uniform(y[-1], y[0], 400)
    lon, lat = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True).transform(px, py)
    lon = (np.asarray(lon) + 180.0) % 360.0 - 180.0
    slack = 1e-6 + step * size * 1e-9
    inside = (lon >= west - slack) & (lon <= east + slack) if west <= east else (lon >= west) | (lon <= east)
    assert inside.all()
    assert (lat >= south - slack).all()
    assert (lat <= north + slack).all()
    assert (shapely.distance(footprint, shapely.points(lon, lat)) < 1e-3).all()


WRONG = {
    "no such system": (0, np.arange(8.0), np.arange(8.0)),
    "a negative code": (-7, np.arange(8.0), np.arange(8.0)),
    "NaN": (32632, np.full(8, np.nan), np.arange(8.0)),
    "one infinity": (32632, np.append(np.arange(8.0), np.inf), np.arange(8.0)),
    "far away": (32632, 1e9 + np.arange(8.0), np.arange(8.0)),
    "farther": (32632, 1e300 * np.arange(1, 9), np.arange(8.0)),
    "one pixel": (32632, np.arange(1.0), np.arange(8.0)),
    "no pixel": (32632, np.arange(0.0), np.arange(8.0)),
    "no step": (32632, np.full(8, 6e5), 5e6 + np.arange(8.0)),
    "one value out of line": (32632, np.array([6e5, 6e5 + 10, 9e5, 6e5 + 30]), 5e6 + np.arange(8.0)),
    "two axes": (32632, np.zeros((2, 2)), np.arange(8.0)),
    "beyond the pole": (4326, np.arange(8.0), 89.0 + np.arange(8.0)),
    "heights": (5703, np.arange(8.0), np.arange(8.0)),
    "three axes": (4978, np.arange(8.0), np.arange(8.0)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_grid_that_lies_nowhere_is_refused(name):
    with pytest.raises(FormatError):
        place_of(*WRONG[name])


@pytest.mark.parametrize(
    ("lon", "lat", "expected"),
    [
        (10.0, 20.0, (10.0, 20.0)),
        (270.0, -5.0, (-90.0, -5.0)),
        (-190.0, 0.0, (170.0, 0.0)),
        (180.0, 90.0, (180.0, 90.0)),
    ],
)
def test_longitudes_of_0_to_360_are_turned(lon, lat, expected):
    assert normal_place(lon, lat) == expected


@pytest.mark.parametrize("place", [(np.nan, 0.0), (0.0, np.inf), (0.0, 90.5), (361.0, 0.0), (-1e9, 0.0)])
def test_what_is_no_point_on_earth_is_refused(place):
    with pytest.raises(FormatError):
        normal_place(*place)


def test_a_centre_is_looked_for_across_the_antimeridian():
    place = place_of(4326, 179.9 + 0.001 * np.arange(264), 10 + 0.001 * np.arange(264))
    assert contains(place, 180.0, 10.1)
    assert contains(place, -179.95, 10.1)
    assert contains(place, 179.95, 10.1)
    assert not contains(place, 0.0, 10.1)
    assert not contains(place, 180.0, 12.0)
    polar = place_of(3413, -1_280 + 10.0 * np.arange(264), -1_280 + 10.0 * np.arange(264))
    assert contains(polar, 123.0, 89.99)
    assert not contains(polar, 123.0, 45.0)
