"""The command ``tensorbank lineage``: which samples a checkpoint has seen, and what became of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tensorbank.cli.options import AwsProfile, BankUrl, Endpoint, Json, Region, bank_at
from tensorbank.cli.output import counted, print_table, say

if TYPE_CHECKING:
    from tensorbank_loader import RunLineage, TableLineage

__all__ = ["lineage"]


def lineage(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="File of JSON, torch.save or Lightning with a loader's state, or a folder of torch.distributed.checkpoint.",
        ),
    ],
    bank: BankUrl,
    plan: Annotated[
        list[Path] | None,
        typer.Option(
            help="Saved plan of the run, where the checkpoint does not tell its statement; once for each plan of a mix."
        ),
    ] = None,
    bad: Annotated[
        list[Path] | None,
        typer.Option(help="What `tensorbank verify --json` printed: samples that were found bad."),
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="Also write one line a seen sample to this file, as JSON.")
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Tell which samples the run of a checkpoint has seen, and which were replaced, deleted or found bad since."""
    from tensorbank.plans import Plan, lineage_of

    runs = lineage_of(
        checkpoint,
        bank_at(bank, endpoint, region, aws_profile),
        plans=[Plan.load(path) for path in plan or []],
        reports=bad or [],
    )
    if ids is not None:
        with ids.open("w", encoding="utf-8") as file:
            for run in runs:
                for table in run.tables:
                    _write_ids(file, table)
    if as_json:
        say(json.dumps([_described(run) for run in runs]))
        return
    for run in runs:
        say(
            f"plan {run.fingerprint} of {counted(run.n_selected, 'sample')}: up to batch {run.batch:,} of {run.n_batches:,} in "
            f"epoch {run.epoch:,}"
        )
    rows = [(t.table, t.version, t.newest, run.epoch, *_numbers(t)) for run in runs for t in run.tables]
    print_table(
        (
            "table",
            "snapshot",
            "newest",
            "epochs done",
            "seen once",
            "more often",
            "deleted",
            "replaced",
            "bad",
        ),
        rows,
    )


def _numbers(table: TableLineage) -> tuple[int, ...]:
    n_more_often = table.n_more_often
    once = table.n_seen - n_more_often
    return once, n_more_often, table.n_deleted, table.n_replaced, table.n_bad


def _described(run: RunLineage) -> dict[str, Any]:
    """Return a lineage without its samples, for programs."""
    tables = [
        {
            "table": t.table,
            "version": t.version,
            "newest": t.newest,
            "n_seen": t.n_seen,
            "n_more_often": t.n_more_often,
            "n_deleted": t.n_deleted,
            "n_replaced": t.n_replaced,
            "n_bad": t.n_bad,
        }
        for t in run.tables
    ]
    return {
        "fingerprint": run.fingerprint,
        "n_selected": run.n_selected,
        "epoch": run.epoch,
        "batch": run.batch,
        "n_batches": run.n_batches,
        "tables": tables,
    }


def _write_ids(file: Any, table: TableLineage) -> None:
    """Write the seen samples of a table, one line of JSON each."""
    for batch in table.samples.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            file.write(json.dumps({"table": table.table, "version": table.version, **row}) + "\n")
