"""Tokens of patches by fixed rules, for runs that have no trained tokenizer at hand, and tokens of any tokenizer as a modality.

A trained tokenizer, such as TerraMind's, takes the place of a rule: any callable from pixels to tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tensorbank import Band, Bank, Modality
from tensorbank.errors import InvalidInputError
from tensorbank_indexer import IngestOptions, ModalityReport, add_modality
from tensorbank_loader.device import device_of
from tensorbank_loader.terramind import Crop, Crops

__all__ = ["CLASS_TOKENS", "COLOUR_TOKENS", "PatchTokens", "Tokenizer", "tokenize"]

Pixels = npt.NDArray[Any]
Tokens = npt.NDArray[np.integer[Any]]
Tokenizer = Callable[[Any], Any]
"""A callable from pixels (n, band, size, size) to tokens (n, y, x), whole numbers from 0 on below 32,768: arrays of NumPy, or
tensors where a device was asked for."""


@dataclass(frozen=True, slots=True)
class PatchTokens:
    """A rule by which each patch has a token. A tokenizer.

    Parameters
    ----------
    rule
        Function of patches (n, band, size, size) that returns a token for each, (n,).
    vocabulary
        Number of tokens.
    size
        Height and width of a patch.
    """

    rule: Callable[[Pixels], Tokens]
    vocabulary: int
    size: int = 16

    def __call__(self, pixels: Pixels) -> Tokens:
        """Return tokens (n, y, x) of pixels (n, band, height, width)."""
        n, bands, height, width = pixels.shape
        y, x = height // self.size, width // self.size
        cut = pixels.reshape(n, bands, y, self.size, x, self.size).transpose(0, 2, 4, 1, 3, 5)
        return self.rule(cut.reshape(-1, bands, self.size, self.size)).reshape(n, y, x)


def _commonest_class(patches: Pixels) -> Tokens:
    codes = patches[:, 0].reshape(len(patches), -1).astype(np.int64)
    if codes.size and not 0 <= codes.min() <= codes.max() < 16:
        raise InvalidInputError(f"class tokens are of codes from 0 to 15, got {codes.min()} to {codes.max()}")
    counts = np.zeros((len(codes), 16), np.int64)
    np.add.at(counts, (np.arange(len(codes))[:, None], codes), 1)
    found: Tokens = counts.argmax(axis=1)
    return found


def _colour(patches: Pixels) -> Tokens:
    """Return blue, red and near infrared in eight steps each, which grow with the logarithm of reflectance."""
    if patches.shape[1] != 12:
        raise InvalidInputError(
            f"colour tokens are of the 12 bands of Sentinel-2 level 2A, got {patches.shape[1]}"
        )
    mean = np.maximum(patches[:, [1, 3, 7]].astype(np.float64).mean(axis=(2, 3)), 1.0)
    steps = np.clip(np.floor((np.log(mean) - np.log(100.0)) / (np.log(8000.0) - np.log(100.0)) * 8), 0, 7)
    tokens: Tokens = (steps @ np.array([64, 8, 1])).astype(np.int64)
    return tokens


CLASS_TOKENS = PatchTokens(_commonest_class, 16)
"""The commonest class of a patch, of codes below 16."""
COLOUR_TOKENS = PatchTokens(_colour, 512)
"""The mean colour of a patch of Sentinel-2 level 2A: bands 2, 4 and 8."""


def _quiet(stage: str, done: int, total: int) -> None:
    """Say nothing."""


def tokenize(
    bank: Bank,
    table: str,
    modality: str,
    tokenizer: Tokenizer,
    *,
    name: str | None = None,
    crops: Sequence[Crop] = (Crop(20, 20),),
    crop_size: int = 224,
    grid: int = 14,
    device: str | torch.device | None = None,
    options: IngestOptions | None = None,
    batch_size: int = 32,
    progress: Callable[[str, int, int], None] = _quiet,
) -> ModalityReport:
    """Write the tokens of a modality's crops beside it, by one commit; samples that have tokens keep them.

    The new modality is int16 with ``grid`` x ``grid`` tokens and a band for each crop, in their order, named after the crop.
    :meth:`tensorbank_loader.terramind.Crops.of` has those of a plan, which show a model the pixels that its tokens were made of.

    Parameters
    ----------
    name
        Name of the new modality; None: that of the old one with ``_tokens``.
    device
        Device of the tokenizer, which is given tensors there; None: it is given arrays of NumPy.
    batch_size
        The most samples, with all their dates, in one call.

    Raises
    ------
    InvalidInputError
        A crop reaches beyond the pixels; the tokenizer failed, or returned something else than such tokens. Nothing is committed.
    """
    described = bank.table(table).schema[modality]
    place = None if device is None else device_of(device)
    for crop in crops:
        if crop.y + crop_size > described.height or crop.x + crop_size > described.width:
            raise InvalidInputError(
                f"a crop of {crop_size} pixels at ({crop.y}, {crop.x}) reaches beyond {modality}, which has "
                f"{described.height} x {described.width}"
            )
    made = Modality(
        name or f"{modality}_tokens",
        "int16",
        tuple(map(Band, Crops(crop_size, tuple(crops)).band_names)),
        described.n_times,
        grid,
        grid,
    )

    def tokens_of(batch: Mapping[str, Any]) -> npt.NDArray[np.int16]:
        pixels = batch[modality]
        found = np.empty((*pixels.shape[:2], len(crops), grid, grid), np.int16)
        for number, crop in enumerate(crops):
            window = pixels[..., crop.y : crop.y + crop_size, crop.x : crop.x + crop_size]
            window = window[..., ::-1] if crop.flip else window
            tokens = _called(tokenizer, window.reshape(-1, *window.shape[2:]), place)
            if tokens.shape != (len(window) * window.shape[1], grid, grid) or tokens.dtype.kind not in "iu":
                raise InvalidInputError(
                    f"the tokenizer returned {tokens.dtype} {tokens.shape}; whole numbers "
                    f"{(len(window) * window.shape[1], grid, grid)} are needed"
                )
            if tokens.size and not 0 <= tokens.min() <= tokens.max() < 1 << 15:
                raise InvalidInputError(
                    f"the tokenizer returned tokens from {tokens.min()} to {tokens.max()}; int16 holds 0 to 32,767"
                )
            found[:, :, number] = tokens.reshape(*window.shape[:2], grid, grid)
        return found

    return add_modality(
        tokens_of, bank, table, made, options, inputs=[modality], batch_size=batch_size, progress=progress
    )


def _called(tokenizer: Tokenizer, pixels: Pixels, device: torch.device | None) -> Tokens:
    """Return the tokens of pixels as an array."""
    if device is None:
        return np.asarray(tokenizer(pixels))
    with torch.no_grad():
        found = tokenizer(torch.from_numpy(np.ascontiguousarray(pixels)).to(device))
    return np.asarray(found.cpu() if isinstance(found, torch.Tensor) else found)
