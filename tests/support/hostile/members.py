"""Members and tars with anything odd in them, written without a line of our own readers.

A member is a dictionary of zip entries until it is zipped, so that a test may put what it likes into any of them.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Blosc

BLOSC = Blosc("zstd", 1, Blosc.SHUFFLE)
NS = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
SIDE = 16
TIME_NS = 1_600_000_000_000_000_000


def array_entries(
    name: str,
    data: Any,
    dims: Sequence[str],
    *,
    attrs: Mapping[str, Any] | None = None,
    compressor: Any = None,
    filters: Sequence[Any] = (),
    chunks: Sequence[int] | None = None,
    fill_value: Any = None,
    **metadata: Any,
) -> dict[str, bytes]:
    """Return the entries of one zarr v2 array. ``metadata`` overrides keys of its ``.zarray``."""
    data = np.asarray(data)
    chunks = tuple(chunks or (max(1, size) for size in data.shape))
    document = {
        "zarr_format": 2,
        "shape": list(data.shape),
        "chunks": list(chunks),
        "dtype": data.dtype.str,
        "compressor": compressor.get_config() if compressor else None,
        "filters": [f.get_config() for f in filters] or None,
        "fill_value": fill_value,
        "order": "C",
    } | metadata
    entries = {
        f"{name}/.zarray": json.dumps(document).encode(),
        f"{name}/.zattrs": json.dumps({"_ARRAY_DIMENSIONS": list(dims), **(attrs or {})}).encode(),
    }
    for at in itertools.product(*(range(-(-s // c)) for s, c in zip(data.shape, chunks, strict=True))):
        block = np.zeros(chunks, data.dtype)
        part = data[tuple(slice(i * c, (i + 1) * c) for i, c in zip(at, chunks, strict=True))]
        block[tuple(slice(0, s) for s in part.shape)] = part
        stored: Any = np.ravel(block, order=document["order"])
        for codec in [*filters, *([compressor] if compressor else ())]:
            stored = codec.encode(stored)
        key = ".".join(map(str, at)) or "0"
        entries[f"{name}/{key}"] = stored if isinstance(stored, bytes) else np.asarray(stored).tobytes()
    return entries


def member_entries(
    pixels: Any,
    *,
    sample: str = "282D_485L_0_0",
    bands: Sequence[str] = ("DEM",),
    dims: Sequence[str] = ("time", "band", "y", "x"),
    x: Any = None,
    y: Any = None,
    attrs: Mapping[str, Any] | None = None,
    mask: Any = None,
    time: Any = TIME_NS,
    time_attrs: Mapping[str, Any] = NS,
    drop: Iterable[str] = (),
    **options: Any,
) -> dict[str, bytes]:
    """Return the entries of one modality of one sample; ``options`` are of the array of pixels."""
    pixels = np.asarray(pixels)
    sizes = dict(zip(dims, pixels.shape, strict=True))
    width, height = sizes.get("x", SIDE), sizes.get("y", SIDE)
    times = np.atleast_1d(np.asarray(time))
    parts = {
        "x": (500_005.0 + 10 * np.arange(width) if x is None else x, ("x",), {}),
        "y": (4_999_995.0 - 10 * np.arange(height) if y is None else y, ("y",), {}),
        "band": (np.array(bands, np.str_), ("band",), {}),
        "time": (times, ("time",), time_attrs),
        "sample": (np.array(sample), (), {}),
        "crs": (np.array(32633), (), {}),
        "center_lon": (np.array(15.0), (), {}),
        "center_lat": (np.array(45.15), (), {}),
        "file_id": (np.array(["S2A"] * len(times)), ("time",), {}),
    }
    entries = {".zgroup": b'{"zarr_format": 2}', ".zattrs": b"{}"}
    for name, (data, names, own) in parts.items():
        entries |= array_entries(name, data, names, attrs=own)
    options = {"compressor": BLOSC, **options}
    entries |= array_entries("bands", pixels, dims, attrs=attrs, **options)
    if mask is not None:
        entries |= array_entries("cloud_mask", mask, [d for d in dims if d != "band"], compressor=BLOSC)
    return {key: data for key, data in entries.items() if key.partition("/")[0] not in set(drop)}


def zipped(
    entries: Mapping[str, bytes], *, consolidated: bool = True, method: int = zipfile.ZIP_STORED
) -> bytes:
    """A ``.zarr.zip`` of entries; their metadata are consolidated unless they bring a ``.zmetadata``."""
    entries = dict(entries)
    if consolidated and ".zmetadata" not in entries:
        documents = {
            key: json.loads(data) for key, data in entries.items() if key.rpartition("/")[2].startswith(".z")
        }
        entries[".zmetadata"] = json.dumps({"zarr_consolidated_format": 1, "metadata": documents}).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for key, data in entries.items():
            archive.writestr(zipfile.ZipInfo(key), data, compress_type=method)
    return buffer.getvalue()


def member(pixels: Any, **options: Any) -> bytes:
    """Return one modality of one sample as a ``.zarr.zip``."""
    return zipped(member_entries(pixels, **options))


def pixels_of(number: int, side: int = SIDE) -> np.ndarray:
    """Return distinct int16 pixels of one date and band."""
    return np.random.default_rng(number).integers(1, 3000, (1, 1, side, side)).astype(np.int16)


def tar_of(members: Iterable[tuple[str, bytes]], tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar of members in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tars(root: Path, modalities: Mapping[str, Mapping[str, bytes]], split: str = "train") -> Path:
    """Write ``{root}/{split}/{modality}/majortom_shard_000001.tar`` of ``{modality: {stem: member}}``;
    return the root."""
    for modality, members in modalities.items():
        folder = root / split / modality
        folder.mkdir(parents=True, exist_ok=True)
        tar = tar_of((f"{stem}.zarr.zip", data) for stem, data in members.items())
        (folder / "majortom_shard_000001.tar").write_bytes(tar)
    return root


def stem_of(number: int) -> str:
    return f"majortom_train_{number:07d}"


def sample_of(number: int) -> str:
    return f"{282 + number}D_485L_0_0"


def sound_members(numbers: Iterable[int]) -> dict[str, bytes]:
    """Return the members of DEM by stem, each with pixels and id of its own."""
    return {stem_of(i): member(pixels_of(i), sample=sample_of(i)) for i in numbers}
