"""The ``tensorbank compact`` command: maintenance of a table's index."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from tensorbank.cli.options import AwsProfile, BankUrl, Endpoint, Json, Region, TableName, bank_at
from tensorbank.cli.output import counted, print_table, say, size
from tensorbank.cli.progress import progress_bar

__all__ = ["compact"]


def compact(
    bank: BankUrl,
    table: TableName,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do, and write nothing.")
    ] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Merge small index files of a table into sorted ones, and drop the rows of deleted samples. Snapshots stay as they are."""
    opened = bank_at(bank, endpoint, region, aws_profile).table(table)
    with progress_bar() as progress:
        done = opened.compact(dry_run=dry_run, progress=progress)
    if as_json:
        say(json.dumps(dataclasses.asdict(done)))
        return
    if not done.changed:
        say(f"{table} at version {done.version} is compact; there is nothing to do")
        return
    n_files = sum(done.merged.values())
    if dry_run:
        say(f"{table} at version {done.version}: {counted(n_files, 'index file')} would be merged")
        print_table(
            ("level", "files", "to merge"),
            [(n, s.files_before, done.merged.get(n, 0)) for n, s in done.levels.items()],
        )
        return
    dropped = f", {counted(done.n_dropped, 'row')} of deleted samples dropped" if done.n_dropped else ""
    say(f"{table} at version {done.version}: {counted(n_files, 'index file')} merged{dropped}")
    rows = [
        (name, f"{s.files_before} -> {s.files_after}", f"{size(s.bytes_before)} -> {size(s.bytes_after)}")
        for name, s in done.levels.items()
    ]
    print_table(("level", "files", "bytes"), rows)
