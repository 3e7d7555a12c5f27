"""The ``tensorbank`` command."""

from __future__ import annotations

from tensorbank.cli.app import AwsProfile, BankUrl, Endpoint, Json, Region, bank_at, main, say
from tensorbank.cli.progress import progress_bar

__all__ = [
    "AwsProfile",
    "BankUrl",
    "Endpoint",
    "Json",
    "Region",
    "bank_at",
    "main",
    "progress_bar",
    "say",
]
