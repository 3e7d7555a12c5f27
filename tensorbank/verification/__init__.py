"""Verification of a stored snapshot: its index as objects and rows, the documents that other readers go by, and every block."""

from __future__ import annotations

from tensorbank.verification.blocks import sample_differences
from tensorbank.verification.findings import Finding, FindingKind, VerifyReport
from tensorbank.verification.sample_rows import pairs_of
from tensorbank.verification.snapshot_check import verify

__all__ = [
    "Finding",
    "FindingKind",
    "VerifyReport",
    "pairs_of",
    "sample_differences",
    "verify",
]
