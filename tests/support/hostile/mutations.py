"""Mutations of archives that know their structure: damage without it would rarely get past a checksum.

All are functions of a ``random.Random``, which a fuzzer seeds and Hypothesis controls.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numcodecs import Zlib

from support.hostile.locations import entries_of
from support.hostile.members import (
    NS,
    array_entries,
    member_entries,
    pixels_of,
    sample_of,
    stem_of,
    tar_of,
    zipped,
)

HOSTILE = 500
"""The number of the member that is mutated."""
WORDS = (
    *("", "a", "x" * 10_000, "\ud800", "a\nb", "../../a", "NaN", "Infinity", "C", "F", ".", "/", "\x00", "0"),
    *("<i2", "|O", "<f4", "<U7", "|V9", "<M8[ns]", ">i8", "|b1", "<c16", "float32", "string", "complex64"),
    *(
        "blosc",
        "zlib",
        "zstd",
        "pickle",
        "vlen-utf8",
        "json2",
        "lz4",
        "bz2",
        "shuffle",
        "delta",
        "gzip",
        "lzma",
    ),
    *(
        "days since 2000-01-01",
        "days since 0000-00-00",
        "noleap",
        "EPSG:32633",
        "time",
        "band",
        "y",
        "x",
        "array",
    ),
)
NUMBERS = (
    *(0, 1, -1, 2, 16, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**40, -(2**63)),
    *(0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), -float("inf")),
)


def weird(rng: Random, depth: int = 0) -> Any:
    """Return any value of JSON, more often one that means something here."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return rng.choice(NUMBERS)
    if kind < 4:
        return rng.choice(WORDS)
    if kind < 6:
        return rng.choice((None, True, False, rng.randrange(-5, 100), rng.random()))
    if kind < 7:
        return [weird(rng, depth + 1) for _ in range(rng.randrange(5))]
    if kind < 8:
        return {rng.choice(WORDS): weird(rng, depth + 1) for _ in range(rng.randrange(4))}
    value: Any = 1
    for _ in range(rng.choice((5, 100, 400))):
        value = [value] if rng.random() < 0.5 else {"id": value}
    return value


def mutated_json(rng: Random, value: Any) -> Any:
    """The value with one to three nodes replaced, removed, repeated or swapped."""
    for _ in range(rng.randrange(1, 4)):
        value = _with_one_change(rng, value)
    return value


