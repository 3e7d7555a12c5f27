"""Data types and fill values that an archive may use: numbers, fixed-width text and times, never objects."""

from __future__ import annotations

import base64
import math
import re
import struct
from typing import Any

import numpy as np

from tensorbank.errors import FormatError

__all__ = ["number_type", "parse_fill", "type_v2", "type_v3"]

NUMBER = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248])")
TEXT = re.compile(r"[<>|=]?[SU](?!0)\d{1,5}")
TIME = re.compile(r"[<>|=]?M8\[(?:[1-9]\d{0,9})?(?:ns|us|ms|s|m|h|D)\]")
V3_KINDS = {"bool": "?", "float16": "<f2", "float32": "<f4", "float64": "<f8"} | {
    f"{sign}int{8 * size}": f"<{code}{size}"
    for sign, code in (("", "i"), ("u", "u"))
    for size in (1, 2, 4, 8)
}
SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
KNOWN = "numbers of up to 8 bytes, fixed-width text, datetime64 and texts of codec vlen-utf8 are"


def number_type(name: Any) -> np.dtype[Any]:
    """Return the type of numbers with this name in numpy's notation, such as ``<i2``.

    Raises
    ------
    FormatError
        It is no plain number.
    """
    if not isinstance(name, str) or not NUMBER.fullmatch(name):
        raise FormatError(
            f"The data type {_short(name)} is not supported here; numbers of up to 8 bytes are."
        )
    return np.dtype(name)


def type_v2(name: Any) -> np.dtype[Any]:
    """Return the type that a ``.zarray`` names.

    Raises
    ------
    FormatError
        It is not supported: structured, complex, void, and anything that would yield other objects than texts.
    """
    if isinstance(name, str):
        if name == "|O":
            return np.dtype(object)
        if NUMBER.fullmatch(name) or TEXT.fullmatch(name) or TIME.fullmatch(name):
            return np.dtype(name)
    raise FormatError(f"The zarr data type {_short(name)} is not supported; {KNOWN}.")


def type_v3(name: Any) -> np.dtype[Any]:
    """Return the type that the ``zarr.json`` of an array names, little-endian.

    Raises
    ------
    FormatError
        As for :func:`type_v2`.
    """
    config: Any = {}
    given = name
    if isinstance(name, dict):
        name, config = name.get("name"), name.get("configuration", {})
    if isinstance(name, str) and isinstance(config, dict):
        if name in V3_KINDS:
            return np.dtype(V3_KINDS[name])
        if name == "fixed_length_utf32" and isinstance(width := config.get("length_bytes"), int):
            return type_v2(f"<U{width // 4}")
        if name == "null_terminated_bytes" and isinstance(width := config.get("length_bytes"), int):
            return type_v2(f"|S{width}")
        if name == "numpy.datetime64":
            factor = config.get("scale_factor", 1)
            return type_v2(f"<M8[{'' if factor == 1 else factor}{config.get('unit')}]")
        if name in ("string", "variable_length_utf8"):
            return np.dtype(object)
    raise FormatError(f"The zarr data type {_short(given)} is not supported; {KNOWN}.")


def parse_fill(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return the fill value as a Python number or text of the array's type; None stays None.

    Raises
    ------
    FormatError
        It is no value of the type.
    """
    if value is None:
        return None
    try:
        return _fill(value, dtype)
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise FormatError(f"The fill value {_short(value)} is none of {dtype}.") from error


def _fill(value: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b" and value in (True, False):
        return bool(value)
    if dtype.kind == "f":
        return _float(value, dtype)
    if dtype.kind in "iu" and not isinstance(value, bool) and int(value) == value:
        limits = np.iinfo(dtype)
        if limits.min <= int(value) <= limits.max:
            return int(value)
    elif dtype.kind == "M":
        # zarr stores NaT as the smallest integer.
        return np.datetime64("NaT") if value == "NaT" else np.int64(value).astype(dtype.newbyteorder("="))
    elif dtype.kind == "S" and isinstance(value, str):
        return base64.b64decode(value)
    elif dtype.kind in "UO":
        # Some writers store 0 for text.
        return value if isinstance(value, str) else ""
    raise ValueError


def _float(value: Any, dtype: np.dtype[Any]) -> float:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str) and value.startswith("0x"):
        bits = int(value, 16).to_bytes(dtype.itemsize, "little")
        return float(np.frombuffer(bits, dtype.newbyteorder("<"))[0])
    if isinstance(value, str) and value not in SPECIAL_FLOATS:
        return float(struct.unpack("<d", base64.b64decode(value))[0])
    return float(SPECIAL_FLOATS[value] if isinstance(value, str) else value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
