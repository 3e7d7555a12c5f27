"""The command ``tensorbank demo``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tensorbank.cli import Endpoint, Region, say

if TYPE_CHECKING:
    from tensorbank.bank import Bank, Snapshot
    from tensorbank_demo.job import Answer
    from tensorbank_demo.landscape import DemoTruth
    from tensorbank_indexer import IngestReport

__all__ = ["demo"]


def demo(
    samples: Annotated[int, typer.Option(help="Samples to make.", min=8)] = 240,
    bank: Annotated[
        str | None,
        typer.Option(
            metavar="BANK",
            help="A bank of your own instead of the built-in S3 server: empty, or of an earlier demo.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the contact sheet.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Seed of the made-up world.")] = 7,
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Run the whole job once: make archives, ingest them, query, stream into a PyTorch loop, check every tensor."""
    from tensorbank.cli import progress_bar
    from tensorbank_demo.job import QUESTIONS, TABLE, check, draw, load_archives, stream

    with (
        tempfile.TemporaryDirectory(prefix="tensorbank-demo-") as folder,
        _opened(bank, endpoint, region) as opened,
    ):
        with progress_bar() as progress:
            truth, report = load_archives(opened, Path(folder), samples, seed, progress)
            answers: list[Answer] = []
            for question in QUESTIONS:
                progress("stream", len(answers), len(QUESTIONS))
                answers.append(stream(opened, question))
            progress("stream", len(answers), len(QUESTIONS))
            n_tensors = check(opened, truth, lambda n: progress("check", n, len(truth.crc32)))
        sheet = out / "contact-sheet.png"
        draw(opened, sheet)
        say(_ingested(truth, report, opened.table(TABLE).snapshot()))
        say(_asked(answers))
        say(f"every tensor of one epoch equals its source: {n_tensors} of {len(truth.crc32)} by CRC-32")
        say(f"a batch, one row a sample: {sheet}\n")
        say(_next_lines(opened.url, bank is None))


@contextmanager
def _opened(url: str | None, endpoint: str | None, region: str | None) -> Iterator[Bank]:
    """Return the caller's bank, or one on an S3 server that lives as long as the block."""
    from tensorbank.opening import create
    from tensorbank_demo.s3 import S3Server

    if url is not None:
        yield create(url, endpoint=endpoint, region=region)
        return
    with tempfile.TemporaryDirectory(prefix="tensorbank-cache-") as cache, S3Server.start() as server:
        yield create(
            server.url,
            endpoint=server.endpoint,
            access_key=server.access_key,
            secret_key=server.secret_key,
            region=server.region,
            cache=cache,
        )


def _ingested(truth: DemoTruth, report: IngestReport | None, snapshot: Snapshot) -> str:
    """Say in three lines what was ingested, or that it was in the bank already."""
    if report is None:
        return f"\ningested   nothing: the {snapshot.n_samples} samples are there already\n"
    seconds = report.seconds
    stages = ", ".join(
        f"{name} {getattr(seconds, name) / seconds.total:.0%}"
        for name in ("read", "statistics", "encode", "write")
    )
    return (
        f"\ningested   {report.n_added} samples of {truth.n_tars} tars, {_mb(report.tensor_bytes)} of tensors as "
        f"{_mb(report.stored_bytes)}\n"
        f"           {report.n_added / report.elapsed_s:.1f} samples/s, {report.tensor_bytes / 1e6 / report.elapsed_s:.0f} "
        f"MB/s of tensors ({stages})\n"
        f"index      {_mb(snapshot.index_bytes)}, {snapshot.index_bytes / snapshot.tensor_bytes:.2%} of the tensors\n"
    )


def _asked(answers: Sequence[Answer]) -> str:
    """Format the outcome of each query: considered, pruned and read."""
    header = ("query", "", "considered", "pruned", "read", "requests", "samples/s", "MB/s")
    rows: list[tuple[str, ...]] = [header]
    for answer in answers:
        source = answer.plan.source
        considered = next(level.considered for level in source.levels if level.level == "samples")
        blocks = answer.plan.n_blocks
        rate = answer.samples / answer.elapsed_s if answer.elapsed_s else 0.0
        speed = answer.tensor_bytes / 1e6 / answer.elapsed_s if answer.elapsed_s else 0.0
        kept = answer.samples
        rows += [
            (
                answer.question.title,
                "samples",
                f"{considered:,}",
                f"{considered - kept:,}",
                f"{kept:,}",
                f"{answer.requests:,}",
                f"{rate:,.0f}",
                f"{speed:,.0f}",
            ),
            (
                "",
                "blocks",
                f"{source.scan_blocks:,}",
                f"{source.scan_blocks - blocks:,}",
                f"{blocks:,}",
                "",
                "",
                "",
            ),
            (
                "",
                "MB",
                f"{source.scan_bytes / 1e6:,.1f}",
                f"{(source.scan_bytes - answer.plan.read_bytes) / 1e6:,.1f}",
                f"{answer.read_bytes / 1e6:,.1f}",
                "",
                "",
                "",
            ),
        ]
    return _columns(rows)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def _next_lines(url: str, embedded: bool) -> str:
    """Return the three lines that a user would write next."""
    where = "s3://your-bucket" if embedded else url
    return (
        "what you would write next:\n\n"
        f"    import tensorbank as tb\n"
        f'    query = tb.open("{where}").sql("SELECT S2L2A, S1RTC FROM terramesh WHERE cloud_cover < 0.1")\n'
        f"    for batch in query.dataloader(batch_size=64): ...\n"
    )


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
