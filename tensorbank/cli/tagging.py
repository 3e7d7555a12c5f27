"""The ``tensorbank tag`` command: names of snapshots, which keep them."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from tensorbank.cli.options import (
    At,
    AwsProfile,
    BankUrl,
    Endpoint,
    Json,
    Region,
    TableName,
    bank_at,
    table_at,
)
from tensorbank.cli.output import print_table, say
from tensorbank.errors import InvalidInputError
from tensorbank.retention import Tag

__all__ = ["tag"]


def tag(
    bank: BankUrl,
    table: TableName,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of the tag, such as paper-v1.")
    ] = None,
    at: At = None,
    message: Annotated[str, typer.Option("--message", "-m", help="What the tag is for.")] = "",
    delete: Annotated[bool, typer.Option("--delete", help="Take the name away.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the tags of the table.")] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Give a version of a table a name that keeps it; list or delete such names. A tag is never moved."""
    opened = table_at(bank_at(bank, endpoint, region, aws_profile), table, at)
    if listed:
        if name is not None or delete or at is not None:
            raise InvalidInputError("--list goes with no NAME, --at or --delete")
        _list(opened.tags(), as_json=as_json)
        return
    if name is None:
        raise InvalidInputError("give the NAME of a tag, or --list")
    if delete:
        if at is not None:
            raise InvalidInputError("--delete goes with no --at: a tag has one version")
        opened.untag(name)
        say(json.dumps({"deleted": name}) if as_json else f"{table} has no tag {name} any more")
        return
    made = opened.tag(name, message=message)
    say(json.dumps(_fields(made)) if as_json else f"{table} at version {made.version} is {made.name}")


def _list(tags: list[Tag], *, as_json: bool) -> None:
    if as_json:
        say(json.dumps([_fields(t) for t in tags]))
        return
    rows = [(t.name, t.version, t.created.isoformat(sep=" "), str(t.owner), t.message) for t in tags]
    print_table(("tag", "version", "time", "made by", "message"), rows)


def _fields(tag: Tag) -> dict[str, object]:
    return {**dataclasses.asdict(tag), "created": tag.created.isoformat()}
