"""Compressors that an archive may name; none writes more than it is allowed to.

Sizes that a compressed stream states are checked before memory is taken, streams that state none are cut off.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from numcodecs import blosc, lz4

from tensorbank_indexer.zarr_groups.decoding_step import Buffer, Decoder

__all__ = ["COMPRESSORS"]

LZMA_MEMORY_BYTES = 128 << 20
"""The most memory in bytes for the dictionary of an LZMA stream: preset 9 needs 65 MiB."""
BLOSC_HEADER_BYTES = 16
"""The bytes of a Blosc header."""


def _grown(n_bytes: int) -> int:
    """Return the most bytes that a compressor makes of bytes it cannot compress; the worst of them adds a sixth."""
    return n_bytes + n_bytes // 4 + 4096


def _compressor(name: str, decode: Callable[[Buffer, int], Buffer]) -> Callable[[Mapping[str, Any]], Decoder]:
    decoder = Decoder(name, decode, _grown)
    return lambda _config: decoder


def _blosc(data: Buffer, max_bytes: int) -> Buffer:
    view = memoryview(data).cast("B")
    if len(view) < BLOSC_HEADER_BYTES:
        raise ValueError(f"a buffer of {len(view)} bytes has no header")
    n_bytes, stored_bytes = int.from_bytes(view[4:8], "little"), int.from_bytes(view[12:16], "little")
    _promised(n_bytes, max_bytes)
    if stored_bytes > len(view):
        raise ValueError(f"a chunk has {len(view)} of {stored_bytes} bytes")
    return blosc.decompress(view)


def _lz4(data: Buffer, max_bytes: int) -> Buffer:
    _promised(int.from_bytes(memoryview(data).cast("B")[:4], "little"), max_bytes)
    return lz4.decompress(data)


def _zstd(data: Buffer, max_bytes: int) -> Buffer:
    with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), "zstd") as stream:
        return stream.read_buffer(max_bytes + 1)


def _zlib(wbits: int) -> Callable[[Buffer, int], Buffer]:
    def decode(data: Buffer, max_bytes: int) -> Buffer:
        rest = memoryview(data).cast("B")
        parts: list[bytes] = []
        room = max_bytes + 1
        while True:
            stream = zlib.decompressobj(wbits)
            parts.append(stream.decompress(rest, room))
            room -= len(parts[-1])
            if not room:
                break
            if not stream.eof:
                raise EOFError("the compressed stream is cut off")
            # A gzip file may have several members; whatever else follows is padding.
            rest = memoryview(stream.unused_data)
            if wbits != zlib.MAX_WBITS | 16 or bytes(rest[:2]) != b"\x1f\x8b":
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return decode


def _bz2(data: Buffer, max_bytes: int) -> Buffer:
    stream = bz2.BZ2Decompressor()
    return _whole(stream, stream.decompress(data, max_bytes + 1), max_bytes)


def _lzma(data: Buffer, max_bytes: int) -> Buffer:
    stream = lzma.LZMADecompressor(memlimit=LZMA_MEMORY_BYTES)
    return _whole(stream, stream.decompress(data, max_bytes + 1), max_bytes)


def _whole(stream: Any, decoded: bytes, max_bytes: int) -> bytes:
    if not stream.eof and len(decoded) <= max_bytes:
        raise EOFError("the compressed stream is cut off")
    return decoded


def _promised(n_bytes: int, max_bytes: int) -> None:
    if n_bytes > max_bytes:
        raise ValueError(f"its header promises {n_bytes} bytes, the chunk has {max_bytes}")


COMPRESSORS: Mapping[str, Callable[[Mapping[str, Any]], Decoder]] = {
    "blosc": _compressor("blosc", _blosc),
    "bz2": _compressor("bz2", _bz2),
    "gzip": _compressor("gzip", _zlib(zlib.MAX_WBITS | 16)),
    "lz4": _compressor("lz4", _lz4),
    "lzma": _compressor("lzma", _lzma),
    "zlib": _compressor("zlib", _zlib(zlib.MAX_WBITS)),
    "zstd": _compressor("zstd", _zstd),
}
"""The makers of decoders by the compressor's name, each from its configuration."""
