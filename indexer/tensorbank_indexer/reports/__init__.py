"""Reports of an ingest: what was done, kinds of findings, and seconds of each stage."""

from __future__ import annotations

from tensorbank_indexer.reports.finding_kinds import CHANGES, HARMLESS, REFRESHED
from tensorbank_indexer.reports.report import IngestReport
from tensorbank_indexer.reports.stage_seconds import StageClock, StageSeconds

__all__ = [
    "CHANGES",
    "HARMLESS",
    "REFRESHED",
    "IngestReport",
    "StageClock",
    "StageSeconds",
]
