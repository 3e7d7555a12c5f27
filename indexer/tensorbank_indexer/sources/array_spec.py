"""What the metadata of a zarr array says: version 2 (``.zarray``) and version 3 (``zarr.json``), as one
value."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numcodecs
import numpy as np
from numcodecs.abc import Codec
from numcodecs.checksum32 import CRC32C

from tensorbank.errors import FormatError

__all__ = ["ArraySpec", "parse_consolidated", "parse_v2", "parse_v3"]

numcodecs.blosc.use_threads = False
"""One thread a call: parallelism is the caller's, over samples."""

V3_KINDS = {"bool": "?", "float16": "<f2", "float32": "<f4", "float64": "<f8"} | {
    f"{sign}int{8 * size}": f"<{code}{size}"
    for sign, code in (("", "i"), ("u", "u"))
    for size in (1, 2, 4, 8)
}
SPECIAL_FLOATS = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Shape, chunks and codecs of an array.

    ``decoders`` are applied in this order to a stored chunk; ``order`` is the memory order of a decoded
    chunk. ``fill_value`` is None where the metadata have none, which reads as zeros. Specs are equal if their
    ``token``, the metadata without attributes, is.
    """

    token: str
    shape: tuple[int, ...] = field(compare=False)
    chunks: tuple[int, ...] = field(compare=False)
    dtype: np.dtype[Any] = field(compare=False)
    fill_value: Any = field(compare=False)
    order: str = field(compare=False)
    decoders: tuple[Codec, ...] = field(compare=False)
    dims: tuple[str, ...] = field(compare=False)
    attrs: Mapping[str, Any] = field(compare=False)
    key_prefix: str = field(default="", compare=False)
    separator: str = field(default=".", compare=False)

    @property
    def is_single_chunk(self) -> bool:
        """Whether the first chunk holds the array and nothing else."""
        return self.chunks == self.shape

    def clipped(self, index: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what of a chunk lies in the array."""
        if self.chunks == self.shape:
            return self.chunks
        return tuple(
            min(chunk, size - i * chunk)
            for i, chunk, size in zip(index, self.chunks, self.shape, strict=True)
        )

    def chunk_key(self, index: tuple[int, ...]) -> str:
        """Key of a chunk below its array: ``0.0`` and ``0`` for 0-d in version 2, ``c/0/0`` and ``c`` in
        version 3."""
        numbers = self.separator.join(map(str, index))
        if self.key_prefix:
            return f"{self.key_prefix}{self.separator}{numbers}" if index else self.key_prefix
        return numbers or "0"


@lru_cache(maxsize=1024)
def parse_consolidated(document: bytes) -> Mapping[str, ArraySpec] | None:
    """Arrays of a ``.zmetadata`` or a group's ``zarr.json``; None if the latter has no consolidated metadata.

    Cached by content: it is the same in all members of a modality and UTM zone.
    """
    content = _json(document)
    if "zarr_consolidated_format" in content:
        items = content.get("metadata", {})
        return {
            name.removesuffix("/.zarray"): parse_v2(
                item, items.get(name.removesuffix(".zarray") + ".zattrs", {})
            )
            for name, item in items.items()
            if name.endswith("/.zarray")
        }
    consolidated = content.get("consolidated_metadata")
    if not consolidated:
        return None
    return {
        name: parse_v3(item)
        for name, item in consolidated.get("metadata", {}).items()
        if item.get("node_type") == "array"
    }


def parse_v2(array: Mapping[str, Any] | bytes, attrs: Mapping[str, Any] | bytes) -> ArraySpec:
    """Spec of ``.zarray`` and ``.zattrs``, parsed or as bytes.

    Raises
    ------
    FormatError
        A key is missing, or dtype or codec are not known.
    """
    array, attrs = (_json(item) if isinstance(item, bytes) else item for item in (array, attrs))
    try:
        dtype = _dtype_v2(array["dtype"])
        codecs = [*(array.get("filters") or ()), *([array["compressor"]] if array.get("compressor") else ())]
        return ArraySpec(
            token=_token(array),
            shape=tuple(array["shape"]),
            chunks=tuple(array["chunks"]),
            dtype=dtype,
            fill_value=_fill(array.get("fill_value"), dtype),
            order=array.get("order", "C"),
            decoders=tuple(numcodecs.get_codec(dict(config)) for config in reversed(codecs)),
            dims=tuple(attrs.get("_ARRAY_DIMENSIONS", ())),
            attrs=attrs,
            separator=array.get("dimension_separator", "."),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"The zarr metadata cannot be used: {type(error).__name__}: {error}.") from error


