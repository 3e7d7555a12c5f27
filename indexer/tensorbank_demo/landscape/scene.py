"""Scenes: a view of the invented landscape as the sensors of TerraMesh would see it.

Every pixel is a mixture of a few materials ("endmembers"), so that reflectance in any band is one matrix product,
and bands agree with each other, with the land cover and with the radar. Clouds and snow are materials, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank_demo.landscape.clouds import clouds_over
from tensorbank_demo.landscape.ground import Ground
from tensorbank_demo.landscape.materials import (
    CLOUD,
    HAZE,
    NO_DATA,
    SKY_NO_DATA,
    SKY_SHADOW,
    SKY_THICK,
    SKY_THIN,
)
from tensorbank_demo.landscape.sensors import ndvi_of, optical, radar, true_colour
from tensorbank_demo.landscape.view import View
from tensorbank_demo.landscape.world import TILE, World

__all__ = ["Scene", "render"]


@dataclass(frozen=True, slots=True)
class Scene:
    """The pixels (band, y, x) by modality, S1 under the name ``S1``; ``cloud_mask`` (y, x) uint8."""

    arrays: dict[str, npt.NDArray[np.generic]]
    cloud_mask: npt.NDArray[np.uint8]

    @property
    def cloud_cover(self) -> float:
        """The share of thin and thick cloud, 0 to 1."""
        cloudy = np.count_nonzero((self.cloud_mask == SKY_THIN) | (self.cloud_mask == SKY_THICK))
        return cloudy / self.cloud_mask.size


def render(world: World, view: View) -> Scene:
    """Render all modalities of one tile. Pure: the same world and view give the same pixels."""
    rng = np.random.default_rng(view.key)
    ground = Ground(world, view)
    shares = ground.materials()
    s1 = radar(world, rng, ground, shares)
    shares *= ground.light
    cloud, thick, shadow = clouds_over(world, view)
    mask = ground.sky_classes()
    if cloud is not None:
        shares *= (1 - cloud) * np.where(shadow, np.float32(0.5), np.float32(1))
        shares[HAZE] = cloud
        mask[shadow] = SKY_SHADOW
        mask[cloud > 0.12] = SKY_THIN
        mask[thick] = SKY_THICK
        ground.cover[thick] = CLOUD
    l2a, l1c = optical(world, rng, shares, cloud)
    if rng.random() < 0.015:
        edge = TILE - int(rng.integers(12, 60))
        mask[:, edge:], ground.cover[:, edge:] = SKY_NO_DATA, NO_DATA
        l2a[:, :, edge:], l1c[:, :, edge:] = 0, 0
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "S2L1C": l1c,
        "S2L2A": l2a,
        "S2RGB": true_colour(l2a),
        "S1": s1,
        "DEM": np.rint(ground.metres).astype(np.int16)[None],
        "NDVI": ndvi_of(l2a),
        "LULC": ground.cover[None],
    }
    return Scene(arrays, mask)
