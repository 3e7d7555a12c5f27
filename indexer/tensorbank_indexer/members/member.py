"""One modality of one sample, as a zarr group holds it: a member of a TerraMesh or SSL4EO-S12 tar."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import FormatError
from tensorbank_indexer.cf import (
    MAX_ID_CHARS,
    NO_PLACE,
    Position,
    four_axes,
    problem_of,
    read_position,
    small_array,
    text_of,
    unpack,
)
from tensorbank_indexer.containers import Allowance, Problem, ZipArchive, is_identifier, readable
from tensorbank_indexer.zarr_groups import ZarrGroup

__all__ = ["Member", "as_numbers", "put_pixels", "read_member", "turn_north"]

Array = npt.NDArray[Any]


@dataclass(slots=True)
class Member:
    """The content of a member, as far as it could be read.

    ``pixels`` (time, band, y, x) and ``cloud_mask`` (time, 1, y, x) are None if absent or damaged.
    """

    position: Position
    pixels: Array | None = None
    bands: tuple[str, ...] = ()
    cloud_mask: Array | None = None
    has_cloud_mask: bool = False
    problems: list[Problem] = field(default_factory=list)


def read_member(
    data: bytes | memoryview,
    *,
    modality: str = "",
    want_cloud_mask: bool,
    codes: bool = False,
    allowance: Allowance | None = None,
) -> Member:
    """Decode a zip archive with one zarr group. Damage of an array is a problem of the member, not an error.

    Parameters
    ----------
    modality
        Name of the modality, which a single band without a name gets.
    want_cloud_mask
        True to decode the cloud mask, if the member has one.
    codes
        True if the pixels are codes of classes, which are not unpacked.

    Raises
    ------
    FormatError, IntegrityError
        The archive or the group's metadata cannot be read: nothing of the member can be used.
    """
    archive = ZipArchive.of(data)
    group = ZarrGroup(archive, allowance)
    member = Member(Position(), has_cloud_mask="cloud_mask" in group)
    if archive.has_deflated:
        member.problems.append(
            Problem(
                "deflated-entries",
                "Entries of the zip archive are deflated, so their bytes cannot be addressed in place.",
                "read all the same",
            )
        )
    if group.version == 3:
        reason = "The group is zarr version 3, the published ones are version 2."
        member.problems.append(Problem("zarr-v3", reason, "read all the same"))
    member.position = read_position(group, member.problems)
    if "bands" not in group:
        reason = f"There is no array 'bands', only {', '.join(sorted(group.arrays)[:20])}."
        member.problems.append(Problem("corrupt-member", reason, "modality left out"))
        return member
    with problem_of(member.problems, "modality left out"):
        if group.differs("bands"):
            reason = "bands/ has other metadata beside it than the consolidated ones."
            member.problems.append(Problem("metadata-mismatch", reason, "the consolidated ones are believed"))
        names = small_array(group, "band", member.problems)
        spec = group.spec("bands")
        pixels = four_axes(group.read("bands"), spec.dims, member.problems)
        pixels = unpack(pixels, spec.attrs, spec.missing, member.problems, "bands", codes=codes)
        put_pixels(member, pixels, names, modality)
    if want_cloud_mask and member.has_cloud_mask:
        with problem_of(member.problems, "cloud mask left out"):
            spec = group.spec("cloud_mask")
            dims = spec.dims or ("time", "y", "x")[-len(spec.shape) :]
            mask = four_axes(group.read("cloud_mask"), dims, member.problems, "cloud_mask")
            member.cloud_mask = as_numbers(mask, "cloud_mask")
    turn_north(member)
    return member


def put_pixels(member: Member, pixels: Array, names: Array | None, modality: str) -> None:
    """Give a member its pixels, with a name for each band.

    Raises
    ------
    FormatError
        The pixels are no numbers, or none at all.
    """
    member.pixels = as_numbers(pixels, "bands")
    bands = (
        () if names is None else tuple(readable(text_of(name), MAX_ID_CHARS) for name in names.reshape(-1))
    )
    n_bands = pixels.shape[1]
    if len(bands) == n_bands == len(set(bands)) and all(map(is_identifier, bands)):
        member.bands = bands
        return
    # A number is no wrong name, and the only band of a modality has the modality's name.
    member.bands = (modality,) if n_bands == 1 and modality else tuple(f"b{i}" for i in range(n_bands))
    reason = (
        f"The bands have no distinct names, {n_bands} are needed and {readable(str(list(bands)), 100)} given."
    )
    member.problems.append(Problem("band-names", reason, f"called {', '.join(member.bands[:20])}"))


def turn_north(member: Member) -> None:
    """Flip pixels and mask so that the first row is the northernmost and the first column the westernmost, and drop
    coordinates that are not those of the pixels.
    """
    position = member.position
    shown = member.pixels if member.pixels is not None else member.cloud_mask
    if shown is None:
        return
    for name, size in (("y", shown.shape[2]), ("x", shown.shape[3])):
        values = getattr(position, name)
        if values is not None and len(values) != size:
            reason = f"There are {len(values)} coordinates {name} for {size} pixels."
            member.problems.append(Problem("bad-georeference", reason, NO_PLACE))
            position.x = position.y = position.epsg = None
            position.headings = {}
    flips = [
        axis for axis, name, wrong in ((2, "y", 1), (3, "x", -1)) if position.headings.get(name) == wrong
    ]
    if not flips:
        return
    if member.pixels is not None:
        member.pixels = np.flip(member.pixels, tuple(flips))
    if member.cloud_mask is not None:
        member.cloud_mask = np.flip(member.cloud_mask, tuple(flips))
    turned = []
    if 2 in flips:
        position.y = None if position.y is None else position.y[::-1]
        turned.append("y ascends")
    if 3 in flips:
        position.x = None if position.x is None else position.x[::-1]
        turned.append("x descends")
    member.problems.append(
        Problem(
            "flipped", f"{' and '.join(turned).capitalize()}.", "stored from north to south and west to east"
        )
    )


def as_numbers(pixels: Array, name: str) -> Array:
    """Return the pixels as numbers that can be stored.

    Raises
    ------
    FormatError
        They are no numbers, or none at all.
    """
    if pixels.dtype.kind == "b":
        pixels = pixels.view(np.uint8)
    if pixels.dtype.kind not in "iuf":
        raise FormatError(f"{name!r} holds {pixels.dtype} instead of numbers.")
    if not pixels.size:
        raise FormatError(f"{name!r} has no pixels: its shape is {pixels.shape}.")
    return pixels
