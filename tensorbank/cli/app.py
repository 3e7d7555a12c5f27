"""The ``tensorbank`` command. Rooms add commands and groups of their own by entry points of the group ``tensorbank.commands``."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as Grid

import tensorbank
from tensorbank.bank import Bank, Table
from tensorbank.catalog import Provenance
from tensorbank.cli.progress import progress_bar
from tensorbank.errors import FormatError, InvalidInputError, NotFoundError, TensorBankError
from tensorbank.opening import open as open_bank

__all__ = [
    "AwsProfile",
    "BankUrl",
    "Endpoint",
    "Json",
    "Region",
    "TableName",
    "app",
    "bank_at",
    "main",
    "say",
]

DONE, FAILED, WRONG_USAGE = 0, 1, 2
SIGNALLED = 128
"""The number that is added to that of the signal that ended a command, as shells do."""
ANY_WORDS = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    help="A tensor lakehouse for Earth-observation foundation models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

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
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class Format(enum.StrEnum):
    """The formats in which ``query`` prints rows."""

    table = "table"
    json = "json"
    csv = "csv"
    arrow = "arrow"


def bank_at(url: str, endpoint: str | None, region: str | None, profile: str | None = None) -> Bank:
    """The bank of a command line; credentials come from the environment, never from arguments."""
    return open_bank(url, endpoint=endpoint, region=region, profile=profile)


def say(text: str) -> None:
    """Print one line on standard output, as it is."""
    sys.stdout.write(text + "\n")


def _version(wanted: bool) -> None:
    if wanted:
        say(f"tensorbank {tensorbank.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A tensor lakehouse for Earth-observation foundation models."""


@app.command()
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
        say(json.dumps([_fields(s) for s in snapshots]))
        return
    if not snapshots:
        say(f"{opened.url} has no table yet; `tensorbank ingest SOURCE {bank} --table NAME` makes one")
        return
    rows = [
        (s.table, s.version, f"{s.n_samples:,}", _gb(s.tensor_bytes), _gb(s.stored_bytes), _gb(s.index_bytes))
        for s in snapshots
    ]
    _print(("table", "version", "samples", "tensors", "stored", "index"), rows)


