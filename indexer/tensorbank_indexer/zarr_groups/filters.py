"""Filters and checksums that an archive may name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
from numcodecs.checksum32 import CRC32C

from tensorbank.errors import FormatError
from tensorbank_indexer.zarr_groups.decoding_step import Buffer, Decoder
from tensorbank_indexer.zarr_groups.dtypes import number_type

__all__ = ["FILTERS"]


def _same(config: Mapping[str, Any]) -> Decoder:
    """Return the decoder of a filter that keeps the size of its data."""
    codec = numcodecs.get_codec(dict(config))
    if config["id"] == "shuffle" and not 0 < _integer(config, "elementsize", 4) <= 256:
        raise FormatError(f"The zarr codec shuffle has elements of {config['elementsize']} bytes.")
    return Decoder(config["id"], lambda data, _most: codec.decode(data), lambda n_bytes: n_bytes)


def _converted(config: Mapping[str, Any]) -> Decoder:
    """Return the decoder of a filter that stores each number in another type: delta, fixedscaleoffset, quantize, astype."""
    names = ("decode_dtype", "encode_dtype") if config["id"] == "astype" else ("dtype", "astype")
    raw = number_type(config.get(names[0]))
    stored = raw if config.get(names[1]) is None else number_type(config[names[1]])
    for name in ("offset", "scale", "digits"):
        value = config.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or (name == "scale" and not value):
            raise FormatError(f"The zarr codec {config['id']} has {name} {str(value)[:60]!r}.")
    codec = numcodecs.get_codec(dict(config))

    def decode(data: Buffer, _most: int) -> Buffer:
        with np.errstate(all="ignore"):
            return codec.decode(data)

    return Decoder(config["id"], decode, lambda n_bytes: -(-n_bytes // raw.itemsize) * stored.itemsize)


def _packbits(config: Mapping[str, Any]) -> Decoder:
    codec = numcodecs.get_codec(dict(config))
    return Decoder("packbits", lambda data, _most: codec.decode(data), lambda n_bytes: -(-n_bytes // 8) + 1)


def _checksum(config: Mapping[str, Any]) -> Decoder:
    name, location = config["id"], config.get("location")
    if location not in (None, "start", "end"):
        raise FormatError(f"The zarr codec {name} lies at {str(location)[:60]!r}; start and end are known.")
    codec: Any = CRC32C(location=location or "end") if name == "crc32c" else numcodecs.get_codec(dict(config))

    def decode(data: Buffer, _most: int) -> Buffer:
        flat: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        return codec.decode(flat)

    return Decoder(name, decode, lambda n_bytes: n_bytes + 4)


def _integer(config: Mapping[str, Any], name: str, default: int) -> int:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise FormatError(f"The zarr codec {config['id']} has {name} {str(value)[:60]!r}.")
    return value


FILTERS: Mapping[str, Callable[[Mapping[str, Any]], Decoder]] = {
    "astype": _converted,
    "delta": _converted,
    "fixedscaleoffset": _converted,
    "quantize": _converted,
    "bitround": _same,
    "packbits": _packbits,
    "shuffle": _same,
    "adler32": _checksum,
    "crc32": _checksum,
    "crc32c": _checksum,
    "fletcher32": _checksum,
}
"""The makers of decoders by the filter's name, each from its configuration."""
