"""One modality of one sample, as a zarr group holds it: a member of a TerraMesh or SSL4EO-S12 tar."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tensorbank.errors import FormatError, IntegrityError
from tensorbank_indexer.sources.times import decode_times
from tensorbank_indexer.sources.zarrs import ZarrGroup
from tensorbank_indexer.sources.zip import ZipArchive

__all__ = ["Member", "Position", "four_axes", "plain_number", "read_member", "read_position", "text_of"]

Array = npt.NDArray[Any]
T = TypeVar("T")
EPSG = re.compile(r"(?:EPSG:+)?(\d{4,6})", re.IGNORECASE)


@dataclass(slots=True)
class Position:
    """Where and when a sample is, and its id; None where the member does not say.

    ``times_ns`` is (time,) int64 ns since 1970; ``product_ids`` has one id a date.
    """

    sample_id: str | None = None
    epsg: int | None = None
    lon: float | None = None
    lat: float | None = None
    x: npt.NDArray[np.float64] | None = None
    y: npt.NDArray[np.float64] | None = None
    times_ns: npt.NDArray[np.int64] | None = None
    product_ids: tuple[str, ...] = ()


@dataclass(slots=True)
class Member:
    """What was read of a member. ``pixels`` (time, band, y, x) and ``cloud_mask`` (time, 1, y, x) are None if
    absent or damaged.

    ``problems`` are (kind, reason) of what was found in it.
    """

    position: Position
    pixels: Array | None = None
    bands: tuple[str, ...] = ()
    fill_value: float | int | None = None
    cloud_mask: Array | None = None
    cloud_mask_fill_value: float | int | None = None
    has_cloud_mask: bool = False
    problems: list[tuple[str, str]] = field(default_factory=list)


def read_member(data: bytes | memoryview, *, want_cloud_mask: bool) -> Member:
    """Decode a zip archive with one zarr group. Damage of an array is a problem of the member, not an error.

    Parameters
    ----------
    want_cloud_mask
        Whether to decode the cloud mask, if the member has one.

    Raises
    ------
    FormatError, IntegrityError
        The archive or the group's metadata cannot be read: nothing of the member can be used.
    """
    archive = ZipArchive.of(data)
    group = ZarrGroup(archive)
    member = Member(Position(), has_cloud_mask="cloud_mask" in group)
    if archive.has_deflated:
        member.problems.append(
            (
                "deflated-entries",
                "Entries of the zip archive are deflated, so their bytes cannot be addressed in place.",
            )
        )
    if group.version == 3:
        member.problems.append(("zarr-v3", "The group is zarr version 3, the published ones are version 2."))
    member.position = read_position(group, member.problems)
    if "bands" not in group:
        member.problems.append(("corrupt-member", "There is no array 'bands'."))
        return member
    member.pixels = _attempt(
        member.problems, lambda: four_axes(group.read("bands"), group.spec("bands").dims)
    )
    member.fill_value = plain_number(group.spec("bands").fill_value)
    names = _attempt(member.problems, lambda: group.read("band")) if "band" in group else None
    if names is not None:
        member.bands = tuple(text_of(name) for name in names.reshape(-1))
    if want_cloud_mask and member.has_cloud_mask:
        read_cloud_mask(group, member)
    return member


def read_cloud_mask(group: ZarrGroup, member: Member) -> None:
    """Decode the cloud mask of a group into its member."""
    spec = group.spec("cloud_mask")
    dims = spec.dims or ("time", "y", "x")[-len(spec.shape) :]
    member.cloud_mask = _attempt(member.problems, lambda: four_axes(group.read("cloud_mask"), dims))
    member.cloud_mask_fill_value = plain_number(spec.fill_value)


def read_position(group: ZarrGroup, problems: list[tuple[str, str]]) -> Position:
    """Small arrays of a group; what cannot be read becomes a problem and stays None."""

    def get(name: str) -> Array | None:
        return _attempt(problems, lambda: group.read(name)) if name in group else None

    def number(name: str) -> float | None:
        value = get(name)
        return (
            float(value.reshape(-1)[0])
            if value is not None and value.size and value.dtype.kind in "fiu"
            else None
        )

    position = Position(
        lon=number("center_lon"), lat=number("center_lat"), x=_metres(get("x")), y=_metres(get("y"))
    )
    sample = get("sample")
    if sample is not None and sample.size:
        position.sample_id = text_of(sample.reshape(-1)[0])
    crs = get("crs")
    if crs is not None and crs.size:
        position.epsg = epsg_of(crs.reshape(-1)[0])
    times = get("time")
    if times is not None and times.dtype.kind in "Mifu":
        position.times_ns = decode_times(np.atleast_1d(times), group.spec("time").attrs)
    ids = get("file_id")
    if ids is not None:
        position.product_ids = tuple(text_of(name) for name in ids.reshape(-1))
    return position


def four_axes(array: Array, dims: tuple[str, ...]) -> Array:
    """The array as (time, band, y, x): axes that it lacks are added with length 1.

    Raises
    ------
    FormatError
        It has more than four or fewer than two axes.
    """
    if array.ndim == 4:
        return array
    if array.ndim == 3:
        return array[:, None] if dims and dims[0] == "time" else array[None]
    if array.ndim == 2:
        return array[None, None]
    raise FormatError(f"'bands' has {array.ndim} axes instead of time, band, y and x.")


def text_of(value: Any) -> str:
    """Text of a name or id; ids that were stored as numbers get back the zeros of SSL4EO-S12's seven
    digits."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (int, np.integer)):
        return f"{int(value):07d}"
    return str(value)


def epsg_of(value: Any) -> int | None:
    """EPSG code of a number, or of text such as ``EPSG:32633``."""
    if isinstance(value, (int, np.integer)):
        return int(value)
    found = EPSG.fullmatch(str(value).strip())
    return int(found[1]) if found else None


def plain_number(value: Any) -> float | int | None:
    """A fill value as Python's float or int, None where it is neither."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _metres(values: Array | None) -> npt.NDArray[np.float64] | None:
    return (
        values.astype(np.float64, copy=False)
        if values is not None and values.dtype.kind in "fiu" and values.ndim == 1
        else None
    )


def _attempt(problems: list[tuple[str, str]], read: Callable[[], T]) -> T | None:
    """The result of ``read``, or None and a problem. Entries that cannot be read as such name the reason."""
    try:
        return read()
    except IntegrityError as error:
        problems.append(("corrupt-chunk", str(error)))
    except FormatError as error:
        problems.append((error.kind if error.kind != "format" else "corrupt-chunk", str(error)))
    return None
