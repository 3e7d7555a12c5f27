"""The origin of a part, as the document of its Zarr group says it: source, revision, licence.

Nothing else says it, so the document has a checksum of its own. The attribute ``tensorbank.crc32c`` holds the CRC-32C of the
whole document with these eight digits as zeros, ``tensorbank.part`` the name of the part. A document with neither is another
writer's, or older, and is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import crc32c as crc

from tensorbank.errors import IntegrityError, NotFoundError
from tensorbank.layout import group_document, part_key
from tensorbank.storage import Store

__all__ = ["Provenance", "find_document_flaw", "part_attributes", "part_document", "provenance_of"]

CHECKSUM = "tensorbank.crc32c"
PART = "tensorbank.part"
_SEAL = f'"{CHECKSUM}": "'.encode()
_NO_DIGITS = b"00000000"


def part_document(
    part: str, attributes: Mapping[str, object], arrays: Mapping[str, Mapping[str, object]]
) -> bytes:
    """Return the document of a part as it is stored.

    Parameters
    ----------
    attributes
        Attributes of the group: where the part came from.
    arrays
        Documents of its arrays, by modality.
    """
    marked = {CHECKSUM: _NO_DIGITS.decode(), PART: part, **attributes}
    data = json.dumps(group_document(marked, arrays), indent=1).encode()
    start = data.index(_SEAL) + len(_SEAL)
    return data[:start] + f"{crc.crc32c(data):08x}".encode() + data[start + len(_NO_DIGITS) :]


def find_document_flaw(data: bytes, part: str) -> str:
    """Return what is wrong with the document of a part, as the end of a sentence; an empty text if nothing is known to be."""
    at = data.find(_SEAL)
    if at < 0 and PART.encode() in data:
        return f"has no {CHECKSUM}"
    if at >= 0:
        start = at + len(_SEAL)
        end = start + len(_NO_DIGITS)
        said, has = data[start:end], f"{crc.crc32c(data[:start] + _NO_DIGITS + data[end:]):08x}"
        if said != has.encode():
            return f"has the checksum {has}, it says {said.decode('ascii', 'replace')}"
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        return f"is no JSON: {error}"
    if at >= 0 and (of := document["attributes"][PART]) != part:
        return f"is that of part {of}"
    return ""


def part_attributes(store: Store, folder: str, part: str) -> Mapping[str, Any]:
    """Read the attributes of a part's group, one small object.

    Parameters
    ----------
    folder
        Key of the folder of the part, which may lie below another table that it was copied from.

    Raises
    ------
    NotFoundError
        The part has no document.
    IntegrityError
        The document is not as it was written.
    """
    key = f"{folder}/zarr.json"
    data = store.get(key)
    if flaw := find_document_flaw(data, part):
        raise IntegrityError(f"{store.url}/{key}, which says where part {part} came from, {flaw}; restore it")
    document = json.loads(data)
    found = document.get("attributes") if isinstance(document, Mapping) else None
    return found if isinstance(found, Mapping) else {}


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
    """Read the origin of a part from the attributes of its Zarr group, one small object.

    Raises
    ------
    IntegrityError
        The document of the group is not as it was written.
    """
    try:
        attributes = part_attributes(store, part_key(table, part), part)
    except NotFoundError:  # of another writer: it says nothing
        return Provenance(part)
    return Provenance(
        part,
        source=str(attributes.get("source", "")),
        format=str(attributes.get("source_format", "")),
        revision=str(attributes.get("source_revision", "")),
        licence=str(attributes.get("licence", "")),
        attribution=str(attributes.get("attribution", "")),
        references=str(attributes.get("references", "")),
    )
