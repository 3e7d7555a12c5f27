"""The clouds over a view."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tensorbank_demo.landscape.view import View
from tensorbank_demo.landscape.world import TILE, World

__all__ = ["clouds_over"]

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


def clouds_over(world: World, view: View) -> tuple[Floats | None, Flags, Flags]:
    """Return the opacity of clouds, (y, x) or None without any, the pixels of thick ones, and those in their shadow."""
    none = np.zeros((TILE, TILE), bool)
    if view.sky.cover <= 0:
        return None, none, none
    y, x = view.sky.y + TILE * view.row, view.sky.x + TILE * view.column
    field = world.skies[view.sky.field][y : y + TILE + 16, x : x + TILE + 16]
    quantiles = world.sky_quantiles[view.sky.field]
    edge = np.float32(np.interp(1 - view.sky.cover, np.linspace(0, 1, len(quantiles)), quantiles))
    opacity = np.clip((field - edge) * np.float32(1.8), 0, 0.97)
    opacity *= opacity * (3 - 2 * opacity)
    cloud = opacity[:TILE, :TILE]
    thick = cloud > 0.55
    # shadows fall north-west: it is morning
    shadow = (opacity[11 : 11 + TILE, 8 : 8 + TILE] > 0.45) & (cloud < 0.12)
    return (cloud if cloud.any() else None), thick, shadow
