"""Places against pyproj, the curve against its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pyproj
import pytest
import shapely

from tensorbank import FormatError
from tensorbank_indexer.geography import hilbert_index, place_of, season_of


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
