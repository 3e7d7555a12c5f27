"""Ingest by the tasks of an array job: each writes the parts of its archives, on whatever node, and one commit shows them all."""

from __future__ import annotations

from tensorbank_indexer.array_jobs.finished_part import FinishedPart
from tensorbank_indexer.array_jobs.finished_task import FinishedTask
from tensorbank_indexer.array_jobs.part_commits import CommitReport, LeftPart, commit_parts

__all__ = ["CommitReport", "FinishedPart", "FinishedTask", "LeftPart", "commit_parts"]
