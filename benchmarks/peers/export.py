"""The samples of a benchmark, exported from a bank: the same pixels for every peer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import Zstd

import tensorbank as tb

__all__ = ["MODALITIES", "SEED", "export"]

MODALITIES = ("S2L2A", "S2L1C", "S2RGB", "S1RTC", "DEM", "NDVI", "LULC")
SEED = 42
ZSTD_LEVEL = 3
N_TILES = 4
"""The number of cells along each axis of a sample in Q5, as the index has them."""


def export(bank_url: str, folder: Path, n_samples: int) -> None:
    """Write ``n_samples`` of the samples that have all modalities, in the form of :class:`peers.contract.Export`.

    A bank of fewer samples gives each several times: turned, mirrored and shifted, so that no two are equal and none compresses
    by another. ``cloud_cover`` is drawn anew, uniform in [0, 1), so that a threshold is a selectivity. Beside each
    ``<modality>.npy`` lies ``<modality>.zstd_bytes.npy``, [sample, band], what zstd 3 makes of each band.
    """
    bank = tb.open(bank_url)
    table = bank.tables()[0]
    there = " AND ".join(f"{name} IS NOT NULL" for name in MODALITIES)
    query = bank.sql(
        f"SELECT sample_id, lon, lat, {', '.join(MODALITIES)} FROM {table} WHERE {there} LIMIT {n_samples}"
    )
    plan = query.plan()
    if not len(plan):
        raise SystemExit(f"{bank_url} has no sample with all of {', '.join(MODALITIES)}")
    finished, folder = folder, folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    described = {
        h.name: {"dtype": h.modality.dtype, "bands": list(h.modality.band_names)} for h in plan.handles
    }
    out = {
        h.name: np.lib.format.open_memmap(
            folder / f"{h.name}.npy",
            mode="w+",
            dtype=h.modality.dtype,
            shape=(n_samples, len(h.bands), h.modality.height, h.modality.width),
        )
        for h in plan.handles
    }
    places: list[tuple[float, float]] = []
    with plan.dataloader(batch_size=8, shuffle=False) as loader:
        at = 0
        for batch in loader:
            n = len(batch["sample_id"])
            places += zip(_floats(batch["lon"]), _floats(batch["lat"]), strict=True)
            for name, stored in out.items():
                pixels = batch[name].numpy()
                for first in range(at, n_samples, len(plan)):
                    end = min(first + n, n_samples)
                    stored[first:end] = variant(pixels[: end - first], first // len(plan))
            at += n
    clouds = np.random.default_rng(SEED).uniform(size=n_samples)
    rows = [
        _row(i, places[i % len(places)], float(clouds[i]), {name: out[name][i] for name in out})
        for i in range(n_samples)
    ]
    codec = Zstd(ZSTD_LEVEL)
    for name, stored in out.items():
        sizes = [[len(codec.encode(np.ascontiguousarray(band))) for band in sample] for sample in stored]
        np.save(folder / f"{name}.zstd_bytes.npy", np.array(sizes, np.int64))
        stored.flush()
    name, windows = tiles(out["LULC"])
    manifest = {"modalities": described, "samples": rows, "tiles": {"where": name, "windows": windows}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    folder.rename(finished)


def variant(pixels: npt.NDArray[np.generic], k: int) -> npt.NDArray[np.generic]:
    """Return the k-th form of [..., y, x]: the eight symmetries of a square, then the same again shifted."""
    turned = np.rot90(pixels, k % 4, axes=(-2, -1))
    mirrored = np.flip(turned, -1) if k // 4 % 2 else turned
    return np.roll(mirrored, 31 * (k // 8), axis=-1)


def tiles(land: npt.NDArray[np.generic]) -> tuple[str, list[list[int]]]:
    """Return a condition on tiles that selects about a tenth of them, and those tiles:
    position, y0, y1, x0, x1.

    A tile's share of a class is a multiple of 1/4356 and never 0.9 itself, so that no rounding decides.
    """
    from tensorbank_indexer.modalities import KNOWN

    side = land.shape[-1] // N_TILES
    cells = land[:, 0].reshape(len(land), N_TILES, side, N_TILES, side)
    shares = {
        name: (cells == value).mean(axis=(2, 4)) > 0.9 for value, name in enumerate(KNOWN["LULC"].classes)
    }
    name = min(shares, key=lambda c: abs(float(shares[c].mean()) - 0.1))
    chosen = np.argwhere(shares[name])
    windows = [
        [int(p), int(y * side), int((y + 1) * side), int(x * side), int((x + 1) * side)] for p, y, x in chosen
    ]
    return f"LULC.share.{name} > 0.9", windows


def _row(
    i: int, place: tuple[float, float], cloud_cover: float, pixels: Mapping[str, npt.NDArray[np.generic]]
) -> dict[str, Any]:
    """Return the row of a sample: its id and ten scalars."""
    means = {
        "s2_b04_mean": pixels["S2L2A"][3],
        "s2_b08_mean": pixels["S2L2A"][7],
        "s1_vv_mean": pixels["S1RTC"][0],
        "dem_mean": pixels["DEM"][0],
        "ndvi_mean": pixels["NDVI"][0],
    }
    return {
        "sample_id": f"s{i:06d}",
        "cloud_cover": cloud_cover,
        "lon": place[0],
        "lat": place[1],
        **{name: float(np.nanmean(p, dtype=np.float64)) for name, p in means.items()},
        "share_water": float((pixels["LULC"] == 1).mean()),
        "share_trees": float((pixels["LULC"] == 2).mean()),
    }


def _floats(values: Any) -> Iterator[float]:
    column: Sequence[Any] = values.tolist() if hasattr(values, "tolist") else values
    return (float(v) for v in column)
