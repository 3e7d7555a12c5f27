"""What the metadata of a zarr array says: version 2 (``.zarray``) and version 3 (``zarr.json``), as one
value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numcodecs
import numpy as np

from tensorbank.errors import FormatError
from tensorbank_indexer.sources.decoders import Decoder, open_decoder
from tensorbank_indexer.sources.dtypes import parse_fill, type_v2, type_v3

__all__ = ["MAX_TEXT_BYTES", "ArraySpec", "parse_consolidated", "parse_v2", "parse_v3"]

numcodecs.blosc.use_threads = False
"""One thread a call: parallelism is the caller's, over samples."""

MAX_AXES = 8
MAX_SIZE = 1 << 48
MAX_CACHED_BYTES = 128 << 10
"""Documents up to this size are kept parsed; published ones have some 20 KB."""
TEXT_BYTES = 16
"""Memory that a text of variable length is counted with."""
MAX_TEXT_BYTES = 16 << 20
"""Decoded bytes of a chunk of texts."""


class Sizes(NamedTuple):
    """What an array takes in memory, kept since it is asked for with each read: raw bytes of the array and of a chunk,
    most bytes of a stored chunk, and chunks of the grid, stored or not."""

    array_bytes: int
    chunk_bytes: int
    stored_bytes: int
    n_chunks: int


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Shape, chunks and codecs of an array.

    ``decoders`` are applied in this order to a stored chunk; ``axes`` is the order in which its axes lie in the
    decoded bytes, slowest first: (0, 1, 2) is order C. ``fill_value`` is None where the metadata have none, which
    reads as zeros. ``has_texts`` tells that decoded chunks are texts in codec vlen-utf8. Specs are equal if their
    ``token``, the metadata without attributes, is.
    """

    token: str
    shape: tuple[int, ...] = field(compare=False)
    chunks: tuple[int, ...] = field(compare=False)
    dtype: np.dtype[Any] = field(compare=False)
    fill_value: Any = field(compare=False)
    axes: tuple[int, ...] = field(compare=False)
    decoders: tuple[Decoder, ...] = field(compare=False)
    dims: tuple[str, ...] = field(compare=False)
    attrs: Mapping[str, Any] = field(compare=False)
    sizes: Sizes = field(compare=False)
    key_prefix: str = field(default="", compare=False)
    separator: str = field(default=".", compare=False)

    @property
    def is_single_chunk(self) -> bool:
        """Whether the first chunk holds the array and nothing else."""
        return self.chunks == self.shape

    @property
    def is_c_order(self) -> bool:
        """Whether the last axis varies fastest in a decoded chunk."""
        return self.axes == tuple(range(len(self.axes)))

    @property
    def has_texts(self) -> bool:
        """Whether its elements are texts of variable length."""
        return self.dtype.kind == "O"

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


Specs = Mapping[str, "ArraySpec | FormatError"]
"""Arrays by name; one whose metadata cannot be used is the error that says why."""


def parse_consolidated(document: bytes) -> Specs | None:
    """Arrays of a ``.zmetadata`` or a group's ``zarr.json``; None if the latter has no consolidated metadata.

    Cached by content: it is the same in all members of a modality and UTM zone.

    Raises
    ------
    FormatError
        It is not a document of that kind.
    """
    return (_parse_kept if len(document) <= MAX_CACHED_BYTES else _parse_all)(document)


def _parse_all(document: bytes) -> Specs | None:
    content = _json(document)
    if "zarr_consolidated_format" in content:
        items = _object(content.get("metadata", {}), "consolidated metadata")
        return {
            name.removesuffix("/.zarray"): _spec_or_error(
                _parse_v2, item, items.get(name.removesuffix(".zarray") + ".zattrs", {})
            )
            for name, item in items.items()
            if name.endswith("/.zarray")
        }
    if not content.get("consolidated_metadata"):
        return None
    consolidated = _object(content["consolidated_metadata"], "consolidated metadata")
    return {
        name: _spec_or_error(_parse_v3, item)
        for name, item in _object(consolidated.get("metadata", {}), "consolidated metadata").items()
        if not isinstance(item, dict) or item.get("node_type") == "array"
    }


_parse_kept = lru_cache(maxsize=1024)(_parse_all)


def parse_v2(array: bytes, attrs: bytes) -> ArraySpec | FormatError:
    """Spec of ``.zarray`` and ``.zattrs``, or why they cannot be used."""
    return _spec_or_error(lambda: _parse_v2(_json(array), _json(attrs)))


def parse_v3(array: bytes) -> ArraySpec | FormatError:
    """Spec of an array's ``zarr.json``, or why it cannot be used."""
    return _spec_or_error(lambda: _parse_v3(_json(array)))


