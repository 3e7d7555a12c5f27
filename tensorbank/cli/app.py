"""The ``tensorbank`` command. Rooms add commands and groups of their own by entry points of the group ``tensorbank.commands``."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from types import FrameType
from typing import Annotated

import typer

import tensorbank
from tensorbank.cli import columns, commands, corrections, maintenance, tagging
from tensorbank.cli.lineage import lineage
from tensorbank.cli.output import say
from tensorbank.errors import FormatError, InvalidInputError, NotFoundError, TensorBankError

__all__ = ["app", "main"]

DONE, FAILED, WRONG_USAGE = 0, 1, 2
SIGNALLED = 128
"""The number that is added to that of the signal that ended a command, as shells do."""
ANY_WORDS = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    help="A tensor lakehouse for Earth-observation foundation models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _command in (
    commands.tables,
    commands.show,
    commands.history,
    commands.query,
    commands.verify,
    tagging.tag,
    lineage,
    columns.add_columns,
    columns.drop_columns,
    corrections.copy,
    corrections.delete,
    corrections.diff,
    corrections.rename,
    corrections.restore,
    maintenance.compact,
    maintenance.index,
    maintenance.gc,
    corrections.drop_modality,
):
    app.command()(_command)


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
    """Work with TensorBank, a tensor lakehouse for Earth-observation foundation models."""


@functools.cache  # once in a process: Typer would keep every command as often as it is added
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
    a name, an address, a folder of archives.
    """
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
