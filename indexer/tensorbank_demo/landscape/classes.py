"""The classes of the maps: ESRI land cover, and SEnSEI-v2 cloud mask."""

from __future__ import annotations

NO_DATA, WATER, TREES, FLOODED, CROPS, BUILT, BARE, SNOW, CLOUD, RANGE = range(10)
"""The classes of ESRI land cover."""
N_COVERS = 10
"""The number of classes of land cover."""
SKY_LAND, SKY_WATER, SKY_SNOW, SKY_THIN, SKY_THICK, SKY_SHADOW, SKY_NO_DATA = range(7)
"""The classes of the cloud mask."""
