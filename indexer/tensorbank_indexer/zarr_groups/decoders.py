"""Codecs that an archive may name, each undone within a stated number of bytes.

The list is closed: what an archive names is data of somebody else, so nothing is looked up in a registry that
other packages may extend. Codecs that yield objects (pickle, json2, msgpack2, categorize, vlen-bytes,
vlen-array) are not in it. A decoder never writes more than the metadata promise: sizes that a compressed
stream states are checked before memory is taken, streams that state none are cut off.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numcodecs import blosc, lz4
from numcodecs.checksum32 import CRC32C

from tensorbank.errors import ErrorKind, FormatError, IntegrityError
from tensorbank_indexer.zarr_groups.dtypes import number_type

__all__ = [
    "DECODERS",
    "DECODE_ERRORS",
    "Decoder",
    "decode_texts",
    "decode_within",
    "forbid_blosc_threads",
    "open_decoder",
]

Buffer = Any
"""The bytes, a memoryview or an array, as codecs take and give them."""

DECODE_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    EOFError,
    OSError,
    MemoryError,
    OverflowError,
    zlib.error,
    lzma.LZMAError,
)
"""The errors that codecs raise on bytes that they did not write; ``pa.ArrowInvalid`` is a ValueError."""
LZMA_MEMORY_BYTES = 128 << 20
"""The most memory in bytes for the dictionary of an LZMA stream: preset 9 needs 65 MiB."""
BLOSC_HEADER_BYTES = 16


@dataclass(frozen=True, slots=True)
class Decoder:
    """One step of taking a stored chunk back to raw bytes.

    ``decode(data, max_bytes)`` may give up to ``max_bytes + 1`` bytes, or refuse. ``max_stored`` tells how many bytes the
    encoder could have made of so many, at most.
    """

    name: str
    decode: Callable[[Buffer, int], Buffer]
    max_stored: Callable[[int], int]

    @property
    def is_blosc(self) -> bool:
        """True if chunks are Blosc buffers, whose blocks can be decoded one by one."""
        return self.name == "blosc"


def open_decoder(config: Any) -> Decoder:
    """Return the decoder for a codec's configuration, as in a ``.zarray``: its ``id`` and parameters.

    Raises
    ------
    FormatError
        The codec is not one that archives may use (kind ``codec``), or its parameters are malformed.
    """
    name = config.get("id") if isinstance(config, Mapping) else None
    if not isinstance(name, str) or name not in DECODERS:
        raise FormatError(
            f"The zarr codec {str(name)[:60]!r} is not read; {', '.join(sorted(DECODERS))} are.",
            kind=ErrorKind.CODEC,
        )
    try:
        return DECODERS[name](config)
    except (TypeError, ValueError) as error:
        raise FormatError(
            f"The zarr codec {name} has parameters that are not understood: {error}."
        ) from error


def decode_within(decoders: tuple[Decoder, ...], data: Buffer, n_bytes: int) -> Buffer:
    """Undo codecs, the last one first, for a chunk of at most ``n_bytes``.

    Raises
    ------
    IntegrityError
        The bytes are damaged, or decode to more than the chunk has room for.
    """
    sizes = [n_bytes]
    for decoder in decoders[:0:-1]:
        sizes.append(decoder.max_stored(sizes[-1]))
    for decoder in decoders:
        most = sizes.pop()
        try:
            data = decoder.decode(data, most)
        except DECODE_ERRORS as error:
            raise IntegrityError(f"a chunk cannot be decoded by {decoder.name}: {error}") from error
        if memoryview(data).nbytes > most:
            raise IntegrityError(
                f"a chunk decodes by {decoder.name} to more than the {most} bytes it may have."
            )
    return data


def forbid_blosc_threads() -> None:
    """Have Blosc use the calling thread alone in this process, also where it is the main thread.

    For processes of which there are as many as processors. A setting of the whole process: not for one that belongs to a caller.
    """
    blosc.use_threads = False


def decode_texts(data: Buffer, n_texts: int) -> list[str]:
    """Return the texts of a vlen-utf8 chunk: a count, then length and UTF-8 bytes of each (all little-endian u32).

    Raises
    ------
    IntegrityError
        They are not ``n_texts``, or a length leads beyond the end.
    """
    view = memoryview(data).cast("B")
    count = int.from_bytes(view[:4], "little")
    if len(view) < 4 or count != n_texts or count > len(view) // 4:
        raise IntegrityError(f"a chunk of {len(view)} bytes has {count} texts instead of {n_texts}.")
    texts: list[str] = []
    at = 4
    for _ in range(count):
        end = at + 4 + int.from_bytes(view[at : at + 4], "little")
        if end > len(view):
            raise IntegrityError(f"a text of a chunk ends at byte {end} of {len(view)}.")
        texts.append(bytes(view[at + 4 : end]).decode("utf-8", "backslashreplace"))
        at = end
    return texts


# ---------------------------------------------------------------- compressors


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


# ---------------------------------------------------------------- filters and checksums


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


DECODERS: Mapping[str, Callable[[Mapping[str, Any]], Decoder]] = {
    "blosc": _compressor("blosc", _blosc),
    "bz2": _compressor("bz2", _bz2),
    "gzip": _compressor("gzip", _zlib(zlib.MAX_WBITS | 16)),
    "lz4": _compressor("lz4", _lz4),
    "lzma": _compressor("lzma", _lzma),
    "zlib": _compressor("zlib", _zlib(zlib.MAX_WBITS)),
    "zstd": _compressor("zstd", _zstd),
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
