"""The commands that look at a bank: its tables, their versions, rows and soundness."""

from __future__ import annotations

import dataclasses
import functools
import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from tensorbank.bank import Table
from tensorbank.catalog import Provenance, SnapshotInfo
from tensorbank.cli.options import (
    At,
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
    table_at,
    workers_of,
)
from tensorbank.cli.output import Format, counted, fields, print_table, say, size, write_rows
from tensorbank.cli.progress import progress_bar
from tensorbank.errors import InvalidInputError

__all__ = ["history", "query", "show", "tables", "verify"]

DAMAGED = 1
"""The exit status of ``verify`` where anything is wrong."""


def tables(
    bank: BankUrl,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """List the tables of a bank."""
    opened = bank_at(bank, endpoint, region, aws_profile)
    snapshots = [opened.table(name).snapshot() for name in opened.tables()]
    if as_json:
        say(json.dumps([fields(s) for s in snapshots]))
        return
    if not snapshots:
        say(f"{opened.url} has no table yet; `tensorbank ingest SOURCE {bank} --table NAME` makes one")
        return
    rows = [
        (
            s.table,
            s.version,
            f"{s.n_samples:,}",
            size(s.tensor_bytes),
            size(s.stored_bytes),
            size(s.index_bytes),
        )
        for s in snapshots
    ]
    print_table(("table", "version", "samples", "tensors", "stored", "index"), rows)


def show(
    bank: BankUrl,
    table: TableName,
    at: At = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Show the modalities, bands, sizes and statistics of a table."""
    opened = table_at(bank_at(bank, endpoint, region, aws_profile), table, at)
    schema, snapshot = opened.schema, opened.snapshot()
    if as_json:
        modalities = [json.loads(m.to_json()) for m in schema]
        described = {name: dataclasses.asdict(s) for name, s in opened.describe().items()}
        told = [fields(p) for p in _provenance(opened)]
        about = {"modalities": modalities, "statistics": described, "provenance": told}
        say(json.dumps(fields(snapshot) | about))
        return
    share = snapshot.index_bytes / snapshot.tensor_bytes if snapshot.tensor_bytes else 0.0
    say(
        f"{table} at version {snapshot.version}: {counted(snapshot.n_samples, 'sample')} in "
        f"{counted(snapshot.n_parts, 'part')} and {counted(snapshot.n_shards, 'shard group')}\n"
        f"{size(snapshot.tensor_bytes)} of tensors stored as {size(snapshot.stored_bytes)}, "
        f"index {size(snapshot.index_bytes)} ({share:.2%} of the tensors)"
    )
    origins = _provenance(opened)
    for name in ("licence", "attribution"):
        for text in sorted({getattr(p, name) for p in origins} - {""}):
            say(f"{name}: {text}")
    rows = [
        (
            m.name,
            m.dtype,
            " x ".join(map(str, m.sample_shape)),
            ", ".join(name for _, name in m.classes) or ", ".join(m.band_names),
            str(m.attributes.get("units", "")),
        )
        for m in schema
    ]
    print_table(("modality", "dtype", "time x band x height x width", "bands or classes", "unit"), rows)
    for statistics in opened.describe().values():
        say(f"\n{statistics}")


def history(
    bank: BankUrl,
    table: TableName,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """List the versions of a table, newest first: who made each, when, by what operation, and what changed."""
    entries = bank_at(bank, endpoint, region, aws_profile).table(table).history()
    if as_json:
        say(json.dumps([fields(e) for e in entries]))
        return
    rows = [
        (e.version, e.when.isoformat(sep=" "), e.operation, f"{e.n_rows:,}", e.part or "", e.who, _told(e))
        for e in entries
    ]
    print_table(("version", "time", "operation", "samples added", "part", "who", "what changed"), rows)


def query(
    bank: BankUrl,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT statement.")],
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how much is pruned and read, instead of the rows.")
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="How to print rows.")] = Format.table,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    save: Annotated[Path | None, typer.Option(help="Save the plan to this file, for tb.Plan.load().")] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
) -> None:
    """Run a SQL query on the index. Tensors are shown by their address."""
    form = Format.json if as_json else form
    asked = bank_at(bank, endpoint, region, aws_profile).sql(sql)
    if explain or save is not None:
        plan = asked.plan()
        if save is not None:
            plan.save(save)
        if explain:
            say(json.dumps(plan.explain_json()) if form is Format.json else plan.explain())
        else:
            say(f"{counted(len(plan), 'sample')}, plan {plan.fingerprint} saved to {save}")
        return
    write_rows(asked.arrow(), form)


def verify(
    bank: BankUrl,
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="Name of a table; all tables by default.")
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also read every block, decode it, and make the statistics anew."),
    ] = False,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="With --deep: the condition of samples to read.")
    ] = None,
    sample: Annotated[float, typer.Option(help="With --deep: the share of samples to read.")] = 1.0,
    resume: Annotated[
        Path | None,
        typer.Option(help="With --deep: a file of what is verified, to go on there after an interruption."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="With --deep: threads that read and decode.")] = None,
    engine: Engine = None,
    workers: EngineWorkers = None,
    engine_wait_s: EngineWait = 120.0,
    as_json: Json = False,
) -> None:
    """Check the index, its rows and checksums, the shards it leads to, and with --deep every block. 1 if anything is wrong."""
    from tensorbank.verification import verify as run

    opened = bank_at(bank, endpoint, region, aws_profile)
    n_findings = 0
    names = [table] if table is not None else opened.tables()
    if not names:
        typer.echo(f"{opened.url} has no table, so there is nothing to verify", err=True)
    for name in names:
        with progress_bar() as progress:
            report = run(
                opened,
                name,
                deep=deep,
                where=where,
                sample=sample,
                resume=resume,
                n_threads=threads,
                workers=workers_of(engine, workers, engine_wait_s),
                progress=functools.partial(progress, "verify"),
            )
        n_findings += len(report.findings)
        if as_json:
            say(json.dumps(fields(report) | {"findings": [fields(f) for f in report.findings]}))
            continue
        blocks = f", {counted(report.n_blocks, 'block')} of {size(report.n_bytes)}" if deep else ""
        found = counted(len(report.findings), "finding")
        say(
            f"{name} at version {report.version}: {counted(report.n_samples, 'sample')} in "
            f"{counted(report.n_shards, 'shard')}, {counted(report.n_index_files, 'index file')}{blocks}: "
            f"{'all sound' if report.sound else found}"
        )
        for f in report.findings:
            ids = (
                f" ({', '.join(f.sample_ids[:3])}{', ...' if len(f.sample_ids) > 3 else ''})"
                if f.sample_ids
                else ""
            )
            say(f"  {f.kind} {f.key} {f.modality}{ids}: {f.reason}")
    if n_findings:
        raise typer.Exit(DAMAGED)


def _told(entry: SnapshotInfo) -> str:
    """Return what an operation says of itself, as words."""
    told = (
        (name.replace("_", " "), value) for name, value in entry.details.items() if value not in (None, "")
    )
    return ", ".join(f"{name}: {json.dumps(v) if isinstance(v, dict | list) else v}" for name, v in told)


def _provenance(table: Table) -> list[Provenance]:
    """Return the origins of a table's parts;
    an empty list for a bank behind a service, which does not tell.
    """
    with suppress(InvalidInputError):
        return table.provenance()
    return []