@app.command()
def show(
    bank: BankUrl,
    table: TableName,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Show what a table holds: modalities, bands, sizes."""
    opened = bank_at(bank, endpoint, region, aws_profile).table(table)
    schema, snapshot = opened.schema, opened.snapshot()
    if as_json:
        modalities = [json.loads(m.to_json()) for m in schema]
        described = {name: dataclasses.asdict(s) for name, s in opened.describe().items()}
        told = [_fields(p) for p in _provenance(opened)]
        about = {"modalities": modalities, "statistics": described, "provenance": told}
        say(json.dumps(_fields(snapshot) | about))
        return
    share = snapshot.index_bytes / snapshot.tensor_bytes if snapshot.tensor_bytes else 0.0
    say(
        f"{table} at version {snapshot.version}: {snapshot.n_samples:,} samples in {snapshot.n_parts} parts and "
        f"{snapshot.n_shards} shard groups\n{_gb(snapshot.tensor_bytes)} of tensors stored as {_gb(snapshot.stored_bytes)}, "
        f"index {_gb(snapshot.index_bytes)} ({share:.2%} of the tensors)"
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
    _print(("modality", "dtype", "time x band x height x width", "bands or classes", "unit"), rows)
    for statistics in opened.describe().values():
        say(f"\n{statistics}")


@app.command()
def history(
    bank: BankUrl,
    table: TableName,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """List the versions of a table, newest first."""
    entries = bank_at(bank, endpoint, region, aws_profile).table(table).history()
    if as_json:
        say(json.dumps([_fields(e) for e in entries]))
        return
    rows = [
        (e.version, e.when.isoformat(sep=" "), e.operation, f"{e.n_rows:,}", e.part or "") for e in entries
    ]
    _print(("version", "time", "operation", "samples added", "part"), rows)


@app.command()
def query(
    bank: BankUrl,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT statement.")],
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what is pruned and read instead of the rows.")
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="How to print rows.")] = Format.table,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    save: Annotated[Path | None, typer.Option(help="Save the plan to this file, for tb.Plan.load().")] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
) -> None:
    """Answer SQL over the index; tensors are shown by their address."""
    form = Format.json if as_json else form
    asked = bank_at(bank, endpoint, region, aws_profile).sql(sql)
    if explain or save is not None:
        plan = asked.plan()
        if save is not None:
            plan.save(save)
        if explain:
            say(json.dumps(plan.explain_json()) if form is Format.json else plan.explain())
        else:
            say(f"{len(plan)} samples, plan {plan.fingerprint} saved to {save}")
        return
    _write(asked.arrow(), form)


@app.command()
def verify(
    bank: BankUrl,
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="One table; all if not given.")
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Read every stored block and check it against the checksum written at ingest, and what other readers go by."""
    from tensorbank.verification import verify as run

    opened = bank_at(bank, endpoint, region, aws_profile)
    damaged = 0
    names = [table] if table is not None else opened.tables()
    if not names:
        typer.echo(f"{opened.url} has no table, so there is nothing to verify", err=True)
    for name in names:
        with progress_bar() as progress:
            report = run(opened, name, progress=functools.partial(progress, "verify"))
        damaged += len(report.damage)
        if as_json:
            say(json.dumps(_fields(report) | {"damage": [_fields(d) for d in report.damage]}))
            continue
        say(
            f"{name} at version {report.version}: {report.n_blocks:,} blocks of {report.n_samples:,} samples, "
            f"{_gb(report.n_bytes)}: {'all sound' if report.sound else f'{len(report.damage)} damaged'}"
        )
        for d in report.damage:
            say(f"  {d.sample_id or d.key} {d.modality}: {d.reason}")
    if damaged:
        raise typer.Exit(FAILED)


def _provenance(table: Table) -> list[Provenance]:
    """Return the origins of a table's parts;
    an empty list for a bank behind a service, which does not tell."""
    with suppress(InvalidInputError):
        return table.provenance()
    return []


def _write(rows: Any, form: Format) -> None:
    import pyarrow as pa
    from pyarrow import csv

    if form is Format.arrow:
        with pa.ipc.new_stream(sys.stdout.buffer, rows.schema) as sink:
            sink.write_table(rows)
    elif form is Format.json:
        for record in rows.to_pylist():
            say(json.dumps(_finite(record), default=_plain, allow_nan=False))
    elif form is Format.csv:
        flat = pa.table({n: pa.array(_texts(rows[n]), pa.string()) for n in rows.column_names})
        csv.write_csv(flat, sys.stdout.buffer)
    elif sys.stdout.isatty():
        _print(rows.column_names, [[_cell(v) for v in record.values()] for record in rows.to_pylist()])
        say(f"{rows.num_rows:,} rows")
    else:
        columns = [_texts(rows[n]) for n in rows.column_names]
        _print(rows.column_names, list(zip(*columns, strict=True)))
        say(f"{rows.num_rows:,} rows")


def _texts(column: Any) -> list[str]:
    """Return the values of a column for programs: the shortest digits that read back equal, in the column's own precision."""
    import pyarrow as pa

    if pa.types.is_floating(column.type):
        return ["" if v is None else v for v in column.cast(pa.string()).to_pylist()]
    return [_cell(v, digits=None) for v in column.to_pylist()]


def _cell(value: object, digits: int | None = 6) -> str:
    """Return a value as text: an address for a tensor, a float with so many digits, or as many as it takes."""
    if value is None:
        return ""
    if isinstance(value, dict) and set(value) == {"key", "offset", "length"}:
        return f"{value['key']} [{value['offset']}, {value['offset'] + value['length']})"
    if isinstance(value, float):
        return repr(value) if digits is None else f"{value:.{digits}g}"
    if isinstance(value, bytes):
        return value.hex()
    return json.dumps(value, default=_plain) if isinstance(value, dict | list) else str(value)


def _plain(value: object) -> str | float:
    if isinstance(value, Decimal):  # JSON's readers take a number for a float64
        return float(value) if Decimal(float(value)) == value else str(value)
    return value.hex() if isinstance(value, bytes) else str(value)


def _finite(value: Any) -> Any:
    """A value with null for NaN and the infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _gb(n_bytes: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.2f} {unit}"
    return f"{n_bytes / 1e3:,.1f} kB"


def _print(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on the terminal; tab-separated lines where there is none."""
    if not sys.stdout.isatty():
        for row in (header, *rows):
            say("\t".join(map(str, row)))
        return
    grid = Grid(*header)
    for row in rows:
        grid.add_row(*map(str, row))
    Console().print(grid)


def _add_commands_of_rooms() -> None:
    for entry in sorted(entry_points(group="tensorbank.commands"), key=lambda e: e.name):
        try:
            command = entry.load()
        except ModuleNotFoundError as missing:
            app.command(entry.name, context_settings=ANY_WORDS)(_refusing(missing))
            continue
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)


def _refusing(error: ModuleNotFoundError) -> Callable[[], None]:
    """Return a stand-in for the command of a room whose libraries are not installed."""

    def refuse() -> None:
        """Not installed here."""
        raise error

    return refuse


class _Stopped(BaseException):
    """A signal asked for the end. No KeyboardInterrupt: click would make "Aborted!" and another exit status of that."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, _frame: FrameType | None) -> None:
    raise _Stopped(number)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Raise at SIGINT and SIGTERM inside of the block, so that whatever was begun is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_of_usage(error: TensorBankError) -> bool:
    """Tell whether other words on the command line would have helped:
    a name, an address, a folder of archives."""
    return isinstance(error, InvalidInputError | NotFoundError) or (
        isinstance(error, FormatError) and error.kind == FormatError.default_kind
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 (done), 1 (failed), 2 (wrong usage), 130 or 143 (ended by SIGINT or SIGTERM)."""
    _add_commands_of_rooms()
    try:
        with _stoppable():
            app(args=arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else DONE
    except TensorBankError as error:
        sys.stderr.write(f"error: {error}\n")
        return WRONG_USAGE if _is_of_usage(error) else FAILED
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"error: this command needs {error.name}; pip install 'tensorbank[demo]' brings everything\n"
        )
        return WRONG_USAGE
    except _Stopped as stopped:
        sys.stderr.write("interrupted; what is committed stays, an ingest resumes where it stopped\n")
        return SIGNALLED + stopped.number
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # a file of the user's: --save, --report
        sys.stderr.write(f"error: {str(error).splitlines()[0]}\n")
        return FAILED
    return DONE
