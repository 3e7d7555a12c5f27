"""The keys of objects in a bank, and the Zarr v3 documents that describe them.

Keys are relative to the bank and use ``/``::

    <table>/tensors/<part>/zarr.json
    <table>/tensors/<part>/<modality>/zarr.json
    <table>/tensors/<part>/<modality>/c/<shard>/0/0/0/0
    <table>/tensors/<part>.ingest.json
    <table>/index/{samples,tiles,shards}/

Format: Zarr v3 core, codec ``sharding_indexed`` (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.schema import Modality

__all__ = [
    "LEVELS",
    "RESERVED_WORDS",
    "Level",
    "array_attributes",
    "array_document",
    "array_key",
    "check_identifier",
    "check_table_name",
    "dimension_names",
    "group_document",
    "index_key",
    "is_below",
    "is_shard_key",
    "modality_of_key",
    "part_of_key",
    "place_of_key",
    "part_key",
    "report_key",
    "shard_key",
    "table_of_key",
]

Level = Literal["samples", "tiles", "shards"]
LEVELS: tuple[Level, ...] = ("samples", "tiles", "shards")
MAX_KEY_BYTES = 1024
"""The most bytes that an object's key may have in S3."""
_UPWARD = frozenset({"", ".", ".."})
_SHARD_KEY = re.compile(
    r"[A-Za-z][A-Za-z0-9_]{0,62}/tensors/[^/'\"\\\x00-\x1f]+/[^/'\"\\\x00-\x1f]+/c/\d+(/0){4}"
)
_TABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_SQL_WORDS = """
all analyse analyze and anti any array as asc asof asymmetric at authorization binary both by case cast
check collate collation column concurrently constraint create cross default deferrable desc describe
distinct do else end except false fetch for foreign freeze from full glob group having ilike in initially
inner intersect into is isnull join lambda lateral leading left like limit natural not notnull null offset
on only or order outer overlaps pivot pivot_longer pivot_wider placing positional primary qualify references
returning right select semi show similar some summarize symmetric table tablesample then to trailing true
union unique unpack unpivot using variadic verbose when where window with
"""
RESERVED_WORDS = frozenset(_SQL_WORDS.split())
"""The words of DuckDB's grammar that name no table and no column without quotes around them."""


def check_table_name(name: str) -> str:
    """Return the name, if it can be a SQL identifier and a path segment; InvalidInputError otherwise."""
    return check_identifier(name, "a table")


def check_identifier(name: str, what: str) -> str:
    """Return the name of ``what``, if SQL can say it without quotes; InvalidInputError of kind ``bad-name`` otherwise."""
    given: object = name
    if not isinstance(given, str) or not _TABLE_NAME.fullmatch(given):
        raise InvalidInputError(
            f"{name!a} cannot name {what}; use a letter, then letters, digits or _, at most 63 characters",
            kind=ErrorKind.BAD_NAME,
        )
    if name.lower() in RESERVED_WORDS:
        raise InvalidInputError(
            f"{name!r} cannot name {what}, since it is a word of SQL; take another name such as {name + '_1'!r}",
            kind=ErrorKind.BAD_NAME,
        )
    return name


def index_key(table: str, level: str) -> str:
    """Return the key of the folder of a Delta table."""
    return f"{table}/index/{level}"


def part_key(table: str, part: str) -> str:
    """Return the key of the folder of a part, a Zarr group."""
    return f"{table}/tensors/{part}"


def report_key(table: str, part: str) -> str:
    """Ingest report, beside its part."""
    return f"{table}/tensors/{part}.ingest.json"


def array_key(table: str, part: str, modality: str) -> str:
    """Return the key of the folder of a modality of a part, a Zarr array."""
    return f"{part_key(table, part)}/{modality}"


def shard_key(table: str, part: str, modality: str, shard: int) -> str:
    """Return the key of the object of one shard."""
    return f"{array_key(table, part, modality)}/c/{shard}/0/0/0/0"