def parse_v3(array: Mapping[str, Any] | bytes) -> ArraySpec:
    """Spec of an array's ``zarr.json``, parsed or as bytes.

    Raises
    ------
    FormatError
        A key is missing, or data type, grid or codec are not supported.
    """
    array = _json(array) if isinstance(array, bytes) else array
    try:
        encoding = array["chunk_key_encoding"]
        is_default = encoding["name"] == "default"
        dtype = _dtype_v3(array["data_type"])
        order, byte_order, decoders = _codecs_v3(array["codecs"], len(array["shape"]))
        if byte_order == ">" and dtype.kind != "O":
            dtype = dtype.newbyteorder(">")
        return ArraySpec(
            token=_token(array),
            shape=tuple(array["shape"]),
            chunks=tuple(array["chunk_grid"]["configuration"]["chunk_shape"]),
            dtype=dtype,
            fill_value=_fill(array.get("fill_value"), dtype),
            order=order,
            decoders=decoders,
            dims=tuple(name or "" for name in array.get("dimension_names") or ()),
            attrs=array.get("attributes", {}),
            key_prefix="c" if is_default else "",
            separator=encoding.get("configuration", {}).get("separator", "/" if is_default else "."),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"The zarr metadata cannot be used: {type(error).__name__}: {error}.") from error


def _token(array: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in array.items() if key != "attributes"}, sort_keys=True)


def _json(document: bytes) -> dict[str, Any]:
    try:
        content = json.loads(document)
    except ValueError as error:
        raise FormatError(f"The zarr metadata are not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise FormatError("The zarr metadata are not a JSON object.")
    return content


def _dtype_v2(name: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype([tuple(part) for part in name] if isinstance(name, list) else name)
    return found


def _dtype_v3(name: Any) -> np.dtype[Any]:
    config: Mapping[str, Any] = {}
    if isinstance(name, dict):
        name, config = name["name"], name.get("configuration", {})
    if name in V3_KINDS:
        return np.dtype(V3_KINDS[name])
    if name == "fixed_length_utf32":
        return np.dtype(f"<U{config['length_bytes'] // 4}")
    if name == "numpy.datetime64":
        return np.dtype(f"<M8[{config.get('scale_factor', 1)}{config['unit']}]")
    if name in ("string", "variable_length_utf8"):
        return np.dtype(object)
    raise FormatError(f"The zarr data type {name!r} is not supported.")


def _codecs_v3(codecs: list[Mapping[str, Any]], n_dims: int) -> tuple[str, str, tuple[Codec, ...]]:
    """Memory order, byte order and decoders, the last codec's first."""
    order, byte_order = "C", "<"
    decoders: list[Codec] = []
    for item in codecs:
        name, config = item["name"], item.get("configuration") or {}
        if name == "bytes":
            byte_order = ">" if config.get("endian") == "big" else "<"
        elif name == "transpose":
            axes = config["order"]
            if axes not in ("C", "F", list(range(n_dims)), list(range(n_dims))[::-1]):
                raise FormatError(f"The zarr codec transpose is supported for order C and F, not {axes}.")
            if axes == "F" or (n_dims > 1 and axes == list(range(n_dims))[::-1]):
                order = "F"
        elif name == "zstd":
            decoders.append(numcodecs.Zstd(level=config.get("level", 0)))
        elif name == "gzip":
            decoders.append(numcodecs.GZip(level=config.get("level", 1)))
        elif name == "blosc":
            decoders.append(numcodecs.Blosc(cname=config.get("cname", "zstd")))
        elif name == "crc32c":
            decoders.append(CRC32C(location="end"))
        elif name == "vlen-utf8":
            decoders.append(numcodecs.VLenUTF8())
        elif name.startswith("numcodecs."):
            decoders.append(numcodecs.get_codec({"id": name.removeprefix("numcodecs."), **config}))
        else:
            known = "bytes, transpose, zstd, gzip, blosc, crc32c and vlen-utf8"
            raise FormatError(f"The zarr codec {name!r} is not supported; {known} are.")
    return order, byte_order, tuple(reversed(decoders))


def _fill(value: Any, dtype: np.dtype[Any]) -> Any:
    """The fill value as a Python number or text of the array's type; None stays None."""
    if value is None:
        return None
    if dtype.kind == "f":
        if isinstance(value, str) and value.startswith("0x"):
            return float(
                np.frombuffer(int(value, 16).to_bytes(dtype.itemsize, "little"), dtype.newbyteorder("<"))[0]
            )
        if isinstance(value, str) and value not in SPECIAL_FLOATS:
            return struct.unpack("<d", base64.b64decode(value))[0]
        return float(SPECIAL_FLOATS.get(value, value) if isinstance(value, str) else value)
    if dtype.kind in "iu":
        return int(value)
    if dtype.kind in "SV" and isinstance(value, str):
        return base64.b64decode(value)
    return value
