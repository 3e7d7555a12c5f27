"""The commands that add and drop columns of a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tensorbank.cli.options import AwsProfile, BankUrl, Endpoint, Json, Region, TableName, bank_at
from tensorbank.cli.output import fields, say
from tensorbank.errors import InvalidInputError

__all__ = ["add_columns", "drop_columns"]


def add_columns(
    bank: BankUrl,
    table: TableName,
    file: Annotated[
        Path, typer.Argument(help="Parquet or CSV file with an id and the values of each sample.")
    ],
    on: Annotated[str, typer.Option(help="Column that tells the sample: sample_id or key.")] = "sample_id",
    update: Annotated[
        bool, typer.Option("--update", help="Replace the values of the given samples, keep those of others.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace all values of columns that are there already.")
    ] = False,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Leave out rows of samples that the table does not have.")
    ] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Give samples scores, labels or other columns from a file; they are columns of SQL from then on."""
    if update and replace:
        raise InvalidInputError("--update keeps the values of other samples, --replace does not; choose one")
    opened = bank_at(bank, endpoint, region, aws_profile).table(table)
    unknown = "ignore" if ignore_unknown else "refuse"
    if update:
        done = opened.update_columns(str(file), on=on, unknown=unknown)
    else:
        done = opened.add_columns(str(file), on=on, replace=replace, unknown=unknown)
    if as_json:
        say(json.dumps(fields(done)))
        return
    told = ", ".join(f"{n:,} values of {name}" for name, n in done.n_values.items())
    say(f"{table} at version {done.version}: {told}")
    if done.n_nan:
        say(f"{done.n_nan:,} values were NaN, and are null")
    if done.n_unknown:
        say(f"{done.n_unknown:,} rows were of no sample of the table, and are left out")


def drop_columns(
    bank: BankUrl,
    table: TableName,
    names: Annotated[list[str], typer.Argument(help="Columns that were added later.")],
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Drop columns that were added; versions before this keep them."""
    version = bank_at(bank, endpoint, region, aws_profile).table(table).drop_columns(names)
    if as_json:
        say(json.dumps({"version": version, "dropped": names}))
        return
    say(f"{table} at version {version} has no {', '.join(names)} any more")
