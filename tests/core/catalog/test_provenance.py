"""The document of a part says where the part came from, and no longer does so once a bit of it is another."""

from __future__ import annotations

import json

import google_crc32c
import pytest

from tensorbank import IntegrityError
from tensorbank.catalog import Provenance, find_document_flaw, part_document, provenance_of
from tensorbank.storage import Store

ATTRIBUTES = {"source": "/data/TerraMesh", "source_format": "terramesh", "source_revision": "sha256:1234"}
ARRAYS = {"DEM": {"zarr_format": 3, "node_type": "array", "attributes": {"tensorbank.crc32c": "none"}}}
KEY = "t/tensors/part-1/zarr.json"


@pytest.fixture
def document() -> bytes:
    return part_document("part-1", ATTRIBUTES, ARRAYS)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path.as_uri())


def test_the_checksum_is_that_of_the_document_with_its_digits_as_zeros(document):
    said = json.loads(document)["attributes"]["tensorbank.crc32c"]
    assert document.count(said.encode()) == 1
    checksum = google_crc32c.Checksum(document.replace(said.encode(), b"00000000"))
    assert checksum.digest().hex() == said
    assert find_document_flaw(document, "part-1") == ""


def test_what_was_written_is_read(store, document):
    store.put(KEY, document)
    found = provenance_of(store, "t", "part-1")
    assert found == Provenance("part-1", "/data/TerraMesh", "terramesh", "sha256:1234")


def test_every_flipped_bit_is_an_error_that_names_the_document(store, document):
    unnoticed = []
    for bit in range(8 * len(document)):
        body = bytearray(document)
        body[bit // 8] ^= 1 << bit % 8
        if not find_document_flaw(bytes(body), "part-1"):
            unnoticed.append(bit)
    assert unnoticed == []
    store.put(KEY, document.replace(b"TerraMesh", b"TerraMush"))
    with pytest.raises(IntegrityError, match=KEY):
        provenance_of(store, "t", "part-1")


def test_the_document_of_another_part_is_refused(store, document):
    store.put("t/tensors/part-2/zarr.json", document)
    with pytest.raises(IntegrityError, match="is that of part part-1"):
        provenance_of(store, "t", "part-2")


def test_other_writers_need_no_checksum(store):
    plain = json.dumps(
        {"zarr_format": 3, "node_type": "group", "attributes": {"source": "elsewhere"}}
    ).encode()
    assert find_document_flaw(plain, "part-1") == ""
    store.put(KEY, plain)
    assert provenance_of(store, "t", "part-1").source == "elsewhere"
    assert provenance_of(store, "t", "part-3") == Provenance("part-3")
