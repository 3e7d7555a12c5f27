"""STAC documents (1.1): a table is a collection, a sample an item, a modality an asset. Pure."""

# Own dictionaries rather than the models of `stac-pydantic`: documents are only written here, never read, and a page has a
# thousand of them; models would check in each answer what the tests check once, against the schemas of the STAC
# specification.

from __future__ import annotations

from collections.abc import Sequence

import shapely

from tensorbank.schema import Modality, TableSchema
from tensorbank_server.documents.formats import MEDIA_TYPES
from tensorbank_server.documents.row_json import Row, geometry, plain

__all__ = ["CONFORMANCE", "STAC_VERSION", "collection", "collection_id", "item", "landing"]

STAC_VERSION = "1.1.0"
CONFORMANCE: tuple[str, ...] = (
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#filter",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-cql2",
)
EXTENSIONS: tuple[str, ...] = (
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
)
SEPARATOR = "."
"""The separator between bank and table in the id of a collection: their names have none."""


def collection_id(bank: str, table: str) -> str:
    """Return the id of the collection of a table."""
    return f"{bank}{SEPARATOR}{table}"


def item(row: Row, schema: TableSchema, *, base: str, collection: str, table_url: str) -> dict[str, object]:
    """Return a sample as a STAC Item.

    Parameters
    ----------
    base
        URL of the STAC root.
    table_url
        URL of the table in our own API, with its snapshot as a query.
    """
    sample_id = str(row["sample_id"])
    path, _, query = table_url.partition("?")
    here = f"{path}/samples/{sample_id}"
    tail = f"?{query}" if query else ""
    times = [row[c] for c in ("S2_time", "S1_time") if row.get(c) is not None]
    properties: dict[str, object] = {
        "datetime": plain(times[0]) if times else None,
        "tensorbank:split": row.get("split"),
        "tensorbank:season": row.get("season"),
    }
    if not times:  # STAC wants an interval where there is no moment
        properties |= {"start_datetime": "1970-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}
    if row.get("cloud_cover") is not None:
        properties["eo:cloud_cover"] = round(100 * row["cloud_cover"], 4)
    if row.get("epsg") is not None:
        properties["proj:code"] = f"EPSG:{row['epsg']}"
        bounds = row.get("bounds")
        if bounds and None not in bounds.values():
            properties["proj:bbox"] = [bounds[n] for n in ("x_min", "y_min", "x_max", "y_max")]
    assets: dict[str, object] = {
        "preview": {
            "href": f"{here}/preview.png{tail}",
            "type": "image/png",
            "roles": ["thumbnail"],
            "title": "Preview",
        }
    }
    assets |= {m.name: _asset(m, f"{here}/{m.name}", tail) for m in schema if row.get(m.name) is not None}
    found: dict[str, object] = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": sample_id,
        "collection": collection,
        "geometry": geometry(row),
        "properties": properties,
        "links": [
            {
                "rel": "self",
                "type": "application/geo+json",
                "href": f"{base}/collections/{collection}/items/{sample_id}",
            },
            {"rel": "parent", "type": "application/json", "href": f"{base}/collections/{collection}"},
            {"rel": "collection", "type": "application/json", "href": f"{base}/collections/{collection}"},
            {"rel": "root", "type": "application/json", "href": base},
        ],
        "assets": assets,
    }
    box = row.get("bbox")
    if box and None not in box.values():
        found["bbox"] = [box[n] for n in ("west", "south", "east", "north")]
    elif found["geometry"] is not None:
        found["bbox"] = list(shapely.geometry.shape(found["geometry"]).bounds)
    return found


def _asset(m: Modality, href: str, tail: str) -> dict[str, object]:
    return {
        "href": f"{href}.tif{tail}",
        "type": MEDIA_TYPES["tif"],
        "roles": ["data"],
        "title": str(m.attributes.get("long_name", m.name)),
        "data_type": "float32" if m.dtype == "float16" else m.dtype,
        "bands": [{"name": b.name, "description": b.long_name or b.name} for b in m.bands],
        "alternate": {
            form: {"href": f"{href}.{form}{tail}", "type": kind}
            for form, kind in (("npy", "application/x-npy"), ("safetensors", "application/vnd.safetensors"))
        },
    }


def collection(
    identity: str,
    *,
    base: str,
    title: str,
    description: str,
    licence: str,
    schema: TableSchema,
    extent: Sequence[float | None],
    times: Sequence[str | None],
) -> dict[str, object]:
    """Return a table as a STAC Collection; ``extent`` is west, south, east, north."""
    here = f"{base}/collections/{identity}"
    box = [-180.0, -90.0, 180.0, 90.0] if None in extent else list(extent)
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": identity,
        "title": title,
        "description": description or title,
        "license": licence,
        "extent": {"spatial": {"bbox": [box]}, "temporal": {"interval": [list(times)]}},
        "item_assets": {
            m.name: {"type": MEDIA_TYPES["tif"], "roles": ["data"], "title": m.name} for m in schema
        },
        "links": [
            {"rel": "self", "type": "application/json", "href": here},
            {"rel": "root", "type": "application/json", "href": base},
            {"rel": "parent", "type": "application/json", "href": base},
            {"rel": "items", "type": "application/geo+json", "href": f"{here}/items"},
            {
                "rel": "http://www.opengis.net/def/rel/ogc/1.0/queryables",
                "type": "application/schema+json",
                "href": f"{here}/queryables",
            },
        ],
    }


def landing(base: str, service_url: str, collections: Sequence[tuple[str, str]]) -> dict[str, object]:
    """Return the root catalog."""
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": "tensorbank",
        "title": "TensorBank",
        "description": "Tables of Earth-observation samples.",
        "conformsTo": list(CONFORMANCE),
        "links": [
            {"rel": "self", "type": "application/json", "href": base},
            {"rel": "root", "type": "application/json", "href": base},
            {"rel": "conformance", "type": "application/json", "href": f"{base}/conformance"},
            {"rel": "data", "type": "application/json", "href": f"{base}/collections"},
            {"rel": "search", "type": "application/geo+json", "href": f"{base}/search", "method": "GET"},
            {"rel": "search", "type": "application/geo+json", "href": f"{base}/search", "method": "POST"},
            {
                "rel": "service-desc",
                "type": "application/vnd.oai.openapi+json;version=3.1",
                "href": f"{service_url}/openapi.json",
            },
            {"rel": "service-doc", "type": "text/html", "href": f"{service_url}/docs"},
            {
                "rel": "http://www.opengis.net/def/rel/ogc/1.0/queryables",
                "type": "application/schema+json",
                "href": f"{base}/queryables",
            },
            *(
                {
                    "rel": "child",
                    "type": "application/json",
                    "href": f"{base}/collections/{identity}",
                    "title": title,
                }
                for identity, title in collections
            ),
        ],
    }