def is_shard_key(key: object) -> bool:
    """Return True if a key has the form of :func:`shard_key`; others may lead out of the bank."""
    return isinstance(key, str) and _SHARD_KEY.fullmatch(key) is not None and not _UPWARD & {*key.split("/")}


def is_below(path: object) -> bool:
    """Return True if a path names something below where it starts: it is relative, and no part of it leads upward."""
    if not isinstance(path, str) or not path or len(path.encode(errors="replace")) > MAX_KEY_BYTES:
        return False
    parts = path.split("/")
    return not _UPWARD & {*parts} and "\\" not in path and path.isprintable()


def table_of_key(key: str) -> str:
    """Return the table of a shard key."""
    return key.split("/", 1)[0]


def place_of_key(key: str) -> tuple[str, int]:
    """Return the folder of the array that a shard belongs to, and the shard's number in it."""
    array, _, rest = key.rpartition("/c/")
    return array, int(rest.partition("/")[0])


def part_of_key(key: str) -> str:
    """Return the part of a shard key."""
    return key.split("/")[2]


def modality_of_key(key: str) -> str:
    """Return the modality of a shard key."""
    return key.split("/")[3]


def dimension_names(modality: Modality, modalities: Sequence[Modality]) -> tuple[str, ...]:
    """Return names of the five axes such that every array of a part fits one xarray dataset.

    An axis has its plain name where its length equals the first modality's, else the modality's name as a prefix.
    Bands are always prefixed, since equal counts do not make equal bands.
    """
    first = modalities[0]
    plain = {
        "time": modality.n_times == first.n_times,
        "y": modality.height == first.height,
        "x": modality.width == first.width,
    }
    time, y, x = (axis if same else f"{modality.name}_{axis}" for axis, same in plain.items())
    return ("sample", time, f"{modality.name}_band", y, x)


def group_document(
    attributes: Mapping[str, object], arrays: Mapping[str, Mapping[str, object]]
) -> dict[str, object]:
    """Return the ``zarr.json`` of a part, which repeats those of its arrays: HTTP cannot list, and one request opens all."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(attributes),
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": {name: dict(document) for name, document in arrays.items()},
        },
    }


def array_attributes(modality: Modality) -> dict[str, object]:
    """Return the CF-like attributes of one array; archives mark missing pixels of floats only."""
    missing = "NaN" if np.dtype(modality.dtype).kind == "f" else "none"
    bands = {b.name: b.long_name for b in modality.bands if b.long_name}
    return {
        **modality.attributes,
        "band_names": list(modality.band_names),
        **({"band_long_names": bands} if bands else {}),
        "nodata": missing,
    }


def array_document(
    modality: Modality,
    modalities: Sequence[Modality],
    *,
    n_samples: int,
    samples_per_shard: int,
    blosc: Mapping[str, object],
    attributes: Mapping[str, object],
) -> dict[str, object]:
    """Return ``zarr.json`` of one modality of a part.

    Inner chunk = one sample x one date x one band x full y, x; inner chain ``bytes, blosc, crc32c``; index at the end.

    Parameters
    ----------
    blosc
        Configuration of the Blosc codec: cname, clevel, shuffle, typesize, blocksize.
    """
    times, bands, height, width = modality.sample_shape
    little: dict[str, object] = {"name": "bytes"}
    if np.dtype(modality.dtype).itemsize > 1:
        little["configuration"] = {"endian": "little"}
    fill = modality.fill_value
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [n_samples, times, bands, height, width],
        "data_type": modality.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [samples_per_shard, times, bands, height, width]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if isinstance(fill, float) and math.isnan(fill) else fill,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [1, 1, 1, height, width],
                    "codecs": [little, {"name": "blosc", "configuration": dict(blosc)}, {"name": "crc32c"}],
                    "index_codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "crc32c"},
                    ],
                    "index_location": "end",
                },
            }
        ],
        "attributes": dict(attributes),
        "dimension_names": list(dimension_names(modality, modalities)),
        "storage_transformers": [],
    }
