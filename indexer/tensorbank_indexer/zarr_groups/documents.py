"""Metadata documents of zarr: version 2 (``.zarray``, ``.zattrs``, ``.zmetadata``) and version 3 (``zarr.json``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tensorbank.errors import ErrorKind, FormatError
from tensorbank_indexer.zarr_groups.array_spec import ArraySpec, Sharding, sizes_of
from tensorbank_indexer.zarr_groups.decoders import open_decoder
from tensorbank_indexer.zarr_groups.decoding_step import Decoder
from tensorbank_indexer.zarr_groups.dtypes import parse_fill, type_v2, type_v3

__all__ = ["parse_attributes", "parse_consolidated", "parse_v2", "parse_v3"]

MAX_AXES = 8
MAX_CODECS = 16
MAX_SIZE = 1 << 48
MAX_CACHED_BYTES = 128 << 10
"""The size in bytes up to which documents are kept parsed; published ones have some 20 KB."""
CHECKSUMS = frozenset({"crc32c"})

Specs = Mapping[str, "ArraySpec | FormatError"]
"""The arrays by name; one whose metadata cannot be used is the error that says why."""


def parse_consolidated(document: bytes) -> Specs | None:
    """Parse the arrays of a ``.zmetadata`` or a group's ``zarr.json``; None if the latter has no consolidated metadata.

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


def parse_attributes(document: bytes) -> dict[str, Any]:
    """Parse the attributes of a group, of ``.zattrs`` or of its ``zarr.json``.

    Raises
    ------
    FormatError
        They are no JSON object.
    """
    content = _json(document)
    return _object(content.get("attributes", {}), "attributes") if "zarr_format" in content else content


def parse_v2(array: bytes, attrs: bytes) -> ArraySpec | FormatError:
    """Parse the spec of ``.zarray`` and ``.zattrs``; a FormatError tells why they cannot be used."""
    return _spec_or_error(lambda: _parse_v2(_json(array), _json(attrs)))


def parse_v3(array: bytes) -> ArraySpec | FormatError:
    """Parse the spec of an array's ``zarr.json``; a FormatError tells why it cannot be used."""
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
    fill_value = parse_fill(array.get("fill_value"), dtype)
    return ArraySpec(
        token=_token(array),
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=fill_value,
        missing=fill_value,
        axes=axes if order == "C" else axes[::-1],
        decoders=decoders,
        dims=_names(attrs.get("_ARRAY_DIMENSIONS"), len(shape)),
        attrs=attrs,
        sizes=sizes_of(shape, chunks, dtype, decoders),
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
    fill_value = parse_fill(array.get("fill_value"), dtype)
    axes, dtype, decoders, sharding = _codecs_v3(array["codecs"], dtype, chunks, fill_value)
    separator = _object(encoding.get("configuration") or {}, "chunk_key_encoding").get(
        "separator", "/" if is_default else "."
    )
    return ArraySpec(
        token=_token(array),
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=fill_value,
        axes=axes,
        decoders=decoders,
        dims=_names(array.get("dimension_names"), len(shape)),
        attrs=_object(array.get("attributes", {}), "attributes"),
        sizes=sizes_of(shape, chunks, dtype, decoders, sharding),
        sharding=sharding,
        key_prefix="c" if is_default else "",
        separator=_separator(separator),
    )


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
    """Return the names of dimensions, all or none."""
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
    """Return the codecs without the first, if that is the one that turns texts into bytes, as it must for an object type."""
    if len(codecs) > MAX_CODECS:
        raise FormatError(
            f"An array has {len(codecs)} codecs; at most {MAX_CODECS} make sense.", kind=ErrorKind.OVER_LIMIT
        )
    rest = list(codecs)
    if dtype.kind == "O":
        if not rest or not isinstance(rest[0], dict) or not is_texts(rest[0]):
            raise FormatError(
                "An array of objects is not read, unless they are texts of codec vlen-utf8.",
                kind=ErrorKind.CODEC,
            )
        del rest[0]
    return rest


def _codecs_v3(
    codecs: Any, dtype: np.dtype[Any], chunks: tuple[int, ...], fill_value: Any
) -> tuple[tuple[int, ...], np.dtype[Any], tuple[Decoder, ...], Sharding | None]:
    """Return the order of axes, the type with its byte order, the decoders, last codec first, and how chunks are sharded."""
    if not isinstance(codecs, list) or not all(isinstance(item, dict) for item in codecs):
        raise FormatError("The codecs of an array are not a list of JSON objects.")
    axes = tuple(range(len(chunks)))
    decoders: list[Decoder] = []
    sharding: Sharding | None = None
    for item in _without_texts(codecs, dtype, lambda config: config.get("name") == "vlen-utf8"):
        name, config = str(item["name"]), _object(item.get("configuration") or {}, "A codec's configuration")
        if name == "bytes":
            dtype = dtype.newbyteorder(">") if config.get("endian") == "big" and dtype.kind != "O" else dtype
        elif name == "transpose":
            axes = tuple(axes[i] for i in _permutation(config.get("order"), len(chunks)))
        elif name == "sharding_indexed":
            sharding = _sharding(config, dtype, tuple(chunks[axis] for axis in axes), fill_value)
        else:
            decoders.append(open_decoder({**config, "id": name.removeprefix("numcodecs.")}))
    return axes, dtype, tuple(reversed(decoders)), sharding


def _sharding(
    config: Mapping[str, Any], dtype: np.dtype[Any], shape: tuple[int, ...], fill_value: Any
) -> Sharding:
    """Return the sharding of chunks whose axes lie in this order."""
    shape, chunks = _sizes(list(shape), config["chunk_shape"])
    if dtype.kind == "O" or any(size % chunk for size, chunk in zip(shape, chunks, strict=True)):
        raise FormatError(f"Shards of {shape} in chunks of {chunks} {dtype} are not read.")
    axes, inner_type, decoders, nested = _codecs_v3(config["codecs"], dtype, chunks, fill_value)
    _, index_type, index_decoders, _ = _codecs_v3(config["index_codecs"], np.dtype("<u8"), (1, 2), None)
    if any(decoder.name not in CHECKSUMS for decoder in index_decoders):
        raise FormatError(
            "The index of a shard is compressed; only plain ones, with or without crc32c, are read."
        )
    location = config.get("index_location", "end")
    if nested is not None or location not in ("start", "end"):
        raise FormatError("Shards of shards, and indexes elsewhere than at the start or end, are not read.")
    inner = ArraySpec(
        token="",
        shape=shape,
        chunks=chunks,
        dtype=inner_type,
        fill_value=fill_value,
        axes=axes,
        decoders=decoders,
        dims=(),
        attrs={},
        sizes=sizes_of(shape, chunks, inner_type, decoders),
    )
    return Sharding(inner, index_decoders, index_type.str, location == "start")


def _permutation(order: Any, n_axes: int) -> Sequence[int]:
    natural = list(range(n_axes))
    if order in ("C", "F"):
        return natural if order == "C" else natural[::-1]
    if not isinstance(order, list) or sorted(order) != natural:
        raise FormatError(f"The order {str(order)[:60]} of the codec transpose is no order of {n_axes} axes.")
    return order
