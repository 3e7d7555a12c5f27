"""A view: the window of the invented landscape that a sample shows, its day, and its sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tensorbank_demo.landscape.climates import Climate
from tensorbank_demo.landscape.world import CELL, TILE

__all__ = ["Block", "Sky", "View", "window"]

Kind = TypeVar("Kind", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the world of 1056 x 1056 pixels, one Major-TOM cell: its upper left corner, and how it is turned."""

    y: int
    x: int
    turn: int
    """The number of one of the 8 rotations and mirrorings."""


@dataclass(frozen=True, slots=True)
class Sky:
    """The clouds over a block: the share aimed at, 0 for none at all, and the field and place that they are cut from."""

    cover: float
    field: int
    y: int
    x: int


@dataclass(frozen=True, slots=True)
class View:
    """The place and time of a scene: the tile in ``column`` from the west and ``row`` from the north, 0 to 3, of a block."""

    climate: Climate
    lat: float
    block: Block
    column: int
    row: int
    sky: Sky
    day: int
    """The day of the year, 0-364."""
    key: tuple[int, ...]
    """The key that seeds the noise of the sensors."""


def window(field: npt.NDArray[Kind], view: View) -> npt.NDArray[Kind]:
    """Return the view's part of a field of the world, (TILE, TILE), after turning the block it lies in."""
    y, x, turn = view.block.y, view.block.x, view.block.turn
    block = field[y : y + CELL, x : x + CELL]
    if turn & 4:
        block = block.T
    block = block[:: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]
    tile = block[view.row * TILE : (view.row + 1) * TILE, view.column * TILE : (view.column + 1) * TILE]
    return np.ascontiguousarray(tile)
