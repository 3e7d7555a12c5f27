"""Files of many locations in the layout of SSL4EO-S12's zarr files, written without a line of our own readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Blosc

from support.hostile.members import TIME_NS, array_entries, zipped

__all__ = ["DATES", "IDS", "SIDE", "N", "entries_of", "pixels_of", "write"]

N, DATES, BANDS, SIDE = 3, 2, 2, 8
IDS = ["0000001", "0000002", "0000003"]
DIMS = ("sample", "time", "band", "y", "x")


def pixels_of(modality: str) -> np.ndarray:
    seed = sum(modality.encode())
    return np.random.default_rng(seed).integers(0, 4000, (N, DATES, BANDS, SIDE, SIDE)).astype(np.int16)


def entries_of(modality: str, pixels: np.ndarray | None = None, **changed: Any) -> dict[str, bytes]:
    """Return the entries of one file; ``changed`` replaces arrays by
    ``(data, dims, attributes)`` or takes them away (None)."""
    pixels = pixels_of(modality) if pixels is None else pixels
    x = 500_005.0 + 10 * np.arange(SIDE) + 1000 * np.arange(N)[:, None]
    y = 4_999_995.0 - 10 * np.arange(SIDE) - np.zeros((N, 1))
    parts: dict[str, Any] = {
        "sample": (np.array(IDS), ("sample",), {}),
        "band": (np.array(["a", "b"]), ("band",), {}),
        "crs": (np.full(N, 32633), ("sample",), {}),
        "center_lon": (np.full(N, 15.0), ("sample",), {}),
        "center_lat": (np.full(N, 45.0), ("sample",), {}),
        "x_": (x, ("sample", "x"), {}),
        "y_": (y, ("sample", "y"), {}),
        "time_": (TIME_NS + np.arange(N * DATES).reshape(N, DATES) * 10**15, ("sample", "time"), {}),
        "file_id": (np.full((N, DATES), "S2A"), ("sample", "time"), {}),
    }
    for name, value in changed.items():
        parts[name] = value
    entries = {".zgroup": b'{"zarr_format": 2}', ".zattrs": b"{}"}
    for name, value in parts.items():
        if value is not None:
            entries |= array_entries(name, value[0], value[1], attrs=value[2])
    return entries | array_entries("bands", pixels, DIMS, compressor=Blosc("lz4"), chunks=(2, 1, 2, 8, 8))


def write(root: Path, **files: dict[str, bytes] | bytes) -> Path:
    for modality, entries in files.items():
        folder = root / "val" / modality
        folder.mkdir(parents=True, exist_ok=True)
        data = entries if isinstance(entries, bytes) else zipped(entries)
        (folder / "ssl4eos12_val_seasonal_data_000001.zarr.zip").write_bytes(data)
    return root
