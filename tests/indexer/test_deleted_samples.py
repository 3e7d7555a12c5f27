"""Samples that were deleted and come again: they are added anew, by parts of other names."""

from __future__ import annotations

import numpy as np

import tensorbank as tb
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_indexer.presence import deleted_from

INLINE = IngestOptions(n_workers=1, samples_per_shard=8)


def rows_of(bank: tb.Bank) -> dict[str, str]:
    rows = bank.sql("SELECT sample_id, part FROM t").arrow().to_pylist()
    assert len({r["sample_id"] for r in rows}) == len(rows)
    return {r["sample_id"]: r["part"] for r in rows}


def test_deleted_samples_are_ingested_again_and_again(make_archives, tmp_path):
    source, _ = make_archives("terramesh", "--samples", "6", "--per-tar", "6", "--subset", "majortom")
    bank = tb.create(tmp_path / "bank")
    ingest(open_source(str(source)), bank, "t", INLINE)
    first = rows_of(bank)
    pixels = bank.table("t").read(min(first))
    names = {*first.values()}
    for _ in range(2):
        assert bank.table("t").delete(f"sample_id = '{min(first)}' OR lat > 0").n_samples
        left = rows_of(bank)
        report = ingest(open_source(str(source)), bank, "t", INLINE)
        assert (report.n_added, report.n_present) == (6 - len(left), len(left))
        again = rows_of(bank)
        assert again.keys() == first.keys()
        added = {again[name] for name in again.keys() - left.keys()}
        assert not added & names
        names |= added
        read = bank.table("t").read(min(first))
        assert read.keys() == pixels.keys()
        assert all(np.array_equal(read[name], pixels[name], equal_nan=True) for name in pixels)
    assert ingest(open_source(str(source)), bank, "t", INLINE).n_added == 0


def test_a_table_without_deleted_samples_names_no_parts(tmp_path):
    assert deleted_from([], tb.create(tmp_path / "bank").catalog, "t") == frozenset()
