"""The commands ``tensorbank demo-pretrain`` and ``tensorbank tokenize``."""

from __future__ import annotations

import os
import pkgutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tensorbank.cli import AwsProfile, BankUrl, Endpoint, Json, Region, bank_at, say
from tensorbank.errors import InvalidInputError

if TYPE_CHECKING:  # torch is imported by who needs it
    from tensorbank_loader.terramind import Crop

__all__ = ["crop_of", "demo_pretrain", "tokenize"]


def demo_pretrain(
    samples: Annotated[int, typer.Option(help="Samples to make.", min=24)] = 96,
    steps: Annotated[int, typer.Option(help="Steps of the optimiser.", min=12)] = 120,
    out: Annotated[Path, typer.Option(help="Folder for the picture of the losses.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Seed of the made-up world.")] = 7,
) -> None:
    """Pretrain a small masked model on two ranks, kill it half way, go on with three, and check what it has seen."""
    from tensorbank.cli import progress_bar
    from tensorbank.opening import create
    from tensorbank_demo.job import TABLE, load_archives
    from tensorbank_pretraining.demo import consumed, draw_losses, losses, pretrain, tokenized

    with tempfile.TemporaryDirectory(prefix="tensorbank-pretrain-") as scratch:
        folder = Path(scratch)
        run = folder / "run"
        bank = create(folder / "bank")
        with progress_bar() as progress:
            load_archives(bank, folder / "archives", samples, seed, progress)
            tokenized(bank, TABLE, progress)
            pretrain(bank.url, run, steps, 2, until=steps // 2, progress=progress)
            pretrain(bank.url, run, steps, 3, progress=progress)
        seen = consumed(bank, run, steps)
        picture = out / "pretraining.png"
        draw_losses(run, steps // 2, picture)
        rows = losses(run)
        say(f"loss {rows[0]['loss']:.2f} at the first step, {rows[-1]['loss']:.2f} at the last of {steps}")
        ranks = " and then ".join(map(str, seen.ranks))
        say(
            f"killed in the middle: {ranks} ranks have seen {seen.n_samples} samples in {seen.n_epochs} epochs, each exactly "
            "once an epoch, and the lineage of the checkpoint says the same"
        )
        say(f"the losses: {picture}")


def tokenize(
    bank: BankUrl,
    table: Annotated[str, typer.Option(help="Table to change.")],
    modality: Annotated[str, typer.Option(help="Modality whose pixels become tokens.")],
    tokenizer: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="MODULE:NAME",
            help="Callable from pixels (n, band, size, size) to tokens (n, y, x), in a module that Python finds from here.",
        ),
    ],
    crop: Annotated[
        list[str] | None, typer.Option(metavar="Y,X[,flip]", help="A crop; 20,20 if none is given.")
    ] = None,
    crop_size: Annotated[int, typer.Option(help="Height and width of a crop in pixels.")] = 224,
    grid: Annotated[int, typer.Option(help="Tokens of a crop along each axis.")] = 14,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the new modality; that of the pixels and _tokens if not given."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device of a callable that takes tensors; arrays of NumPy if not given."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="The most samples in one call.")] = 32,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Write the tokens that a callable makes of crops of a modality beside it; samples that have tokens keep them."""
    from tensorbank.cli import progress_bar
    from tensorbank_pretraining import patch_tokens

    called = _named(tokenizer)
    crops = [crop_of(text) for text in crop or ["20,20"]]
    opened = bank_at(bank, endpoint, region, aws_profile)
    with progress_bar() as progress:
        report = patch_tokens.tokenize(
            opened,
            table,
            modality,
            called,
            name=name,
            crops=crops,
            crop_size=crop_size,
            grid=grid,
            device=device,
            batch_size=batch_size,
            progress=progress,
        )
    say(report.to_json() if as_json else report.summary())


def crop_of(text: str) -> Crop:
    """Return the crop that an option gives as ``Y,X`` or ``Y,X,flip``.

    Raises
    ------
    InvalidInputError
        It is none.
    """
    from tensorbank_loader.terramind import Crop

    match text.split(","):
        case [y, x, *flip] if y.isdecimal() and x.isdecimal() and flip in ([], ["flip"]):
            return Crop(int(y), int(x), bool(flip))
    raise InvalidInputError(
        f"--crop {text!r} is no crop; give its first row and column, such as 20,20 or 0,40,flip"
    )


def _named(name: str) -> Any:
    """Return what a module has under a name.

    Raises
    ------
    InvalidInputError
        There is no such module, or nothing of that name in it.
    """
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as ``python -m`` has it
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInputError(
            f"--with {name!r} leads to nothing: {error}; give MODULE:NAME, such as tensorbank_pretraining:CLASS_TOKENS"
        ) from error
