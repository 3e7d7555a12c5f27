"""One zarr file of SSL4EO-S12 v1.1: one modality of some 64 locations at 4 dates, read location by
location.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import FormatError, IntegrityError
from tensorbank_indexer.cf import Position, described_position, four_axes, text_of, unpack, unpacked
from tensorbank_indexer.containers import Allowance, Boundary, Problem, ReadLimits, SourceFiles, ZipArchive
from tensorbank_indexer.members import Member, as_numbers, put_pixels, turn_north
from tensorbank_indexer.zarr_groups import ZarrGroup, decode_chunk, decode_row

__all__ = ["LocationFile"]

Array = npt.NDArray[Any]
STORED_NAMES = {
    "sample": "sample",
    "crs": "crs",
    "center_lon": "center_lon",
    "center_lat": "center_lat",
    "x": "x_",
    "y": "y_",
    "time": "time_",
    "file_id": "file_id",
}
"""The names of the arrays of a file, by their names in a member of one location."""


class LocationFile:
    """The locations of one file. Not for several threads at a time.

    A chunk holds one date of many locations (hundreds of MB decoded). The stored bytes of the chunks that
    hold the location read last are kept, the CRC-32 checked once, and of them the blocks of one location
    decoded: read locations in their order. Chunks that are not Blosc in C order have to be kept decoded.

    Raises
    ------
    FormatError
        The file is cut off (kind ``truncated-archive``), not a zip archive or not a zarr group.
    IntegrityError
        The metadata are damaged.
    """

    def __init__(
        self, files: SourceFiles, path: str, size_bytes: int, limits: ReadLimits | None = None
    ) -> None:
        self.archive = ZipArchive(lambda start, end: files.read(path, start, end), size_bytes)
        self.group = ZarrGroup(self.archive, Allowance(limits))
        self._small: dict[str, Array | FormatError | IntegrityError] = {}
        self._chunks: dict[
            tuple[str, tuple[int, ...]], memoryview | Array | IntegrityError | FormatError | None
        ] = {}

    @cached_property
    def sample_ids(self) -> tuple[str, ...]:
        """The ids in the order of the file."""
        return tuple(text_of(name) for name in self._array("sample").reshape(-1))

    def position(self, row: int, problems: list[Problem]) -> Position:
        """Place and times of the location in this row; what cannot be read becomes a problem and stays None.

        ``x_``, ``y_`` and ``time_`` are true, ``x``, ``y`` and ``time`` mere indices.
        """
        arrays = {name: self._of_row(stored, row, problems) for name, stored in STORED_NAMES.items()}
        return described_position(
            arrays, problems, attrs=lambda name: self.group.spec(STORED_NAMES[name]).attrs
        )

    def member(
        self, row: int, *, modality: str, want_cloud_mask: bool, codes: bool, allowance: Allowance
    ) -> Member:
        """Return the pixels, place and times of one location.
        Damage of an array is a problem of the member.
        """
        self.group.allowance = allowance
        member = Member(Position(), has_cloud_mask="cloud_mask" in self.group)
        member.position = self.position(row, member.problems)
        with Boundary(self._to(member, "modality left out"), "corrupt-chunk"):
            spec = self.group.spec("bands")
            names = self._array("band") if "band" in self.group else None
            pixels = four_axes(self._row("bands", row), spec.dims[1:], member.problems)
            pixels = unpack(pixels, spec.attrs, spec.missing, member.problems, "bands", codes=codes)
            put_pixels(member, pixels, names, modality)
        if want_cloud_mask and member.has_cloud_mask:
            with Boundary(self._to(member, "cloud mask left out"), "corrupt-chunk"):
                dims = self.group.spec("cloud_mask").dims[1:] or ("time", "y", "x")
                mask = four_axes(self._row("cloud_mask", row), dims, member.problems, "cloud_mask")
                member.cloud_mask = as_numbers(mask, "cloud_mask")
        turn_north(member)
        return member

    @staticmethod
    def _to(member: Member, action: str) -> Callable[[str, str], None]:
        return lambda kind, reason: member.problems.append(Problem(kind, reason, action))

    def _of_row(self, name: str, row: int, problems: list[Problem]) -> Array | None:
        """Return a small array at one location, or None and a problem."""

        def report(kind: str, reason: str) -> None:
            problems.append(Problem(kind, reason, "read without it"))

        if name not in self.group:
            return None
        with Boundary(report, "corrupt-chunk"):
            array = self._array(name)
            if not array.ndim or row >= len(array):
                return None
            return unpacked(np.asarray(array[row]), self.group.spec(name), name, problems)
        return None

    def _array(self, name: str) -> Array:
        """Return a small array, read once; one that was found damaged stays so."""
        if name not in self._small:
            self.group.allowance = Allowance(self.group.allowance.limits)
            try:
                self._small[name] = self.group.read_small(name)
            except (IntegrityError, FormatError) as error:
                self._small[name] = error
        found = self._small[name]
        if isinstance(found, (IntegrityError, FormatError)):
            raise found
        return found

    def _row(self, name: str, row: int) -> Array:
        spec = self.group.spec(name)
        if not spec.shape or "sample" in spec.dims[1:]:
            raise FormatError(f"{name}/ does not have the locations as its first axis.")
        if not 0 <= row < spec.shape[0]:
            raise FormatError(f"{name}/ has {spec.shape[0]} locations, there is no number {row}.")
        self.group.allowance.take(f"{name}/ of one location", spec.sizes.array_bytes // spec.shape[0])
        fill = 0 if spec.fill_value is None else spec.fill_value
        out = np.full(spec.shape[1:], fill, spec.dtype.newbyteorder("="))
        within = row % spec.chunks[0]
        for index, window in self.group.row_chunks(name, row):
            self.group.allowance.check_time()
            chunk = self._chunk(name, index)
            if chunk is None:
                continue
            if isinstance(chunk, memoryview):
                part = decode_row(spec, chunk, index, within)
                if part is None:
                    chunk = decode_chunk(spec, chunk, index)
                    self._keep(name, index, chunk)
                    part = chunk[within]
            else:
                part = chunk[within]
            out[window] = part[
                tuple(
                    slice(0, min(w.stop, size) - w.start) for w, size in zip(window, out.shape, strict=True)
                )
            ]
        return out

    def _keep(self, name: str, index: tuple[int, ...], chunk: Array) -> None:
        """Keep a decoded chunk for the next location, as long as all of them have room."""
        kept = sum(found.nbytes for found in self._chunks.values() if isinstance(found, np.ndarray))
        if kept + chunk.nbytes <= self.group.allowance.limits.max_sample_bytes:
            self._chunks[name, index] = chunk

    def _chunk(self, name: str, index: tuple[int, ...]) -> memoryview | Array | None:
        """Return a chunk, stored or decoded, or None if it is missing. A chunk that was found damaged stays so."""
        key = (name, index)
        if key not in self._chunks:
            for other in [k for k in self._chunks if k[0] == name and k[1][0] != index[0]]:
                del self._chunks[other]
            try:
                self._chunks[key] = self.group.stored(name, index)
            except (IntegrityError, FormatError) as error:
                self._chunks[key] = error
        found = self._chunks[key]
        if isinstance(found, (IntegrityError, FormatError)):
            raise found
        return found
