"""An ingest in the caller's process leaves the caller's settings of numcodecs as they are."""

from __future__ import annotations

import numcodecs.blosc
import pytest

import tensorbank as tb
from tensorbank_demo.landscape import write_archives
from tensorbank_indexer import IngestOptions, ingest, open_source


@pytest.mark.parametrize("callers", [None, True])
def test_the_callers_setting_stays(tmp_path, write_members, monkeypatch, callers):
    monkeypatch.setattr(numcodecs.blosc, "use_threads", callers)
    report = ingest(
        open_source(str(write_members(2))), tb.create(tmp_path / "bank"), "t", IngestOptions(n_workers=1)
    )
    assert report.n_added == 2
    write_archives(tmp_path / "made", n_samples=1, samples_per_tar=1, seed=1)
    assert numcodecs.blosc.use_threads is callers
