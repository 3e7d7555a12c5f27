"""The commands that correct a table: each makes one version of it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tensorbank.cli.options import AwsProfile, BankUrl, Endpoint, Json, Region, TableName, bank_at
from tensorbank.cli.output import counted, fields, say

__all__ = ["delete", "restore"]


def delete(
    bank: BankUrl,
    table: TableName,
    where: Annotated[
        str,
        typer.Option(
            metavar="SQL",
            help="Condition of the samples to delete, as after WHERE in a query; `true` deletes all of them.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be deleted, and change nothing.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Sentence for the history.", show_default=False)] = "",
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Delete samples by a condition in SQL, as a new version of the table. Their bytes stay for older versions."""
    opened = bank_at(bank, endpoint, region, aws_profile).table(table)
    done = opened.delete(where, reason=reason, dry_run=dry_run)
    if as_json:
        say(json.dumps(fields(done) | {"dry_run": dry_run}))
        return
    left = "no sample is left" if not done.n_left else f"{counted(done.n_left, 'sample')} left"
    if not done.n_samples:
        say(f"no sample of {table} at version {done.version} matches, so nothing was deleted; {left}")
    elif dry_run:
        say(
            f"{counted(done.n_samples, 'sample')} of {table} at version {done.version} would be deleted; {left}"
        )
    else:
        say(
            f"{counted(done.n_samples, 'sample')} of {table} deleted; version {done.version} shows it, {left}"
        )


def restore(
    bank: BankUrl,
    table: TableName,
    version: Annotated[
        str,
        typer.Argument(metavar="VERSION", help="Number of a version, a tag, or a time such as 2026-03-01."),
    ],
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Make a table what it was at a version, as a new version. The versions in between stay."""
    opened = bank_at(bank, endpoint, region, aws_profile).table(table)
    done = opened.restore(int(version) if version.isdecimal() else version)
    if as_json:
        say(json.dumps(fields(done)))
    elif done.changed:
        say(f"version {done.version} of {table} holds what version {done.restored} held")
    else:
        say(
            f"version {done.version} of {table} holds what version {done.restored} held already; nothing was written"
        )
