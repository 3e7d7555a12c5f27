"""Real regions of the earth, and how the invented landscape is to look there."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLIMATES", "Climate"]


@dataclass(frozen=True, slots=True)
class Climate:
    """The use that a place makes of the world's fields.
    Elevation and moisture thresholds are in standard deviations.
    """

    name: str
    lat: float
    lon: float
    spread_deg: float = 1.5
    sea: float = -9.0
    base_m: float = 250.0
    relief_m: float = 120.0
    moisture: float = 0.0
    warmth_c: float = 10.0
    seasons_c: float = 9.0
    farmland: float = 0.0
    towns: float = 0.0
    pivots: bool = False
    sand: float = 0.0
    clouds: float = 0.3


CLIMATES = (
    Climate("Upper Rhine", 48.6, 8.1, farmland=0.7, towns=0.5, relief_m=60),
    Climate("Champagne", 48.9, 4.2, farmland=1.3, relief_m=35, base_m=160, clouds=0.25),
    Climate("Bavarian Alps", 47.5, 11.3, base_m=780, relief_m=400, moisture=0.7, farmland=-0.8, towns=-0.3),
    Climate("Frisian coast", 53.6, 8.2, sea=-0.45, base_m=3, relief_m=14, farmland=0.9, clouds=0.4),
    Climate("Tuscany", 43.3, 11.4, relief_m=85, warmth_c=14.5, farmland=0.45, moisture=-0.1, clouds=0.15),
    Climate("Dalmatia", 43.6, 16.3, sea=0.0, base_m=20, relief_m=130, moisture=-0.3, warmth_c=15.0, clouds=0.12),
    Climate("Lofoten", 68.2, 14.6, 1.0, sea=0.15, base_m=8, relief_m=210, warmth_c=3.5, farmland=-1.5, clouds=0.5),
    Climate("Andalusia", 37.4, -4.8, relief_m=90, moisture=-0.7, warmth_c=18.0, farmland=0.7, sand=0.25, clouds=0.08),
    Climate("High Plains", 37.9, -100.9, relief_m=25, base_m=880, moisture=-0.6, farmland=1.6, pivots=True, clouds=0.1),
    Climate("Western Desert", 25.6, 30.2, relief_m=70, moisture=-2.6, warmth_c=24, sand=0.9, pivots=True, clouds=0.03),
    Climate("Mato Grosso", -12.6, -55.8, relief_m=40, moisture=1.0, warmth_c=25.0, seasons_c=1.5, farmland=0.6),
    Climate("Rio Negro", -2.4, -61.2, relief_m=20, base_m=40, moisture=2.2, warmth_c=27.0, seasons_c=0.5,
            farmland=-2.0, towns=-1.0, clouds=0.45),
    Climate("Canterbury", -43.7, 171.9, relief_m=210, base_m=420, warmth_c=9.5, farmland=0.5, towns=-0.3),
    Climate("Hokkaido", 43.3, 142.6, relief_m=140, base_m=380, warmth_c=6.0, seasons_c=13.0, farmland=0.2),
    Climate("Java", -7.5, 110.3, relief_m=240, base_m=500, moisture=1.2, warmth_c=27.0, seasons_c=0.5, farmland=0.8,
            towns=0.7, clouds=0.45),
)  # fmt: skip
