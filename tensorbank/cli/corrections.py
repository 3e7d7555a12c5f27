"""The commands that correct a table: each makes one version of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tensorbank.cli.options import AwsProfile, BankUrl, Endpoint, Json, Region, TableName, bank_at
from tensorbank.cli.output import counted, fields, print_table, say

__all__ = ["copy", "delete", "diff", "drop_modality", "rename", "restore"]


def copy(
    bank: BankUrl,
    table: TableName,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Name of the new table.")],
    at: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION", help="Version to copy: its number, a tag or a time; the newest by default."
        ),
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Make another table with the samples of one. Tensors are not copied: both tables lead to the same ones."""
    opened = bank_at(bank, endpoint, region, aws_profile)
    made = opened.copy(table, new, version=None if at is None else _named(at))
    snapshot = made.snapshot()
    if as_json:
        say(json.dumps(fields(snapshot)))
    else:
        say(f"table {new} has {counted(snapshot.n_samples, 'sample')}; its tensors are those of {table}")


def rename(
    bank: BankUrl,
    table: TableName,
    new: Annotated[str, typer.Argument(metavar="NEW", help="New name of the table.")],
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Give a table another name. Its history is kept, its tensors stay where they are."""
    named = bank_at(bank, endpoint, region, aws_profile).rename(table, new)
    snapshot = named.snapshot()
    say(json.dumps(fields(snapshot)) if as_json else f"{table} is {new} now, at version {snapshot.version}")


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


def diff(
    bank: BankUrl,
    table: TableName,
    a: Annotated[
        str, typer.Argument(metavar="A", help="Version: its number, a tag, or a time such as 2026-03-01.")
    ],
    b: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Version to compare with it; the newest by default.")
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(help="Write the samples that differ to this .parquet or .csv file.", show_default=False),
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Show what differs in version B of a table from version A: samples, statistics, modalities, columns."""
    opened = bank_at(bank, endpoint, region, aws_profile).table(table)
    found = opened.diff(_named(a), None if b is None else _named(b), ids=ids)
    if as_json:
        say(json.dumps(fields(found) | {"statistics": [fields(moved) for moved in found.statistics]}))
        return
    say(
        f"{table} from version {found.a} to {found.b}: {counted(found.n_added, 'sample')} added, {found.n_removed:,} removed, "
        f"{found.n_changed:,} changed"
    )
    for name, n in found.changed.items():
        say(f"{name}: another tensor in {counted(n, 'sample')}")
    for name, n in found.values_changed.items():
        say(f"{name}: another value in {counted(n, 'sample')}")
    for what, names in (
        ("modalities added", found.modalities_added),
        ("modalities dropped", found.modalities_dropped),
        ("columns added", found.columns_added),
        ("columns dropped", found.columns_dropped),
    ):
        if names:
            say(f"{what}: {', '.join(names)}")
    rows = [
        (m.modality, m.name, field, _number(m.before.get(field)), _number(m.after.get(field)))
        for m in found.statistics
        for field in (m.before or m.after)
        if m.before.get(field) != m.after.get(field)
    ]
    if rows:
        print_table(("modality", "band or class", "statistic", "before", "after"), rows)


def _named(version: str) -> int | str:
    return int(version) if version.isdecimal() else version


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


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
    done = opened.restore(_named(version))
    if as_json:
        say(json.dumps(fields(done)))
    elif done.changed:
        say(f"version {done.version} of {table} holds what version {done.restored} held")
    else:
        say(
            f"version {done.version} of {table} holds what version {done.restored} held already; nothing was written"
        )


def drop_modality(
    bank: BankUrl,
    table: TableName,
    name: Annotated[str, typer.Argument(metavar="MODALITY", help="Name of the modality.")],
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Remove a modality from a table: no query sees it any more; older versions keep it, and so do the bytes."""
    done = bank_at(bank, endpoint, region, aws_profile).table(table).drop_modality(name)
    if as_json:
        told = {"table": table, "modality": name, "version": done.version, "changed": done.added}
        say(json.dumps(told))
    elif done.added:
        say(f"{table}: {name} is dropped; version {done.version}")
    else:
        say(f"{table}: {name} was dropped already; nothing to change at version {done.version}")
