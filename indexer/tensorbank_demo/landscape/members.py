"""Members of made-up archives: Zarr v2 groups as xarray writes them, in a zip whose entries are stored."""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import Blosc

__all__ = ["Variable", "zarr_zip"]

BLOSC = Blosc(cname="zstd", clevel=1, shuffle=Blosc.SHUFFLE)
SMALL_BYTES = 16_384
"""The size in bytes below which arrays are coordinates, the same in all modalities of a sample: their encoding is kept."""
DOS_DATE = (2026 - 1980) << 9 | 1 << 5 | 1
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
DIRECTORY_ENTRY = struct.Struct("<4s6H3L5H2L")
DIRECTORY_END = struct.Struct("<4s4H2LH")


@dataclass(frozen=True, slots=True)
class Variable:
    """One array of a group; stored as a single chunk, 0-d ones uncompressed as xarray does."""

    name: str
    dims: tuple[str, ...]
    values: npt.NDArray[Any]
    attrs: Mapping[str, object] = field(default_factory=dict)


def zarr_zip(variables: Sequence[Variable]) -> bytes:
    """Return a consolidated Zarr v2 group in a zip, with the same bytes for the same input.

    Samples may be encoded concurrently: outside of the main thread numcodecs calls Blosc without threads of its own.
    """
    entries: list[tuple[str, bytes]] = [(".zgroup", b'{"zarr_format":2}'), (".zattrs", b"{}")]
    documents = ['".zattrs":{}', '".zgroup":{"zarr_format":2}']
    for variable in variables:
        name, values = variable.name, variable.values
        array = _array_document(values.dtype.str, values.shape)
        attrs = _attrs_document(variable.dims, tuple(variable.attrs.items()))
        key = ".".join("0" * values.ndim) or "0"
        entries += [
            (f"{name}/.zarray", array.encode()),
            (f"{name}/.zattrs", attrs.encode()),
            (f"{name}/{key}", _chunk(values)),
        ]
        documents += [f'"{name}/.zarray":{array}', f'"{name}/.zattrs":{attrs}']
    body = ",\n".join(documents)
    entries.append((".zmetadata", f'{{"metadata":{{\n{body}\n}},"zarr_consolidated_format":1}}'.encode()))
    return _stored_zip(entries)


def _chunk(values: npt.NDArray[Any]) -> bytes:
    if values.ndim == 0:
        return values.tobytes()
    if values.nbytes < SMALL_BYTES:
        return _small_chunk(values.tobytes(), values.dtype.itemsize)
    return bytes(BLOSC.encode(np.ascontiguousarray(values)))


@lru_cache(maxsize=512)
def _small_chunk(data: bytes, item_bytes: int) -> bytes:
    return bytes(BLOSC.encode(np.frombuffer(data, np.dtype(f"V{item_bytes}"))))


@lru_cache(maxsize=256)
def _array_document(dtype: str, shape: tuple[int, ...]) -> str:
    return json.dumps(
        {
            "chunks": shape,
            "compressor": BLOSC.get_config() if shape else None,
            "dtype": dtype,
            "fill_value": "NaN" if dtype[1] == "f" else None,
            "filters": None,
            "order": "C",
            "shape": shape,
            "zarr_format": 2,
        }
    )


def _attrs_document(dims: tuple[str, ...], attrs: tuple[tuple[str, object], ...]) -> str:
    return json.dumps({"_ARRAY_DIMENSIONS": dims, **dict(attrs)})


def _stored_zip(entries: Sequence[tuple[str, bytes]]) -> bytes:
    """Return a zip of stored entries; ``zipfile`` would take longer for it than Blosc for the pixels."""
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name, data in entries:
        path = name.encode()
        sizes = (zlib.crc32(data), len(data), len(data), len(path), 0)
        parts += (LOCAL_HEADER.pack(b"PK\x03\x04", 20, 0, 0, 0, DOS_DATE, *sizes), path, data)
        directory += (
            DIRECTORY_ENTRY.pack(
                b"PK\x01\x02", 0x0314, 20, 0, 0, 0, DOS_DATE, *sizes, 0, 0, 0, 0o644 << 16, offset
            ),
            path,
        )
        offset += LOCAL_HEADER.size + len(path) + len(data)
    size = sum(map(len, directory))
    end = DIRECTORY_END.pack(b"PK\x05\x06", 0, 0, len(entries), len(entries), size, offset, 0)
    return b"".join(itertools.chain(parts, directory, (end,)))
