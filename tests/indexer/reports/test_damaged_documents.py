"""A document of a part that was damaged says nothing of what the part was made of, and is named instead."""

from __future__ import annotations

import pytest

import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank import IntegrityError
from tensorbank_indexer import IngestOptions, ingest

OPTIONS = IngestOptions(n_workers=1, n_tiles=2)


def test_a_damaged_document_is_no_reason_to_ingest_or_not(tmp_path):
    bank = tb.create(tmp_path / "bank")
    ingest(TinySource(2), bank, "t", OPTIONS)
    (path,) = tmp_path.glob("bank/t/tensors/part-*/zarr.json")
    path.write_bytes(path.read_bytes().replace(b"edition-1", b"edition-2"))
    key = path.relative_to(tmp_path / "bank").as_posix()
    for edition in (1, 2):
        with pytest.raises(IntegrityError, match=key):
            ingest(TinySource(2, edition=edition), bank, "t", OPTIONS)