def _spec_or_error(parse: Any, *documents: Any) -> ArraySpec | FormatError:
    try:
        spec: ArraySpec = parse(*documents)
    except FormatError as error:
        return error
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:
        text = f"{type(error).__name__}: {error}"
        return FormatError(f"The zarr metadata cannot be used: {text[:200]}.")
    return spec


def _parse_v2(array: Any, attrs: Any) -> ArraySpec:
    array, attrs = _object(array, ".zarray"), _object(attrs, ".zattrs")
    dtype = type_v2(array["dtype"])
    shape, chunks = _sizes(array["shape"], array["chunks"])
    filters = array.get("filters")
    if filters is not None and not isinstance(filters, list):
        raise FormatError("The filters of an array are not a list.")
    codecs = [*(filters or ()), *([array["compressor"]] if array.get("compressor") is not None else ())]
    codecs = _without_texts(codecs, dtype, lambda config: config.get("id") == "vlen-utf8")
    order = array.get("order", "C")
    if order not in ("C", "F"):
        raise FormatError(f"The order {str(order)[:60]!r} of an array is not known; C and F are.")
    axes = tuple(range(len(shape)))
    decoders = tuple(open_decoder(config) for config in reversed(codecs))
    return ArraySpec(
        token=_token(array),
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=parse_fill(array.get("fill_value"), dtype),
        axes=axes if order == "C" else axes[::-1],
        decoders=decoders,
        dims=_names(attrs.get("_ARRAY_DIMENSIONS"), len(shape)),
        attrs=attrs,
        sizes=_sizes_of(shape, chunks, dtype, decoders),
        separator=_separator(array.get("dimension_separator", ".")),
    )


def _parse_v3(array: Any) -> ArraySpec:
    array = _object(array, "zarr.json")
    encoding = _object(array["chunk_key_encoding"], "chunk_key_encoding")
    if encoding["name"] not in ("default", "v2"):
        raise FormatError(f"The chunk key encoding {str(encoding['name'])[:60]!r} is not known.")
    is_default = encoding["name"] == "default"
    dtype = type_v3(array["data_type"])
    grid = _object(array["chunk_grid"], "chunk_grid")
    shape, chunks = _sizes(array["shape"], _object(grid["configuration"], "chunk_grid")["chunk_shape"])
    axes, byte_order, decoders = _codecs_v3(array["codecs"], dtype, len(shape))
    if byte_order == ">" and dtype.kind != "O":
        dtype = dtype.newbyteorder(">")
    separator = _object(encoding.get("configuration") or {}, "chunk_key_encoding").get(
        "separator", "/" if is_default else "."
    )
    return ArraySpec(
        token=_token(array),
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=parse_fill(array.get("fill_value"), dtype),
        axes=axes,
        decoders=decoders,
        dims=_names(array.get("dimension_names"), len(shape)),
        attrs=_object(array.get("attributes", {}), "attributes"),
        sizes=_sizes_of(shape, chunks, dtype, decoders),
        key_prefix="c" if is_default else "",
        separator=_separator(separator),
    )


def _sizes_of(
    shape: tuple[int, ...], chunks: tuple[int, ...], dtype: np.dtype[Any], decoders: tuple[Decoder, ...]
) -> Sizes:
    item_bytes = TEXT_BYTES if dtype.kind == "O" else dtype.itemsize
    chunk_bytes = math.prod(chunks) * item_bytes
    # Texts have any length: only the number of them is known.
    stored_bytes = max(chunk_bytes, MAX_TEXT_BYTES) if dtype.kind == "O" else chunk_bytes
    for decoder in reversed(decoders):
        stored_bytes = decoder.max_stored(stored_bytes)
    n_chunks = math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True))
    return Sizes(math.prod(shape) * item_bytes, chunk_bytes, stored_bytes, n_chunks)


