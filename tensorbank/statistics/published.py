"""Published normalisation constants, by name: they disagree, so the name belongs to the data.

Sources: ``terramesh``: ``terramesh_statistics.yaml`` of the TerraMesh release. ``terramind-v1``: what TerraMind v1 was trained
with, from ``terramind_register.py`` of TerraTorch (``v1_pretraining_mean`` and ``_std``). ``ssl4eo-s12-v1.1``: the WebDataset
release (format 2), whose values carry no ``+1000``; for format 1 add 1000 to the means of S2L1C and S2L2A.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorbank.errors import ErrorKind, NotFoundError, nearest

__all__ = ["PROFILE_NAMES", "Normalization", "normalization"]


@dataclass(frozen=True, slots=True)
class Normalization:
    """The mean and standard deviation of each band, in stored units and stored order."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split())


def _of(mean: str, std: str) -> Normalization:
    return Normalization(_numbers(mean), _numbers(std))


_NDVI = _of("0.327", "0.322")
_S1RTC = _of("-10.930 -17.329", "4.391 4.459")
_S1GRD = _of("-12.577 -20.265", "5.179 5.872")

_PROFILES: Mapping[str, Mapping[str, Normalization]] = {
    "terramesh": {
        "S2L1C": _of(
            "2357.090 2137.398 2018.799 2082.998 2295.663 2854.548 3122.860 3040.571 3306.491 1473.849 506.072 "
            "2472.840 1838.943",
            "1673.639 1722.641 1602.205 1873.138 1866.055 1779.839 1776.496 1724.114 1771.041 1079.786 512.404 "
            "1340.879 1172.435",
        ),
        "S2L2A": _of(
            "1390.461 1503.332 1718.211 1853.926 2199.116 2779.989 2987.025 3083.248 3132.235 3162.989 2424.902 1857.665",
            "2131.157 2163.666 2059.311 2152.477 2105.179 1912.773 1842.326 1893.568 1775.656 1814.907 1436.282 1336.155",
        ),
        "S2RGB": _of("110.349 99.507 75.843", "69.905 53.708 53.378"),
        "NDVI": _NDVI,
        "DEM": _of("651.663", "928.168"),
        "S1GRD": _S1GRD,
        "S1RTC": _S1RTC,
    },
    "terramind-v1": {
        "S2L1C": _of(
            "2357.089 2137.385 2018.788 2082.986 2295.651 2854.537 3122.849 3040.560 3306.481 1473.847 506.070 "
            "2472.825 1838.929",
            "1624.683 1675.806 1557.708 1833.702 1823.738 1733.977 1732.131 1679.732 1727.260 1024.687 442.165 "
            "1331.411 1160.419",
        ),
        "S2L2A": _of(
            "1390.458 1503.317 1718.197 1853.910 2199.100 2779.975 2987.011 3083.234 3132.220 3162.988 2424.884 1857.648",
            "2106.761 2141.107 2038.973 2134.138 2085.321 1889.926 1820.257 1871.918 1753.829 1797.379 1434.261 1334.311",
        ),
        "S2RGB": _of("87.271 80.931 66.667", "58.767 47.663 42.631"),
        "NDVI": _NDVI,
        "DEM": _of("670.665", "951.272"),
        "S1GRD": _of("-12.599 -20.293", "5.195 5.890"),
        "S1RTC": _S1RTC,
    },
    "ssl4eo-s12-v1.1": {
        "S2L1C": _of(
            "1607.345 1393.068 1320.225 1373.963 1562.536 2110.071 2392.832 2321.154 2583.770 838.712 21.753 "
            "2205.112 1545.798",
            "786.523 849.702 875.318 1143.578 1126.248 1161.980 1273.505 1246.790 1342.755 576.795 45.626 "
            "1340.347 1145.036",
        ),
        "S2L2A": _of(
            "793.243 924.863 1184.553 1340.936 1671.402 2240.082 2468.412 2563.244 2627.704 2711.071 2416.714 1849.625",
            "1160.144 1201.092 1219.943 1397.225 1400.035 1373.136 1429.170 1485.025 1447.836 1652.703 1471.002 1365.307",
        ),
        "S2RGB": _of("100.708 87.489 61.932", "68.550 47.647 40.592"),
        "S1GRD": _S1GRD,
        "NDVI": _NDVI,
        "DEM": _of("435.726", "560.326"),
    },
}

PROFILE_NAMES: tuple[str, ...] = tuple(sorted(_PROFILES))


def normalization(profile: str, modality: str) -> Normalization:
    """Return the constants of one modality under a published profile.

    Raises
    ------
    NotFoundError
        No such profile, or it has none for the modality (categorical ones have no mean).
    """
    if profile not in _PROFILES:
        raise NotFoundError(
            f"no normalisation profile {profile!r}.{nearest(profile, PROFILE_NAMES)}",
            kind=ErrorKind.UNKNOWN_PROFILE,
        )
    modalities = _PROFILES[profile]
    if modality not in modalities:
        raise NotFoundError(
            f"profile {profile} has no constants for {modality!r}.{nearest(modality, modalities)}",
            kind=ErrorKind.UNKNOWN_MODALITY,
        )
    return modalities[modality]
