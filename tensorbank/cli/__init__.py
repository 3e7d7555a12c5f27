"""The ``tensorbank`` command."""

from __future__ import annotations

from tensorbank.cli.app import main
from tensorbank.cli.options import AwsProfile, BankUrl, Endpoint, Json, Region, bank_at
from tensorbank.cli.output import say
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
