"""The commands ``tensorbank compact``, ``tensorbank index`` and ``tensorbank gc``: maintenance of a bank."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import timedelta
from typing import Annotated

import typer

from tensorbank.cli.options import (
    AwsProfile,
    BankUrl,
    Endpoint,
    Engine,
    EngineWait,
    EngineWorkers,
    Json,
    Region,
    TableName,
    bank_at,
    workers_of,
)
from tensorbank.cli.output import counted, print_table, say, size
from tensorbank.cli.progress import progress_bar
from tensorbank.errors import InvalidInputError

__all__ = ["compact", "gc", "index"]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def compact(
    bank: BankUrl,
    table: TableName,
    rewrite_shards: Annotated[
        bool,
        typer.Option("--rewrite-shards", help="Write shards anew without the blocks of deleted samples."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do, and write nothing.")
    ] = False,
    engine: Engine = None,
    workers: EngineWorkers = None,
    engine_wait_s: EngineWait = 120.0,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Merge small index files of a table into sorted ones, and drop the rows of deleted samples. Snapshots stay as they are."""
    opened = bank_at(bank, endpoint, region, aws_profile).table(table)
    with progress_bar() as progress:
        done = opened.compact(
            rewrite_shards=rewrite_shards,
            dry_run=dry_run,
            workers=workers_of(engine, workers, engine_wait_s),
            progress=progress,
        )
    if as_json:
        say(json.dumps(dataclasses.asdict(done)))
        return
    if not done.changed:
        say(f"{table} at version {done.version} is compact; there is nothing to do")
        return
    n_files = sum(done.merged.values())
    wasted = f"without {size(done.n_wasted_bytes)} of deleted samples"
    shards = f", {counted(done.n_rewritten, 'shard')} written anew {wasted}" if done.n_rewritten else ""
    if dry_run:
        copies = f", copies sorted by {', '.join(done.sorted_copies)} renewed" if done.sorted_copies else ""
        say(
            f"{table} at version {done.version}, would be: {counted(n_files, 'index file')} merged{shards}{copies}"
        )
        print_table(
            ("level", "files", "to merge"),
            [(n, s.files_before, done.merged.get(n, 0)) for n, s in done.levels.items()],
        )
        return
    dropped = f", {counted(done.n_dropped, 'row')} of deleted samples dropped" if done.n_dropped else ""
    say(f"{table} at version {done.version}: {counted(n_files, 'index file')} merged{dropped}{shards}")
    rows = [
        (name, f"{s.files_before} -> {s.files_after}", f"{size(s.bytes_before)} -> {size(s.bytes_after)}")
        for name, s in done.levels.items()
    ]
    print_table(("level", "files", "bytes"), rows)
    for columns, what in (
        (done.sorted_copies, "written anew"),
        (done.dropped_copies, "dropped with their columns"),
    ):
        if columns:
            say(f"copies sorted by {', '.join(columns)} {what}")


def index(
    bank: BankUrl,
    table: TableName,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Column as SQL names it, such as cloud_cover; may be given again."),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the copies of these columns.")] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Keep copies of samples sorted by columns, from which queries for few of their values are answered. Without, list them."""
    opened = bank_at(bank, endpoint, region, aws_profile).table(table)
    if not column:
        if drop:
            raise InvalidInputError("name the columns whose copies are to be dropped, by --column")
        columns = opened.sorted_copies
        if as_json:
            say(json.dumps({"table": table, "sorted_copies": columns}))
        else:
            say("\n".join(columns) if columns else f"{table} has no sorted copies")
        return
    if drop:
        for name in column:
            version = opened.drop_sorted_copy(name)
            say(
                json.dumps({"table": table, "column": name, "version": version})
                if as_json
                else f"{table} at version {version}: no copy sorted by {name} any more"
            )
        return
    for name in column:
        with progress_bar() as progress:
            done = opened.add_sorted_copy(name, progress=progress)
        if as_json:
            say(json.dumps(dataclasses.asdict(done)))
            continue
        what = f"{counted(done.n_rows, 'sample')} sorted by {done.column}"
        files = f"{counted(done.n_files, 'file')}, {size(done.n_bytes)}"
        state = "" if done.changed else ", which was there already"
        say(f"{table} at version {done.version}: {what} in {files}{state}")


def gc(
    bank: BankUrl,
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="Name of a table; all of the bank by default.")
    ] = None,
    older_than: Annotated[
        str,
        typer.Option(
            help="Age from which on what nobody needs goes: a number and s, m, h, d or w. Longer than any ingest under way."
        ),
    ] = "7d",
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without, it is only listed.")] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Remove versions that expired and objects that nobody needs. Newest, tagged and leased versions stay; --delete to do it."""
    opened = bank_at(bank, endpoint, region, aws_profile)
    with progress_bar() as progress:
        found = opened.gc(table, older_than=_age(older_than), dry_run=not delete, progress=progress)
    if as_json:
        say(json.dumps(dataclasses.asdict(found) | {"n_objects": found.n_objects, "n_bytes": found.n_bytes}))
        return
    rows = [(kind, f"{c.n_objects:,}", size(c.n_bytes)) for kind, c in found.kinds.items() if c.n_objects]
    if rows:
        print_table(("kind", "objects", "bytes"), rows)
    n_expired = sum(map(len, found.expired.values()))
    verb = "removed" if delete else "would be removed"
    what = f"{counted(found.n_objects, 'object')} of {found.n_listed:,}, {size(found.n_bytes)}"
    say(f"{what}, {verb}; {counted(n_expired, 'version')} expired")
    for name, reasons in found.kept.items():
        for version, reason in sorted(reasons.items()):
            if not reason.startswith("it was"):
                say(f"{name} at version {version} stays: {reason}")
    for text in found.damaged:
        say(f"damaged, so every version stays: {text}")
    if found.n_foreign:
        say(f"{counted(found.n_foreign, 'object')} of other programs left, such as {found.foreign[0]}")
    if rows and not delete:
        say("run again with --delete to remove them")


def _age(text: str) -> timedelta:
    """Return the time that a number with a unit says."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if not found:
        raise InvalidInputError(f"--older-than takes a number and a unit, such as 36h or 7d, got {text!r}")
    return timedelta(seconds=float(found[1]) * UNITS[found[2]])
