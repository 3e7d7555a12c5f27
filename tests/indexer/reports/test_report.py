"""Reports as values: what counts as left out, what strict refuses, and what is said in one line."""

from __future__ import annotations

import json

import pytest

from tensorbank_indexer.reports import HARMLESS, IngestReport, StageClock, StageSeconds
from tensorbank_indexer.source import Finding


def finding(kind: str) -> Finding:
    return Finding(kind, "a.tar", "as it was found", "what was done")


@pytest.fixture
def report() -> IngestReport:
    report = IngestReport("/archives", "t", "terramesh", n_found=10, n_added=6, n_present=3, n_elsewhere=1)
    report.findings += [finding("stray-file"), finding("missing-member"), finding("changed-source")]
    report.findings += [finding("missing-member")]
    report.elapsed_s, report.tensor_bytes, report.stored_bytes = 2.0, 5_000_000, 3_000_000
    return report


def test_what_is_neither_added_nor_there_is_left_out(report):
    assert report.n_skipped == 1


def test_strict_refuses_what_cost_data_and_no_more(report):
    assert [f.kind for f in report.harmful] == ["missing-member", "changed-source", "missing-member"]
    assert "stray-file" in HARMLESS


def test_one_line_tells_each_count(report):
    assert report.summary() == (
        "t: 6 samples added; 2 were there already; 1 were added by another ingest meanwhile; 1 left out; "
        "5 MB as 3 MB; 3.0 samples/s; findings: 1 changed-source, 2 missing-member, 1 stray-file"
    )


def test_changed_archives_are_told_one_by_one(report):
    assert report.changes() == ["changed-source: as it was found; what was done"]


def test_the_whole_report_is_json(report):
    record = json.loads(report.to_json())
    assert record["n_skipped"] == 1
    assert record["findings"][1]["kind"] == "missing-member"
    assert record["seconds"] == {"read": 0.0, "statistics": 0.0, "encode": 0.0, "write": 0.0}


def test_seconds_of_tasks_add_up_stage_by_stage():
    seconds = StageSeconds(1, 2, 3, 4)
    seconds.add(StageSeconds(10, 20, 30, 40))
    assert seconds == StageSeconds(11, 22, 33, 44)
    assert seconds.total == 110


def test_a_stage_that_raises_is_counted_too(monkeypatch):
    now = iter([5.0, 7.5])
    monkeypatch.setattr("tensorbank_indexer.reports.stage_seconds.time.perf_counter", lambda: next(now))
    clock = StageClock()
    with pytest.raises(ValueError, match="broken"), clock.stage("encode"):
        raise ValueError("broken")
    assert clock.seconds == StageSeconds(encode=2.5)
