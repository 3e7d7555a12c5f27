"""Reports of an ingest: kinds of findings, seconds of each stage, and archives that have changed since."""

from __future__ import annotations

from tensorbank_indexer.reports.finding_kinds import HARMLESS
from tensorbank_indexer.reports.live_rows import live_rows
from tensorbank_indexer.reports.report import IngestReport
from tensorbank_indexer.reports.source_history import SourceHistory
from tensorbank_indexer.reports.stage_seconds import StageClock, StageSeconds

__all__ = [
    "HARMLESS",
    "IngestReport",
    "SourceHistory",
    "live_rows",
    "StageClock",
    "StageSeconds",
]
