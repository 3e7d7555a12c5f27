"""Names that a filter may use: columns of a table's samples, and statistics of their modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tensorbank.index_schema import SEASONS
from tensorbank.schema import Modality, TableSchema
from tensorbank.statistics import QUANTILES
from tensorbank_server.filters.literals import Literal as FilterLiteral

__all__ = ["Kind", "Queryable", "queryables", "queryables_document", "quoted"]

Kind = Literal["number", "string", "timestamp", "geometry", "modality"]


@dataclass(frozen=True, slots=True)
class Queryable:
    """A name that a filter may use.

    Parameters
    ----------
    name
        Name as callers write it.
    sql
        The expression that it stands for.
    kind
        ``modality`` has no value: it is there or not, and pixel predicates look into it.
    """

    name: str
    sql: str
    kind: Kind
    description: str = ""
    values: tuple[str, ...] = ()


_COLUMNS: tuple[tuple[str, Kind, str], ...] = (
    ("sample_id", "string", "Id of the sample."),
    ("split", "string", "Split that the sample belongs to, such as train."),
    ("subset", "string", "Part of the source archive."),
    ("cell_id", "string", "Cell of the source's grid."),
    ("location_id", "string", "Location of a time series."),
    ("lon", "number", "Longitude of the centre, degrees."),
    ("lat", "number", "Latitude of the centre, degrees."),
    ("epsg", "number", "Code of the projection."),
    ("S2_time", "timestamp", "First optical date."),
    ("S1_time", "timestamp", "First radar date."),
    ("S1_S2_difference_s", "number", "Radar date minus optical date, seconds."),
    ("cloud_cover", "number", "Share of cloudy pixels, 0 to 1."),
)
_STATISTICS = (
    ("min", "Smallest valid value."),
    ("max", "Largest valid value."),
    ("mean", "Mean of the valid values."),
    ("std", "Standard deviation of the valid values."),
    ("valid", "Number of valid pixels."),
    *((name, f"Quantile {q:g} of the valid values.") for name, q in QUANTILES),
)


def queryables(schema: TableSchema, collection: str) -> dict[str, Queryable]:
    """Return all names that filters of a table may use, those of STAC among them.

    Parameters
    ----------
    collection
        Id of the table's STAC collection.
    """
    found = [Queryable(name, quoted(name), kind, text) for name, kind, text in _COLUMNS]
    found += [
        Queryable("id", quoted("sample_id"), "string", "Id of the sample."),
        Queryable(
            "collection", FilterLiteral(collection).sql, "string", "Id of the collection.", (collection,)
        ),
        # rounded as in the items, so that a value that an item shows is found again
        Queryable(
            "eo:cloud_cover", 'round(100 * "cloud_cover", 4)', "number", "Share of cloudy pixels, 0 to 100."
        ),
    ]
    found.append(
        Queryable("season", quoted("season"), "string", "Meteorological season at the place.", SEASONS)
    )
    found.append(
        Queryable("datetime", 'coalesce("S2_time", "S1_time")', "timestamp", "First date of the sample.")
    )
    found.append(Queryable("geometry", quoted("footprint"), "geometry", "Footprint of the sample."))
    for modality in schema:
        found += _of_modality(modality)
    return {q.name: q for q in found}


def _of_modality(m: Modality) -> list[Queryable]:
    long_name = str(m.attributes.get("long_name", ""))
    found = [Queryable(m.name, quoted(m.name), "modality", long_name)]
    if m.categorical:
        return found + [
            Queryable(
                f"{m.name}.share.{name}",
                quoted(m.name, "share", name),
                "number",
                f"Share of pixels of class {name}, 0 to 1.",
            )
            for _, name in m.classes
        ]
    for band in m.bands if len(m.bands) > 1 else (None,):
        head = (m.name,) if band is None else (m.name, band.name)
        found += [
            Queryable(".".join((*head, s)), quoted(*head, s), "number", text) for s, text in _STATISTICS
        ]
        if band is not None:
            found.append(Queryable(".".join(head), quoted(*head), "modality", band.long_name))
    return found


def queryables_document(found: Mapping[str, Queryable], identity: str, title: str) -> dict[str, object]:
    """Return the JSON Schema of names, as OGC API Features and STAC show it to clients."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": identity,
        "type": "object",
        "title": title,
        "properties": {q.name: _property(q) for q in found.values()},
        "additionalProperties": False,
    }


def _property(q: Queryable) -> dict[str, object]:
    kinds: dict[Kind, dict[str, object]] = {
        "number": {"type": "number"},
        "string": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
        "geometry": {"$ref": "https://geojson.org/schema/Geometry.json"},
        "modality": {"type": "object"},
    }
    found = {**kinds[q.kind], "description": q.description}
    return found | {"enum": list(q.values)} if q.values else found


def quoted(*names: str) -> str:
    """Return a name in SQL, of one or more parts: ``"S2L2A"."B08"``."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def names_of_kind(found: Mapping[str, Queryable], kinds: Sequence[Kind]) -> list[str]:
    """Return the names that are of one of some kinds."""
    return [q.name for q in found.values() if q.kind in kinds]