def _with_one_change(rng: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        changed = dict(value)
        what = rng.random()
        if what < 0.1:
            del changed[key]
        elif what < 0.2:
            changed[rng.choice(WORDS)] = changed.pop(key)
        elif what < 0.3:
            changed[key] = value[rng.choice(sorted(value))]
        else:
            changed[key] = _with_one_change(rng, value[key])
        return changed
    if isinstance(value, list) and value and rng.random() < 0.7:
        changed_list = list(value)
        at = rng.randrange(len(value))
        what = rng.random()
        if what < 0.15:
            del changed_list[at]
        elif what < 0.3:
            changed_list.insert(at, value[at])
        else:
            changed_list[at] = _with_one_change(rng, value[at])
        return changed_list
    return weird(rng)


def mutated_bytes(rng: Random, data: bytes) -> bytes:
    """Return the bytes flipped, set, cut, repeated or inserted."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed) + 1)
        what = rng.randrange(6)
        if what < 2 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif what == 2 and at + 8 <= len(changed):
            changed[at : at + 4] = struct.pack(
                "<I", rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)))
            )
        elif what == 3:
            del changed[at : at + rng.choice((1, 4, 100, 10_000))]
        elif what == 4:
            changed[at:at] = changed[at : at + rng.choice((1, 16, 500))]
        else:
            changed[at:at] = rng.randbytes(rng.choice((1, 4, 30)))
    return bytes(changed)


# ---------------------------------------------------------------- members


@cache
def base_entries(version: int, codec: str) -> dict[str, bytes]:
    """Return the entries of a sound member, as a starting point."""
    options: dict[str, Any] = {"compressor": Zlib()} if codec == "zlib" else {}
    if codec == "chunked":
        options = {"chunks": (1, 1, 5, 16), "compressor": Zlib(), "order": "F"}
    attrs = {"scale_factor": 0.5, "add_offset": 1.0, "_FillValue": -9999} if codec == "packed" else {}
    entries = member_entries(
        pixels_of(HOSTILE),
        sample=sample_of(HOSTILE),
        mask=np.zeros((1, 16, 16), np.uint8),
        attrs=attrs,
        **options,
    )
    entries |= array_entries(
        "spatial_ref", np.array(0), (), attrs={"GeoTransform": "500000 10 0 5000000 0 -10"}
    )
    return entries if version == 2 else _as_version_3(entries)


def _as_version_3(entries: dict[str, bytes]) -> dict[str, bytes]:
    """Return the same arrays with metadata of zarr version 3."""
    kinds = {"<i2": "int16", "<i8": "int64", "<f8": "float64", "|u1": "uint8"}
    found: dict[str, bytes] = {"zarr.json": b'{"zarr_format": 3, "node_type": "group", "attributes": {}}'}
    for key, data in entries.items():
        name, _, last = key.rpartition("/")
        if last == ".zarray":
            old = json.loads(data)
            width = int(old["dtype"][2:]) * 4
            text = {"name": "fixed_length_utf32", "configuration": {"length_bytes": width}}
            codec = old["compressor"]
            codecs: list[Any] = [{"name": "bytes", "configuration": {"endian": "little"}}]
            codecs += [{"name": f"numcodecs.{codec['id']}", "configuration": codec}] if codec else []
            attrs = json.loads(entries[f"{name}/.zattrs"])
            document = {
                "zarr_format": 3,
                "node_type": "array",
                "shape": old["shape"],
                "data_type": kinds.get(old["dtype"], text),
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": old["chunks"]}},
                "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}},
                "codecs": codecs,
                "fill_value": None,
                "dimension_names": attrs.pop("_ARRAY_DIMENSIONS"),
                "attributes": attrs,
            }
            found[f"{name}/zarr.json"] = json.dumps(document).encode()
        elif not last.startswith(".z"):
            found[key] = data
    return found


def _with_json(rng: Random, entries: dict[str, bytes]) -> bytes:
    """Return the member with one document changed;
    in version 2 beside the consolidated metadata, in them, or in both."""
    changed = dict(entries)
    names = [key for key in sorted(entries) if key.rpartition("/")[2] in (".zarray", ".zattrs", "zarr.json")]
    weighty = [key for key in names if key.startswith("bands/")]
    for _ in range(rng.choice((1, 1, 3))):
        key = rng.choice(weighty if rng.random() < 0.5 else names)
        changed[key] = json.dumps(mutated_json(rng, json.loads(entries[key]))).encode()
    if rng.random() < 0.3:
        return zipped(changed, consolidated=False)
    return zipped(changed, consolidated="zarr.json" not in entries)


def _with_metadata(rng: Random, entries: dict[str, bytes]) -> bytes:
    """The consolidated document changed as a whole, maybe beyond being one."""
    documents = {k: json.loads(v) for k, v in entries.items() if k.rpartition("/")[2].startswith(".z")}
    whole = json.dumps(mutated_json(rng, {"zarr_consolidated_format": 1, "metadata": documents})).encode()
    return zipped({**entries, ".zmetadata": whole if rng.random() < 0.8 else mutated_bytes(rng, whole)})


def _with_chunk(rng: Random, entries: dict[str, bytes]) -> bytes:
    """A chunk of other bytes, whose CRC-32 is right."""
    keys = [key for key in sorted(entries) if not key.rpartition("/")[2].startswith((".z", "zarr"))]
    key = rng.choice([k for k in keys if k.startswith("bands/")] if rng.random() < 0.5 else keys)
    what = rng.randrange(4)
    data = {
        0: lambda: mutated_bytes(rng, entries[key]),
        1: lambda: zlib.compress(bytes(rng.choice((0, 100, 30 << 20)))),
        2: lambda: rng.randbytes(rng.randrange(2000)),
        3: lambda: entries[rng.choice(keys)],
    }[what]()
    return zipped({**entries, key: data}, consolidated="zarr.json" not in entries)


def _with_names(rng: Random, entries: dict[str, bytes]) -> bytes:
    """Return the member with entries gone, renamed, repeated, or deflated."""
    buffer = io.BytesIO()
    whole = zipped(entries, consolidated="zarr.json" not in entries)
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(buffer, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if rng.random() < 0.1:
                continue
            name = (
                info.filename
                if rng.random() < 0.9
                else rng.choice(("bands/0", "a\\b", "x" * 60_000, "/", "bands/.zarray"))
            )
            method = zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a name twice is meant
                target.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return buffer.getvalue()


def _with_directory(rng: Random, entries: dict[str, bytes]) -> bytes:
    """A zip whose headers lie: one field of a local header, of the directory or of the end record."""
    data = bytearray(zipped(entries, consolidated="zarr.json" not in entries))
    for _ in range(rng.choice((1, 1, 3))):
        mark = rng.choice((b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"))
        places = [i for i in range(len(data) - 4) if data[i : i + 4] == mark]
        at = rng.choice(places) + rng.randrange(4, 44)
        size = rng.choice((1, 2, 4))
        value = rng.choice((0, 1, 8, 0xFFFFFFFF, 0x7FFFFFFF, len(data), rng.getrandbits(32)))
        data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    return bytes(data)


MEMBER_MUTATIONS: tuple[Callable[[Random, dict[str, bytes]], bytes], ...] = (
    _with_json,
    _with_json,
    _with_metadata,
    _with_chunk,
    _with_names,
    _with_directory,
)


def mutated_member(rng: Random) -> bytes:
    """A member with something wrong, maybe."""
    entries = base_entries(rng.choice((2, 2, 3)), rng.choice(("blosc", "zlib", "chunked", "packed")))
    data = rng.choice(MEMBER_MUTATIONS)(rng, entries)
    return mutated_bytes(rng, data) if rng.random() < 0.1 else data


def mutated_locations(rng: Random) -> bytes:
    """A file of many locations with something wrong, maybe."""
    data = rng.choice(MEMBER_MUTATIONS)(rng, entries_of("S1GRD"))
    return mutated_bytes(rng, data) if rng.random() < 0.1 else data


# ---------------------------------------------------------------- tars and tables


def mutated_tar(rng: Random, sound: dict[str, bytes], hostile: bytes) -> tuple[bytes, int]:
    """A tar of sound members with a hostile stretch in it, and how many of the members lie before the stretch."""
    members = list(sound.items())
    before = rng.randrange(len(members) + 1)
    head = tar_of((f"{s}.zarr.zip", d) for s, d in members[:before])[: _end_of(members[:before])]
    tail = tar_of((f"{s}.zarr.zip", d) for s, d in members[before:])
    middle = bytearray(tar_of([(f"{stem_of(HOSTILE)}.zarr.zip", hostile)])[: _end_of([("", hostile)])])
    what = rng.randrange(4)
    if what == 0:
        middle = bytearray(_extension(rng)) + middle
    elif what == 1:
        _set_fields(rng, middle)
    elif what == 2:
        middle = bytearray(mutated_bytes(rng, bytes(middle)))
    return head + bytes(middle) + tail, before


def _end_of(members: list[tuple[str, bytes]]) -> int:
    return sum(512 + -(-len(data) // 512) * 512 for _, data in members)


def _extension(rng: Random) -> bytes:
    """An extended header of records that are right, or not."""
    records = b""
    for _ in range(rng.randrange(1, 5)):
        key = rng.choice((b"path", b"size", b"mtime", b"GNU.sparse.name", b"GNU.sparse.map", b"a"))
        value = rng.choice(
            (b"", b"x", b"0", b"-1", b"99999999999999999999", b"\xff", b"a=b", rng.randbytes(5))
        )
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + len(str(len(body) + 2))
        records += str(length + rng.choice((0, 0, 0, 1, -3, 10**6))).encode() + body
    return _header(b"pax", len(records), rng.choice(b"xgLKx"), rng) + records.ljust(
        -(-len(records) // 512) * 512, b"\0"
    )


def _header(name: bytes, size: int, kind: int, rng: Random) -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = b"%011o\0" % size
    block[156] = kind
    block[257:265] = rng.choice((b"ustar\x0000", b"ustar  \0"))
    return bytes(_signed(block))


def _signed(block: bytearray) -> bytearray:
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return block


def _set_fields(rng: Random, middle: bytearray) -> None:
    """Change fields of the header, and sign it again."""
    block = bytearray(middle[:512])
    for _ in range(rng.randrange(1, 3)):
        start, end = rng.choice(((0, 100), (124, 136), (156, 157), (257, 265), (345, 500), (482, 483)))
        choices = (
            b"\0",
            b"7",
            b"77777777777",
            b"-1",
            b"\x80" + b"\xff" * 11,
            b"\xff" * 12,
            b"S",
            b"\xe9",
            b" ",
            rng.randbytes(12),
        )
        block[start:end] = rng.choice(choices)[: end - start].ljust(end - start, b"\0")
    middle[:512] = _signed(block) if rng.random() < 0.9 else block


def mutated_table(rng: Random, stems: list[str]) -> bytes:
    """A metadata table of the members with wrong values, columns, types or bytes."""
    n = len(stems)
    table: dict[str, Any] = {
        "zarr": [f"{stem}.zarr.zip" for stem in stems],
        "sample_id": [sample_of(int(stem[-7:])) for stem in stems],
        "center_lon": [15.0] * n,
        "center_lat": [45.15] * n,
        "S2_time": pa.array([10**18] * n, pa.timestamp("ns")),
        "cloud_cover": [0.25] * n,
        "tar": ["majortom_shard_000001.tar"] * n,
    }
    for name in rng.sample(sorted(table), rng.randrange(1, 4)):
        what = rng.randrange(4)
        if what == 0:
            del table[name]
        elif what == 1:
            table[name] = _column(rng, n)
        else:
            values = list(pa.array(table[name]).to_pylist())
            values[rng.randrange(n)] = None
            table[name] = values
    try:
        arrow = pa.table(table)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        arrow = pa.table({"zarr": pa.nulls(n)})
    data = _parquet(arrow, rng.choice(("none", "zstd", "snappy")))
    return mutated_bytes(rng, data) if rng.random() < 0.4 else data


def _parquet(table: pa.Table, compression: str) -> bytes:
    buffer = io.BytesIO()
    try:
        pq.write_table(table, buffer, compression=compression)
    except pa.ArrowException:  # seconds that are too many for Parquet's milliseconds
        return _parquet(pa.table({"zarr": pa.nulls(table.num_rows)}), compression)
    return buffer.getvalue()


def _column(rng: Random, n: int) -> Any:
    return rng.choice(
        (
            [rng.choice(NUMBERS[-7:]) for _ in range(n)],
            [rng.randrange(-(2**62), 2**62) for _ in range(n)],
            [rng.choice(WORDS[:3] + WORDS[4:12]) for _ in range(n)],
            [[1]] * n,
            [{"a": None}] * n,
            [b"\xff"] * n,
            [True] * n,
            pa.array(
                [rng.randrange(-(2**62), 2**62) for _ in range(n)],
                pa.timestamp(rng.choice(("s", "ns")), "UTC"),
            ),
            pa.nulls(n),
        )
    )


__all__ = [
    "HOSTILE",
    "NS",
    "mutated_bytes",
    "mutated_json",
    "mutated_locations",
    "mutated_member",
    "mutated_table",
    "mutated_tar",
    "weird",
]