def _token(array: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in array.items() if key != "attributes"}, sort_keys=True)


def _json(document: bytes) -> dict[str, Any]:
    try:
        content = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"The zarr metadata are not JSON: {str(error)[:200]}.") from error
    return _object(content, "The zarr metadata")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{what} are not a JSON object, but a {type(value).__name__}.")
    return value


def _sizes(shape: Any, chunks: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    for name, values, least in (("shape", shape, 0), ("chunk shape", chunks, 1)):
        if not isinstance(values, list) or len(values) > MAX_AXES:
            raise FormatError(
                f"The {name} {str(values)[:60]} of an array is no list of at most {MAX_AXES} sizes."
            )
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_SIZE:
                raise FormatError(
                    f"The {name} {str(values)[:60]} of an array holds {str(value)[:30]!r}; "
                    f"whole numbers from {least} to {MAX_SIZE} are sizes."
                )
    if len(shape) != len(chunks):
        raise FormatError(f"An array has {len(shape)} axes and its chunks {len(chunks)}.")
    return tuple(shape), tuple(chunks)


def _names(names: Any, n_axes: int) -> tuple[str, ...]:
    """Names of dimensions, all or none."""
    if names is None:
        return ()
    if not isinstance(names, list) or not all(name is None or isinstance(name, str) for name in names):
        raise FormatError(f"The names {str(names)[:60]} of an array's dimensions are no list of texts.")
    if len(names) != n_axes:
        raise FormatError(f"An array has {n_axes} axes and {len(names)} names of dimensions.")
    return tuple(name or "" for name in names)


def _separator(separator: Any) -> str:
    if separator not in (".", "/"):
        raise FormatError(f"The dimension separator {str(separator)[:30]!r} is not known; '.' and '/' are.")
    return str(separator)


def _without_texts(codecs: Sequence[Any], dtype: np.dtype[Any], is_texts: Any) -> list[Any]:
    """Codecs less the first, if that is the one that turns texts into bytes, as it must for an object type."""
    rest = list(codecs)
    if dtype.kind == "O":
        if not rest or not isinstance(rest[0], dict) or not is_texts(rest[0]):
            raise FormatError(
                "An array of objects is not read, unless they are texts of codec vlen-utf8.", kind="codec"
            )
        del rest[0]
    return rest


def _codecs_v3(
    codecs: Any, dtype: np.dtype[Any], n_axes: int
) -> tuple[tuple[int, ...], str, tuple[Decoder, ...]]:
    """Order of axes, byte order and decoders, the last codec's first."""
    if not isinstance(codecs, list) or not all(isinstance(item, dict) for item in codecs):
        raise FormatError("The codecs of an array are not a list of JSON objects.")
    byte_order = "<"
    axes = tuple(range(n_axes))
    decoders: list[Decoder] = []
    for item in _without_texts(codecs, dtype, lambda config: config.get("name") == "vlen-utf8"):
        name, config = str(item["name"]), _object(item.get("configuration") or {}, "A codec's configuration")
        if name == "bytes":
            byte_order = ">" if config.get("endian") == "big" else "<"
        elif name == "transpose":
            axes = tuple(axes[i] for i in _permutation(config.get("order"), n_axes))
        else:
            decoders.append(open_decoder({**config, "id": name.removeprefix("numcodecs.")}))
    return axes, byte_order, tuple(reversed(decoders))


def _permutation(order: Any, n_axes: int) -> Sequence[int]:
    natural = list(range(n_axes))
    if order in ("C", "F"):
        return natural if order == "C" else natural[::-1]
    if not isinstance(order, list) or sorted(order) != natural:
        raise FormatError(f"The order {str(order)[:60]} of the codec transpose is no order of {n_axes} axes.")
    return order
