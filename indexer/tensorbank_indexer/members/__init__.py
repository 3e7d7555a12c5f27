"""Members of archives, each one modality of a sample, as zarr groups and GeoTIFFs hold them, and samples put together of them."""

from __future__ import annotations

from tensorbank_indexer.members.assembly import CLOUD_MASK, CLOUD_MASK_ORDER, Assembly, is_radar
from tensorbank_indexer.members.geotiff import read_geotiff, require_rasterio
from tensorbank_indexer.members.member import Member, as_numbers, put_pixels, read_member, turn_north

__all__ = [
    "Assembly",
    "CLOUD_MASK",
    "CLOUD_MASK_ORDER",
    "Member",
    "as_numbers",
    "is_radar",
    "put_pixels",
    "read_geotiff",
    "read_member",
    "require_rasterio",
    "turn_north",
]
