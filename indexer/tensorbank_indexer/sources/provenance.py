"""Attributes that every copy of a dataset has; they are written into each part that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["SSL4EO_S12", "TERRAMESH"]

TERRAMESH: Mapping[str, str] = MappingProxyType(
    {
        "licence": "CC-BY-SA-4.0; subset ssl4eos12: CC-BY-4.0",
        "references": "https://arxiv.org/abs/2504.11172",
        "attribution": "TerraMesh (IBM, ESA); contains modified Copernicus Sentinel data, Copernicus DEM, ESRI land cover",
    }
)
SSL4EO_S12: Mapping[str, str] = MappingProxyType(
    {
        "licence": "CC-BY-4.0",
        "references": "https://arxiv.org/abs/2503.00168",
        "attribution": "SSL4EO-S12 v1.1 (DLR, IBM and partners); contains modified Copernicus Sentinel data",
    }
)
