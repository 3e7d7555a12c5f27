"""The arguments and options that commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from tensorbank.bank import Bank, Table
from tensorbank.engines import Workers
from tensorbank.errors import InvalidInputError
from tensorbank.opening import open as open_bank

__all__ = [
    "At",
    "AwsProfile",
    "BankUrl",
    "Endpoint",
    "Engine",
    "EngineWait",
    "EngineWorkers",
    "Json",
    "Region",
    "TableName",
    "bank_at",
    "table_at",
    "workers_of",
]

BankUrl = Annotated[
    str, typer.Argument(metavar="BANK", help="Folder or URL of the bank: file://, s3://, gs://, az://.")
]
TableName = Annotated[str, typer.Argument(metavar="TABLE", help="Name of a table.")]
Endpoint = Annotated[
    str | None,
    typer.Option(
        help="URL of an S3-compatible server.",
        envvar=["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
        show_envvar=True,
    ),
]
Region = Annotated[
    str | None,
    typer.Option(help="Region of the bucket.", envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], show_envvar=True),
]
AwsProfile = Annotated[
    str | None,
    typer.Option(
        help="Profile of ~/.aws/config and ~/.aws/credentials that has the keys.", show_default=False
    ),
]
At = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="VERSION",
        help="Version: a number, a tag, or a time such as 2026-03-01 (UTC). The newest by default.",
        show_default=False,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="processes|dask|tcp://SCHEDULER:PORT",
        help="What does it: processes, a Dask cluster of this machine, or one that has a scheduler. Threads by default.",
        show_default=False,
    ),
]
EngineWait = Annotated[
    float,
    typer.Option(
        help="With --engine: seconds to wait for a scheduler, and for workers while there are none."
    ),
]
EngineWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="With --engine: processes, or of a cluster the most tasks at a time.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def bank_at(url: str, endpoint: str | None, region: str | None, profile: str | None = None) -> Bank:
    """Open the bank of a command line; credentials come from the environment, never from arguments."""
    return open_bank(url, endpoint=endpoint, region=region, profile=profile)


def workers_of(engine: str | None, n_workers: int | None, wait_s: float) -> Workers | None:
    """Return the workers of a command line, None if it names no engine."""
    if engine is None:
        if n_workers is not None:
            raise InvalidInputError(
                "--workers are those of an engine; give --engine as well, such as --engine processes"
            )
        return None
    return Workers(engine, n_workers, wait_s)


def table_at(bank: Bank, name: str, at: str | None) -> Table:
    """Return a table at the version that the option ``--at`` gives."""
    table = bank.table(name)
    return table if at is None else table.at(int(at) if at.isdecimal() else at)
