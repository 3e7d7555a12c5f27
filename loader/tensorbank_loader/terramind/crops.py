"""Crops and flips of samples by their keys, shared by pixels and by the tokens that were made of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tensorbank.arguments import whole_number
from tensorbank.errors import InvalidInputError
from tensorbank.plans import Plan
from tensorbank_loader.terramind.keyed import below

__all__ = ["Crop", "Crops"]

_BAND = re.compile(r"y(\d+)_x(\d+)_s(\d+)(_flip)?")


@dataclass(frozen=True, slots=True)
class Crop:
    """A window of the pixels of a sample, ``[y, y + size) x [x, x + size)``, mirrored from left to right if ``flip``."""

    y: int
    x: int
    flip: bool = False


@dataclass(frozen=True, slots=True)
class Crops:
    """The crops that a sample's key chooses from.

    Parameters
    ----------
    size
        Height and width of a crop in pixels.
    listed
        Crops to choose from. Tokens can be had of these only: band ``i`` of a token modality has the tokens of crop ``i``. Empty:
        any place, mirrored or not, for batches of pixels.

    Raises
    ------
    InvalidInputError
        The size is no positive number, or a crop begins before 0.
    """

    size: int = 224
    listed: tuple[Crop, ...] = ()

    def __post_init__(self) -> None:
        whole_number("size", self.size, at_least=1)
        object.__setattr__(self, "listed", tuple(self.listed))
        for crop in self.listed:
            whole_number("y of a crop", crop.y, at_least=0)
            whole_number("x of a crop", crop.x, at_least=0)

    @classmethod
    def of(cls, plan: Plan, tokens: Sequence[str]) -> Crops | None:
        """Return the crops that modalities of tokens were made of, as the names of their bands say; None where none says so.

        Raises
        ------
        InvalidInputError
            Two modalities have tokens of other crops, or in another order; both are named.
        """
        found: dict[str, Crops] = {}
        for handle in plan.handles:
            names = [handle.modality.bands[b].name for b in handle.bands]
            told = [match for name in names if (match := _BAND.fullmatch(name))]
            if handle.name in tokens and told and len(told) == len(names):
                crops = tuple(Crop(int(m[1]), int(m[2]), m[4] is not None) for m in told)
                found[handle.name] = cls(int(told[0][3]), crops)
        for name, crops_of_it in found.items():
            first = next(iter(found))
            if crops_of_it != found[first]:
                raise InvalidInputError(
                    f"{name} has tokens of the crops {', '.join(crops_of_it.band_names)}, and {first} of "
                    f"{', '.join(found[first].band_names)}; select the same of both by bands(...), in one order"
                )
        return next(iter(found.values()), None)

    @property
    def band_names(self) -> tuple[str, ...]:
        """The names that the bands of a modality of tokens have, one a listed crop: ``y20_x20_s224``, ``y0_x40_s224_flip``."""
        return tuple(f"y{c.y}_x{c.x}_s{self.size}{'_flip' if c.flip else ''}" for c in self.listed)

    def chosen(self, keys: torch.Tensor) -> torch.Tensor:
        """Return which listed crop each sample has, (n,) int64."""
        return below(keys, "crop", len(self.listed))

    def pixels(self, tensor: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Return each sample's crop of a tensor (n, ..., y, x), as (n, ..., size, size).

        Raises
        ------
        InvalidInputError
            The tensor is smaller than a crop.
        """
        height, width = tensor.shape[-2:]
        rows, columns = self._window(keys, height, width)
        flat = tensor.reshape(len(tensor), -1, height, width)
        sample = torch.arange(len(flat), device=flat.device)[:, None, None, None]
        channel = torch.arange(flat.shape[1], device=flat.device)[None, :, None, None]
        found = flat[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
        return found.reshape(*tensor.shape[:-2], self.size, self.size)

    def tokens(self, tensor: torch.Tensor, keys: torch.Tensor, name: str) -> torch.Tensor:
        """Return the tokens of each sample's crop, (n, y, x), of a tensor (n, crops, y, x) or, of one crop, (n, y, x).

        Raises
        ------
        InvalidInputError
            The tensor has tokens of another number of crops.
        """
        of_crops = tensor if tensor.ndim == 4 else tensor[:, None]
        if of_crops.shape[1] != len(self.listed):
            raise InvalidInputError(
                f"{name} has tokens of {of_crops.shape[1]} crops, and {len(self.listed)} are listed; give the crops that the "
                "tokens were made of, in their order"
            )
        return of_crops[torch.arange(len(of_crops), device=of_crops.device), self.chosen(keys)]

    def _window(self, keys: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows and columns of each sample's crop, (n, size) each."""
        if self.listed:
            reach_y, reach_x = max(c.y for c in self.listed), max(c.x for c in self.listed)
        else:
            reach_y = reach_x = 0
        if height < reach_y + self.size or width < reach_x + self.size:
            raise InvalidInputError(
                f"crops of {self.size} pixels reach to {reach_y + self.size} x {reach_x + self.size}, and samples have "
                f"{height} x {width}"
            )
        if self.listed:
            table = torch.tensor([[c.y, c.x, c.flip] for c in self.listed], device=keys.device)
            y, x, flip = table[self.chosen(keys)].unbind(dim=1)
        else:
            y = below(keys, "crop y", height - self.size + 1)
            x = below(keys, "crop x", width - self.size + 1)
            flip = below(keys, "flip", 2)
        along = torch.arange(self.size, device=keys.device)[None]
        columns = x[:, None] + torch.where(flip[:, None] > 0, self.size - 1 - along, along)
        return y[:, None] + along, columns
