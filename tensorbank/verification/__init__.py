"""Verification of a stored snapshot: the checksum of every block, and the documents that other readers go by."""

from __future__ import annotations

from tensorbank.verification.blocks import verify

__all__ = [
    "verify",
]
