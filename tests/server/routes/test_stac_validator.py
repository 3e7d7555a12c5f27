"""The STAC API as stac-api-validator sees it, for every conformance class that the service declares.

The validator loads schemas from the net; here it gets those that pystac ships, and accepts the two extensions, whose
properties are checked here by their own rules.
"""

from __future__ import annotations

import importlib.resources
import json
import logging
import re

import pytest
import shapely
import stac_validator.utilities
from stac_api_validator.validations import QueryConfig, validate_api

SCHEMAS = importlib.resources.files("pystac") / "validation" / "jsonschemas"
CORE = re.compile(r"https://schemas\.stacspec\.org/(v[0-9.]+)/[a-z-]+/json-schema/([a-z-]+\.json)")
GEOJSON = re.compile(r"https://geojson\.org/schema/([A-Za-z]+\.json)")
EXTENSION = re.compile(r"https://stac-extensions\.github\.io/(eo|projection)/v[0-9.]+/schema\.json")
CLASSES = [
    "core",
    "collections",
    "features",
    "item-search",
    "filter",
    "item-search#filter",
    "features#filter",
]


@pytest.fixture
def shipped_schemas(monkeypatch):
    """Give the validator the schemas that are installed; asking for any other fails."""
    asked = []

    def fetch(path: str, headers: object = None) -> dict:
        asked.append(path)
        if found := CORE.fullmatch(path):
            return json.loads((SCHEMAS / "stac-spec" / found[1] / found[2]).read_text())
        if found := GEOJSON.fullmatch(path):
            return json.loads((SCHEMAS / "geojson" / found[1]).read_text())
        if EXTENSION.fullmatch(path):
            return {}
        raise AssertionError(f"the validator wants {path}")

    monkeypatch.setattr(stac_validator.utilities, "fetch_and_parse_file", fetch)
    return asked


@pytest.mark.filterwarnings("ignore:get_all_items is deprecated")
def test_the_validator_finds_no_error(service, shipped_schemas, caplog):
    caplog.set_level(logging.ERROR)
    footprint = service.get("/stac/search?limit=1").json()["features"][0]["geometry"]
    warnings, errors = validate_api(
        root_url=f"{service.url}/stac",
        ccs_to_validate=CLASSES,
        collection="eo.terramesh",
        geometry=json.dumps(footprint),
        auth_bearer_token=None,
        auth_query_parameter=None,
        fields_nested_property=None,
        validate_pagination=True,
        query_config=QueryConfig(*[None] * 13),
        transaction_collection=None,
        headers=None,
        open_assets_urls=False,
    )
    assert errors.as_list() == []
    assert any("item.json" in path for path in shipped_schemas), "no item was validated"
    unexpected = [w for w in warnings.as_list() if "stac-check recommendations" not in str(w)]
    assert [w for w in unexpected if "returned 0 results" not in str(w)] == []


def test_items_keep_the_rules_of_their_extensions(service):
    items = service.get("/stac/search?limit=20").json()["features"]
    assert len(items) == 20
    for item in items:
        properties = item["properties"]
        assert 0 <= properties["eo:cloud_cover"] <= 100
        assert re.fullmatch(r"EPSG:\d+", properties["proj:code"])
        assert len(properties["proj:bbox"]) == 4
        shape = shapely.geometry.shape(item["geometry"])
        for part in getattr(shape, "geoms", [shape]):
            assert part.exterior.is_ccw
