"""The commands ``tensorbank replace-modality`` and ``tensorbank add-modality``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tensorbank.cli import AwsProfile, BankUrl, Endpoint, Json, Region, bank_at, say
from tensorbank_indexer.commands import Engine, Form, ReportFile, SingleWriter, SourceUrl, Workers

if TYPE_CHECKING:
    from tensorbank.bank import Bank
    from tensorbank_indexer.modality_changes import ModalityReport
    from tensorbank_indexer.options import IngestOptions
    from tensorbank_indexer.source import Source

__all__ = ["add_modality", "replace_modality"]

Table = Annotated[str, typer.Option(help="Table to change.")]
Name = Annotated[str, typer.Option(help="Name of the modality, in the archives and in the table.")]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="SQL", help="Condition on columns of samples; only where it holds anything changes."
    ),
]
Profile = Annotated[str, typer.Option(help="Codec profile of the new shards.")]
Revision = Annotated[str | None, typer.Option(help="Revision of the source, for the history.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Commit nothing if anything was damaged, missing or doubtful.")
]


def replace_modality(
    source: SourceUrl,
    bank: BankUrl,
    table: Table,
    modality: Name,
    where: Where = None,
    form: Form = None,
    profile: Profile = "balanced",
    workers: Workers = None,
    engine: Engine = "processes",
    revision: Revision = None,
    strict: Strict = False,
    single_writer: SingleWriter = False,
    report: ReportFile = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Replace a modality of the samples that the archives have; the other samples keep theirs, and other modalities stay."""
    from tensorbank_indexer.modality_changes import replace_modality as change

    opened = bank_at(bank, endpoint, region, aws_profile)
    options = _options(profile, workers, engine, revision, strict, single_writer)
    _run(change, "replace-modality", source, form, opened, table, modality, options, where, report, as_json)


def add_modality(
    source: SourceUrl,
    bank: BankUrl,
    table: Table,
    modality: Name,
    where: Where = None,
    form: Form = None,
    profile: Profile = "balanced",
    workers: Workers = None,
    engine: Engine = "processes",
    revision: Revision = None,
    strict: Strict = False,
    single_writer: SingleWriter = False,
    report: ReportFile = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Give samples of a table a modality that they lack, from the archives that have it; other modalities stay."""
    from tensorbank_indexer.modality_changes import add_modality as change

    opened = bank_at(bank, endpoint, region, aws_profile)
    options = _options(profile, workers, engine, revision, strict, single_writer)
    _run(change, "add-modality", source, form, opened, table, modality, options, where, report, as_json)


def _options(
    profile: str, workers: int | None, engine: str, revision: str | None, strict: bool, single_writer: bool
) -> IngestOptions:
    from tensorbank_indexer.options import IngestOptions

    return IngestOptions(
        profile=profile,
        n_workers=workers,
        engine=engine,
        revision=revision,
        strict=strict,
        single_writer=single_writer,
    )


def _run(
    change: Callable[..., ModalityReport],
    operation: str,
    source: str,
    form: str | None,
    bank: Bank,
    table: str,
    modality: str,
    options: IngestOptions,
    where: str | None,
    report_file: Path | None,
    as_json: bool,
) -> None:
    """Make a change with a bar of progress, and print its report."""
    from tensorbank.cli import progress_bar
    from tensorbank_indexer.modality_changes import ModalityReport
    from tensorbank_indexer.sources import open_source

    opened: Source = open_source(source, format=form)
    report = ModalityReport(operation, table, modality, opened.root)
    try:
        with progress_bar() as progress:
            change(opened, bank, table, modality, options, where=where, progress=progress, report=report)
    finally:
        if report_file is not None:
            report_file.write_text(report.to_json())
    say(report.to_json() if as_json else report.summary())
