"""Codecs that an archive may name, each undone within a stated number of bytes.

The list is closed: what an archive names is data of somebody else, so nothing is looked up in a registry that
other packages may extend. Codecs that yield objects (pickle, json2, msgpack2, categorize, vlen-bytes,
vlen-array) are not in it. A decoder never writes more than the metadata promise.

Reading Zarr is written out here, in place of zarr-python, since that trusts what metadata claim: a chunk of terabytes is
allocated, a codec of any name looked up.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from tensorbank.errors import ErrorKind, FormatError, IntegrityError
from tensorbank_indexer.zarr_groups.compressors import COMPRESSORS
from tensorbank_indexer.zarr_groups.decoding_step import Buffer, Decoder
from tensorbank_indexer.zarr_groups.filters import FILTERS

__all__ = [
    "DECODERS",
    "DECODE_ERRORS",
    "Decoder",
    "decode_texts",
    "decode_within",
    "open_decoder",
]

DECODERS: Mapping[str, Callable[[Mapping[str, Any]], Decoder]] = {**COMPRESSORS, **FILTERS}
"""The makers of decoders by the codec's name."""
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
