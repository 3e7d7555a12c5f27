"""The fields of an invented landscape: relief with rivers in its valleys, parcels, streets, towns, speckle, clouds.

Fractal noise is made once per seed by FFT; scenes cut their windows out of it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

__all__ = ["CELL", "SIZE", "TILE", "World"]

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

TILE = 264
CELL = 4 * TILE
"""The number of pixels of a side of one Major-TOM cell: its tiles adjoin."""
SIZE = 1536
HASH_PRIMES = (73_856_093, 19_349_663, 83_492_791)


class World:
    """The fields of one landscape, (1536, 1536) float32 each; pure function of the seed, about a second to make."""

    def __init__(self, seed: int) -> None:
        slopes = {  # of the spectrum, and waves a side of the largest forms
            "relief": (2.25, 1), "ridges": (2.1, 1), "river": (2.9, 3), "brook": (2.6, 9), "moisture": (2.4, 1),
            "woods": (1.7, 5), "farms": (2.6, 2), "towns": (2.5, 6), "grain": (0.7, 1),
            "cumulus": (1.85, 5), "flock": (1.6, 12), "front": (2.3, 3),
        }  # fmt: skip

        def fractal(number: int) -> Floats:
            slope, lowest = list(slopes.values())[number]
            return _fractal(np.random.default_rng((seed, 1, number)), slope, lowest)

        with ThreadPoolExecutor(2) as pool:
            districts = pool.submit(_districts, np.random.default_rng((seed, 1, 99)))
            made = dict(zip(slopes, pool.map(fractal, range(len(slopes))), strict=True))
            self.parcel, self.hedge, self.street, self.block, self.pivot = districts.result()
        self.river_px, self.brook_px = _distance_to_zero(made["river"]), _distance_to_zero(made["brook"])
        valley = np.exp(self.river_px / np.float32(-70)) + np.float32(0.3) * np.exp(
            self.brook_px / np.float32(-22)
        )
        ridges = np.float32(0.55) * np.abs(made["ridges"])
        self.elevation = _standard(made["relief"] - ridges - np.float32(1.1) * valley)
        self.moisture = _standard(made["moisture"] + np.float32(0.6) * valley)
        self.woods, self.farms, self.towns, self.grain = (
            made[n] for n in ("woods", "farms", "towns", "grain")
        )
        self.skies = [made[name] for name in ("cumulus", "flock", "front")]
        self.sky_quantiles = [np.quantile(sky[::8, ::8], np.linspace(0, 1, 257)) for sky in self.skies]
        rng = np.random.default_rng((seed, 1, 100))
        self.noise = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
        # Speckle of 4.4 looks is gamma distributed; in decibel it is nearly normal, with a tail downwards.
        gamma = rng.standard_gamma(4.4, (SIZE, SIZE), dtype=np.float32) / np.float32(4.4)
        self.speckle_db = np.float32(10) * np.log10(gamma)


def _fractal(rng: np.random.Generator, slope: float, lowest: float) -> Floats:
    """Return noise whose amplitude falls as frequency ** -slope, from ``lowest`` waves a side on; mean 0, std 1."""
    fy, fx = np.fft.fftfreq(SIZE, 1 / SIZE)[:, None], np.fft.rfftfreq(SIZE, 1 / SIZE)[None]
    frequency = np.hypot(fy, fx).astype(np.float32)
    amplitude = np.maximum(frequency, lowest) ** np.float32(-slope)
    amplitude[0, 0] = 0
    shape = frequency.shape
    phases = rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)
    return _standard(
        np.fft.irfft2((phases * amplitude).astype(np.complex64), s=(SIZE, SIZE)).astype(np.float32)
    )


def _standard(field: Floats) -> Floats:
    standard: Floats = (field - field.mean()) / field.std()
    return standard


def _distance_to_zero(field: Floats) -> Floats:
    """Return roughly the distance in pixels to where a smooth field changes sign: a line as wide everywhere."""
    dy, dx = np.gradient(field)
    distance: Floats = np.abs(field) / (np.hypot(dy, dx) + np.float32(1e-4))
    return distance


def _districts(rng: np.random.Generator, spacing: int = 96) -> tuple[Floats, Flags, Flags, Floats, Floats]:
    """Return the districts (a jittered Voronoi), each with parcels and streets along its own direction.

    Returns, per pixel: number of the parcel in [0, 1), hedge on its border?, road or street?, brightness of the
    town block in [0, 1), and number of the pivot circle in (0, 1), 0 outside.
    """
    n = SIZE // spacing + 3
    jitter = rng.random((2, n, n), dtype=np.float32)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    cell_y, cell_x = (y // spacing).astype(np.int32), (x // spacing).astype(np.int32)
    nearest = np.full((SIZE, SIZE), np.inf, np.float32)
    second = nearest.copy()
    district = np.zeros((SIZE, SIZE), np.int32)
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            cy, cx = cell_y + dy, cell_x + dx
            distance = np.hypot(
                (cy - 1 + jitter[0][cy, cx]) * spacing - y, (cx - 1 + jitter[1][cy, cx]) * spacing - x
            )
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            district = np.where(closer, cy * n + cx, district)
            nearest = np.where(closer, distance, nearest)
    road = second - nearest < 1.3
    angle = (rng.random(n * n, np.float32) * np.float32(np.pi))[district]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    width = rng.uniform(7, 20, n * n).astype(np.float32)[district]
    length = rng.uniform(18, 60, n * n).astype(np.float32)[district]
    strip = np.floor(across / width)
    part = along / length + _hash(strip, district, 7)
    parcel = _hash(strip, district, np.floor(part))
    hedge = (across - strip * width < 1.0) | ((part - np.floor(part)) * length < 1.0)
    street = (across % 9 < 1.1) | (along % 14 < 1.1)
    block = np.where(street, np.float32(0.3), _hash(np.floor(across / 3), np.floor(along / 3), district))
    row, column = np.floor(y / 82), np.floor(x / 82)
    inside = np.hypot(y - row * 82 - 41, x - column * 82 - 41) < 39
    pivot = np.where(inside & (_hash(row, column, 3) < 0.62), _hash(row, column, 5) * 0.98 + 0.01, 0).astype(
        np.float32
    )
    return parcel, hedge, road, block.astype(np.float32), pivot


def _hash(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> Floats:
    """Hash integers to numbers in [0, 1) that look random."""
    parts = (np.asarray(part).astype(np.int32).view(np.uint32) for part in (a, b, c))
    first, second, third = (part * np.uint32(prime) for part, prime in zip(parts, HASH_PRIMES, strict=True))
    mixed = first ^ second ^ third
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(1_274_126_177)
    number: Floats = (mixed >> np.uint32(16)).astype(np.float32) / np.float32(65_536)
    return number
