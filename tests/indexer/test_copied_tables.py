"""Tables that were copied: their pixels lie below the name of another table."""

from __future__ import annotations

import numpy as np
import zarr

import tensorbank as tb
from tensorbank.verification import verify
from tensorbank_indexer import IngestOptions, ingest, open_source

INLINE = IngestOptions(n_workers=1, samples_per_shard=8)


def test_pixels_of_a_copied_table(make_archives, tmp_path):
    source, _ = make_archives("terramesh", "--samples", "6", "--per-tar", "6", "--subset", "majortom")
    bank = tb.create(tmp_path / "bank")
    ingest(open_source(str(source)), bank, "t", INLINE)
    bank.copy("t", "c")
    t, c = bank.table("t"), bank.table("c")
    name = bank.sql("SELECT min(sample_id) AS id FROM t").arrow()["id"][0].as_py()
    old, new = t.read(name), c.read(name)
    assert old.keys() == new.keys()
    assert all(np.array_equal(new[m], old[m], equal_nan=True) for m in old)
    assert verify(bank, "c").sound
    assert verify(bank, "c").n_blocks == verify(bank, "t").n_blocks
    assert c.parts() == t.parts()
    assert c.provenance() == t.provenance()
    for url in c.parts().values():
        assert zarr.open_group(url.removeprefix("file://"), mode="r")["S2L2A"].shape[0] == 6
    predicate = "SELECT sample_id FROM {} WHERE pixels_share(S2L2A.B08, '> 2000') > 0.37 ORDER BY sample_id"
    assert bank.sql(predicate.format("c")).arrow().equals(bank.sql(predicate.format("t")).arrow())
    report = ingest(open_source(str(source)), bank, "c", INLINE)
    assert (report.n_added, report.n_present) == (0, 6)
    assert not [f for f in report.findings if f.kind in ("changed-source", "new-source-file")]
