"""The origin of a part, as its Zarr group says it: source, revision, licence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tensorbank.errors import NotFoundError
from tensorbank.layout import part_key
from tensorbank.storage import Store

__all__ = ["Provenance", "provenance_of"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """The origin of one part. Texts are empty where the part does not say."""

    part: str
    source: str = ""
    format: str = ""
    revision: str = ""
    licence: str = ""
    attribution: str = ""
    references: str = ""


def provenance_of(store: Store, table: str, part: str) -> Provenance:
    """Read the origin of a part from the attributes of its Zarr group, one small object."""
    try:
        document = json.loads(store.get(f"{part_key(table, part)}/zarr.json"))
    except (NotFoundError, ValueError):  # of another writer, or not readable: it says nothing
        return Provenance(part)
    found = document.get("attributes") if isinstance(document, Mapping) else None
    attributes: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    return Provenance(
        part,
        source=str(attributes.get("source", "")),
        format=str(attributes.get("source_format", "")),
        revision=str(attributes.get("source_revision", "")),
        licence=str(attributes.get("licence", "")),
        attribution=str(attributes.get("attribution", "")),
        references=str(attributes.get("references", "")),
    )
