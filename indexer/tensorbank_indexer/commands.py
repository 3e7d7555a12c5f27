"""The commands ``tensorbank ingest``, ``commit`` and ``repair``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tensorbank.cli import AwsProfile, BankUrl, Endpoint, Json, Region, bank_at, say

__all__ = [
    "Engine",
    "Form",
    "ReportFile",
    "SingleWriter",
    "SourceUrl",
    "Workers",
    "commit",
    "ingest",
    "repair",
]

SourceUrl = Annotated[str, typer.Argument(metavar="SOURCE", help="Folder or fsspec URL of the archives.")]
Form = Annotated[
    str | None, typer.Option("--format", help="Archive format; detected from the layout if not given.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes, as many as processors if not given; of a cluster that is there, the most shards at a time."
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="processes|dask|tcp://SCHEDULER:PORT",
        help="What reads, measures and encodes: processes, a Dask cluster of this machine, or one that has a scheduler.",
    ),
]
EngineWait = Annotated[
    float, typer.Option(help="Seconds to wait for a scheduler, and for workers while there are none.")
]
SingleWriter = Annotated[
    bool,
    typer.Option(
        "--single-writer", help="Allow a store without conditional writes; only if one process ever writes."
    ),
]
ReportFile = Annotated[Path | None, typer.Option(help="Also write the report to this file.")]


def ingest(
    source: SourceUrl,
    bank: BankUrl,
    table: Annotated[str, typer.Option(help="Table to add to; made if there is none.")],
    form: Form = None,
    profile: Annotated[
        str, typer.Option(help="Codec profile: balanced, small, hot or raw; auto measures and says why.")
    ] = "balanced",
    reader_cores: Annotated[
        int, typer.Option(help="Cores of a reading machine that are free to decode; for --profile auto.")
    ] = 8,
    reader_network_gbps: Annotated[
        float, typer.Option(help="Network of a reading machine, Gbit/s; for --profile auto.")
    ] = 25.0,
    workers: Workers = None,
    engine: Engine = "processes",
    engine_wait_s: EngineWait = 120.0,
    samples_per_shard: Annotated[
        int | None, typer.Option(help="Samples per shard; chosen by the size of a sample if not given.")
    ] = None,
    global_order: Annotated[
        bool,
        typer.Option(
            "--global-order",
            help="List all archives first, and order samples by season and place over all of them, not batch by batch.",
        ),
    ] = False,
    max_sample_bytes: Annotated[
        int | None,
        typer.Option(
            help="Decoded bytes that a sample may have, 512 MiB if not given; raise it for archives that you trust."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Revision of the source, to be kept with the part.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Commit nothing if anything was damaged or missing.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(help="Licence, to be kept with the part; the dataset's own if not given.")
    ] = None,
    single_writer: SingleWriter = False,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh", help="Replace modalities whose files are other ones now, add those that came later."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; tell what is new, and what has changed.")
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER/TASKS",
            help="Be one task of an array job: write the parts of a share of the archives, and leave the commit to "
            "`tensorbank commit`. In SLURM: $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT.",
        ),
    ] = None,
    report: ReportFile = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Turn archives into shards, statistics and a snapshot; a second run adds only what is new."""
    from tensorbank.cli import progress_bar
    from tensorbank_indexer.containers import ReadLimits
    from tensorbank_indexer.ingestion import ingest as run
    from tensorbank_indexer.options import ArrayTask, IngestOptions
    from tensorbank_indexer.reports import IngestReport
    from tensorbank_indexer.sources import open_source

    options = IngestOptions(
        profile=profile,
        n_workers=workers,
        samples_per_shard=samples_per_shard,
        global_order=global_order,
        revision=revision,
        strict=strict,
        single_writer=single_writer,
        licence=licence,
        refresh=refresh,
        dry_run=dry_run,
        reader_cores=reader_cores,
        reader_network_gbps=reader_network_gbps,
        engine=engine,
        engine_wait_s=engine_wait_s,
        task=None if task is None else ArrayTask.parse(task),
    )
    limits = ReadLimits() if max_sample_bytes is None else ReadLimits(max_sample_bytes=max_sample_bytes)
    opened = open_source(source, format=form, limits=limits)
    done = IngestReport.of(opened, table)
    try:
        with progress_bar() as progress:
            run(
                opened,
                bank_at(bank, endpoint, region, aws_profile),
                table,
                options,
                progress=progress,
                report=done,
            )
    finally:
        if report is not None:
            report.write_text(done.to_json())
    say(done.to_json() if as_json else done.summary())
    for line in [] if as_json else done.choices:
        say(f"  {line}")
    for line in done.changes():
        typer.echo(f"  {line}", err=True)
    if done.n_changed and not refresh:
        typer.echo(
            f"error: the archives of {done.n_changed} samples have changed since they were ingested; --refresh replaces these "
            "samples, in the modalities that changed, by what the archives hold now",
            err=True,
        )
        raise typer.Exit(1)


def commit(
    bank: BankUrl,
    table: Annotated[str, typer.Option(help="Table whose finished parts are to be shown.")],
    single_writer: SingleWriter = False,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Show what the tasks of array jobs have written. 1 if a task has not finished, or a part cannot be shown."""
    from tensorbank.cli import progress_bar
    from tensorbank_indexer.array_jobs import commit_parts

    with progress_bar() as progress:
        done = commit_parts(
            bank_at(bank, endpoint, region, aws_profile),
            table,
            single_writer=single_writer,
            progress=progress,
        )
    for line in [done.to_json()] if as_json else done.lines():
        say(line)
    if not done.is_whole:
        raise typer.Exit(1)


def repair(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Folder or fsspec URL of the archives; - if there are none any more."
        ),
    ],
    bank: BankUrl,
    table: Annotated[str, typer.Option(help="Table to repair.")],
    form: Form = None,
    deep: Annotated[
        bool, typer.Option("--deep/--quick", help="Look at every block, or only at shards as a whole.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what can be repaired, and write nothing.")
    ] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Verify a table, and derive again what is lost, damaged or wrong. 1 if anything is left.

    Shards and rows of samples follow from archives, all else from what is left of the table.
    """
    import json
    from dataclasses import asdict
    from functools import partial

    from tensorbank.cli import progress_bar
    from tensorbank_indexer.repairs import repair as run
    from tensorbank_indexer.sources import open_source

    opened = None if source == "-" else open_source(source, format=form)
    with progress_bar() as progress:
        done = run(
            opened,
            bank_at(bank, endpoint, region, aws_profile),
            table,
            deep=deep,
            dry_run=dry_run,
            progress=partial(progress, "verify"),
        )
    if as_json:
        say(json.dumps(asdict(done)))
    else:
        would = "can be" if dry_run else "were"
        say(
            f"{table} at version {done.version}: {done.n_findings} findings; {len(done.repaired)} objects {would} put back, "
            f"{len(done.replaced)} index files {would} replaced; {len(done.left)} findings are left"
        )
        for one in done.left:
            say(f"  {one.kind} {one.key}: {one.reason}")
    if done.left:
        raise typer.Exit(1)
