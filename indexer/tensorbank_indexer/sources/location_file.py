"""One zarr file of SSL4EO-S12 v1.1: one modality of some 64 locations at 4 dates, read location by
location."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import FormatError, IntegrityError
from tensorbank_indexer.sources.files import SourceFiles
from tensorbank_indexer.sources.members import Member, Position, epsg_of, four_axes, plain_number, text_of
from tensorbank_indexer.sources.times import decode_times
from tensorbank_indexer.sources.zarrs import ZarrGroup, decode_chunk, decode_row
from tensorbank_indexer.sources.zip import ZipArchive

__all__ = ["LocationFile"]

Array = npt.NDArray[Any]


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

    def __init__(self, files: SourceFiles, path: str, size_bytes: int) -> None:
        self.archive = ZipArchive(lambda start, end: files.read(path, start, end), size_bytes)
        self.group = ZarrGroup(self.archive)
        self._small: dict[str, Array] = {}
        self._chunks: dict[
            tuple[str, tuple[int, ...]], memoryview | Array | IntegrityError | FormatError | None
        ] = {}

    @cached_property
    def sample_ids(self) -> tuple[str, ...]:
        """Ids in the order of the file."""
        return tuple(text_of(name) for name in self._array("sample").reshape(-1))

    def position(self, row: int) -> Position:
        """Place and times of the location in this row. ``x_``, ``y_`` and ``time_`` are true, ``x``, ``y``
        and ``time`` mere indices.

        Raises
        ------
        IntegrityError, FormatError
            A small array is damaged.
        """

        def values(name: str) -> Array | None:
            if name not in self.group:
                return None
            array = self._array(name)
            return array[row] if array.ndim and row < len(array) else None

        crs, lon, lat, x, y = (values(name) for name in ("crs", "center_lon", "center_lat", "x_", "y_"))
        times, ids = values("time_"), values("file_id")
        return Position(
            sample_id=self.sample_ids[row],
            epsg=None if crs is None else epsg_of(crs[()]),
            lon=None if lon is None else float(lon),
            lat=None if lat is None else float(lat),
            x=None if x is None else x.astype(np.float64),
            y=None if y is None else y.astype(np.float64),
            times_ns=None
            if times is None
            else decode_times(np.atleast_1d(times), self.group.spec("time_").attrs),
            product_ids=() if ids is None else tuple(text_of(name) for name in np.atleast_1d(ids)),
        )

    def member(self, row: int, *, want_cloud_mask: bool) -> Member:
        """Pixels, place and times of one location. Damage of an array is a problem of the member.

        Raises
        ------
        IntegrityError, FormatError
            A small array is damaged.
        """
        member = Member(self.position(row), has_cloud_mask="cloud_mask" in self.group)
        bands = self.group.spec("bands")
        member.pixels = self._row_or_problem("bands", row, member)
        if member.pixels is not None:
            member.pixels = four_axes(member.pixels, bands.dims[1:])
        member.fill_value = plain_number(bands.fill_value)
        if "band" in self.group:
            member.bands = tuple(text_of(name) for name in self._array("band").reshape(-1))
        if want_cloud_mask and member.has_cloud_mask:
            mask = self._row_or_problem("cloud_mask", row, member)
            member.cloud_mask = None if mask is None else four_axes(mask, ("time", "y", "x"))
            member.cloud_mask_fill_value = plain_number(self.group.spec("cloud_mask").fill_value)
        return member

    def _array(self, name: str) -> Array:
        if name not in self._small:
            self._small[name] = self.group.read(name)
        return self._small[name]

    def _row_or_problem(self, name: str, row: int, member: Member) -> Array | None:
        try:
            return self._row(name, row)
        except (IntegrityError, FormatError) as error:
            member.problems.append(
                ("corrupt-chunk", str(error) if name in str(error) else f"{name}/: {error}")
            )
            return None

    def _row(self, name: str, row: int) -> Array:
        spec = self.group.spec(name)
        if not 0 <= row < spec.shape[0]:
            raise FormatError(f"{name}/ has {spec.shape[0]} locations, there is no number {row}.")
        fill = 0 if spec.fill_value is None else spec.fill_value
        out = np.full(spec.shape[1:], fill, spec.dtype.newbyteorder("="))
        within = row % spec.chunks[0]
        for index, window in self.group.row_chunks(name, row):
            chunk = self._chunk(name, index)
            if chunk is None:
                continue
            if isinstance(chunk, memoryview):
                part = decode_row(spec, chunk, index, within)
                if part is None:
                    chunk = self._chunks[name, index] = decode_chunk(spec, chunk, index)
                    part = chunk[within]
            else:
                part = chunk[within]
            out[window] = part[
                tuple(
                    slice(0, min(w.stop, size) - w.start) for w, size in zip(window, out.shape, strict=True)
                )
            ]
        return out

    def _chunk(self, name: str, index: tuple[int, ...]) -> memoryview | Array | None:
        """A chunk, stored or decoded, or None if it is missing. A chunk that was found damaged stays so."""
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
