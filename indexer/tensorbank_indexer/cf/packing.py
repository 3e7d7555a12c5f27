"""The meaning of an archive's numbers: packing, missing values and signs that attributes declare (CF 1.11, 2.5 and 8.1).

What is declared is undone here, once, so that statistics, predicates and batches all see the same physical numbers,
and a missing pixel is NaN everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import FormatError
from tensorbank_indexer.containers import Problem, readable
from tensorbank_indexer.zarr_groups import parse_fill

__all__ = ["missing_values", "unpack"]

Array = npt.NDArray[Any]
NOT_APPLIED = ("valid_range", "valid_min", "valid_max")
"""The attributes that change what a number means and that are not honoured."""
MISSING = ("_FillValue", "missing_value", "nodata", "nodatavals")
"""The attributes that name missing values: those of CF, and those that GDAL and its users write."""
HONOURED = frozenset({*MISSING, "_Unsigned", "scale_factor", "add_offset", *NOT_APPLIED})
MAX_MISSING = 16


def unpack(
    values: Array,
    attrs: Mapping[str, Any],
    fill_value: Any,
    problems: list[Problem],
    name: str,
    *,
    codes: bool = False,
) -> Array:
    """Return the numbers as they are meant: by ``_Unsigned``, missing values as NaN, ``scale_factor`` and ``add_offset``.

    Integers of up to 16 bits become float32, wider ones float64, if they are packed or have a missing value; floats
    keep their type unless they are packed. A ``fill_value`` that is given counts as missing if it is not 0, which most writers
    put there without meaning it. ``codes`` of classes stay as they are: a missing one has no class anyway. What is done and
    what is not understood goes to ``problems``.
    """
    if codes:
        for attribute, identity in (("scale_factor", 1), ("add_offset", 0)):
            if attrs.get(attribute, identity) != identity:
                problems.append(_ignored(name, attribute, attrs[attribute]))
        return values
    if _means_nothing(fill_value) and not _declares(attrs):
        return values
    problems += [
        _ignored(name, attribute, attrs[attribute]) for attribute in NOT_APPLIED if attribute in attrs
    ]
    missing = missing_values(values.dtype, attrs, fill_value, problems, name)
    values, missing = _signed(values, attrs, missing, problems, name)
    scale = _number(attrs, "scale_factor", 1.0, problems, name)
    offset = _number(attrs, "add_offset", 0.0, problems, name)
    if scale is None or offset is None:
        scale, offset = 1.0, 0.0
    packed = (scale, offset) != (1.0, 0.0)
    if not packed and (not missing or values.dtype.kind == "b"):
        return values
    with np.errstate(over="ignore"):
        mask = np.isin(values, np.array(missing, values.dtype)) if missing else None
    if values.dtype.kind == "f" and not packed:
        if mask is not None and mask.any():
            values = np.where(mask, np.array(np.nan, values.dtype), values)
            reason = f"{name}/ declares {_list(missing)} missing; so are {int(mask.sum())} of its pixels."
            problems.append(Problem("missing-value", reason, "stored as NaN"))
        return values
    kind = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    decoded = values.astype(kind)
    if packed:
        with np.errstate(over="ignore", invalid="ignore"):
            decoded = (values.astype(np.float64) * scale + offset).astype(kind)
    if mask is not None:
        decoded[mask] = np.nan
    what = [f"scale_factor {scale:g} and add_offset {offset:g}"] if packed else []
    what += [f"the missing value {_list(missing)}"] if missing else []
    problems.append(
        Problem("unpacked", f"{name}/ declares {' and '.join(what)}.", f"stored as {np.dtype(kind).name}")
    )
    return decoded


def _declares(attrs: Mapping[str, Any]) -> bool:
    """Tell whether attributes change what the numbers mean; that NaN is missing changes nothing."""
    said = HONOURED.intersection(attrs)
    if not said:
        return False
    missing = attrs.get("_FillValue")
    return said != {"_FillValue"} or not (missing == "NaN" or missing != missing)


def _means_nothing(fill_value: Any) -> bool:
    """Tell whether a fill value of Zarr marks no missing pixels: it is none, 0, NaN, or of another type."""
    return not isinstance(fill_value, (int, float)) or not fill_value or fill_value != fill_value


def missing_values(
    dtype: np.dtype[Any], attrs: Mapping[str, Any], fill_value: Any, problems: list[Problem], name: str
) -> list[Any]:
    """Return the values that stand for a missing value, in the array's type; NaN is one anyway and not among them."""
    found: list[Any] = []
    for attribute in MISSING:
        given = attrs.get(attribute)
        if given is None:
            continue
        for value in given if isinstance(given, list) else [given]:
            try:
                found.append(parse_fill(_plain(value), dtype))
            except FormatError:
                problems.append(_ignored(name, attribute, value))
    if not isinstance(fill_value, bool) and not _means_nothing(fill_value):
        found.append(fill_value)
    kept: list[Any] = []
    for value in found[:MAX_MISSING]:
        if isinstance(value, bool) or value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        if value not in kept:
            kept.append(value)
    return kept


def _signed(
    values: Array, attrs: Mapping[str, Any], missing: list[Any], problems: list[Problem], name: str
) -> tuple[Array, list[Any]]:
    """Return the values, and the missing values, with the sign that ``_Unsigned`` declares."""
    given = attrs.get("_Unsigned")
    if given is None:
        return values, missing
    wanted = {"true": "u", "false": "i"}.get(str(given).lower())
    if wanted is None or values.dtype.kind not in "iu":
        problems.append(_ignored(name, "_Unsigned", given))
        return values, missing
    kind = np.dtype(f"{wanted}{values.dtype.itemsize}")
    return values.view(kind), np.array(missing, values.dtype).view(kind).tolist()


def _plain(value: Any) -> Any:
    """Return a number that a writer stored as text, as a number; anything else as it is."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if number.is_integer() else number
    return value


def _number(
    attrs: Mapping[str, Any], attribute: str, default: float, problems: list[Problem], name: str
) -> float | None:
    value = attrs.get(attribute, default)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    value = _plain(value)
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (OverflowError, TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or (attribute == "scale_factor" and number == 0):
        problems.append(_ignored(name, attribute, attrs[attribute]))
        return None
    return number


def _ignored(name: str, attribute: str, value: object) -> Problem:
    reason = f"{name}/ has the attribute {attribute} = {readable(repr(value), 80)}, which is not understood."
    return Problem("ignored-attribute", reason, "values kept as they are stored")


def _list(values: list[Any]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
