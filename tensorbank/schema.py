"""Schema values: what the modalities of a table are.

A ``Modality`` is stored as one Zarr array ``[sample, time, band, y, x]`` and indexed as one struct column
of the ``samples`` and ``tiles`` tables; its description travels as JSON in that column's field metadata, so it is
versioned with the snapshot.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from tensorbank.errors import ErrorKind, FormatError, InvalidInputError, NotFoundError, nearest

__all__ = ["RESERVED_FIELDS", "Band", "Modality", "TableSchema"]

RESERVED_FIELDS = frozenset({"ref", "source", "product_ids", "radiometric_offset", "share", "count", "valid"})
"""The field names of a modality column that a band of a multi-band modality must not take."""


@dataclass(frozen=True, slots=True)
class Band:
    """One channel of a modality."""

    name: str
    unit: str = ""
    long_name: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Modality:
    """The co-registered bands that share dtype, shape and block grid: one Zarr array per part.

    Parameters
    ----------
    name
        Column name in SQL, key of the batch, name of the array.
    dtype
        Numpy name of the stored dtype, such as ``int16``; always little-endian on disk.
    bands
        Bands in stored order.
    n_times, height, width
        Shape of one sample is ``(n_times, len(bands), height, width)``.
    classes
        Class code to name, for categorical modalities: these have shares instead of means.
    attributes
        CF-like attributes of the array: units, scale, nodata, source, licence, ...
    """

    name: str
    dtype: str
    bands: tuple[Band, ...]
    n_times: int
    height: int
    width: int
    classes: tuple[tuple[int, str], ...] = ()
    attributes: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if np.dtype(self.dtype).kind not in "iuf":
            raise InvalidInputError(f"modality {self.name!r} has dtype {self.dtype!r}; numbers are needed")
        names = self.band_names
        if len(set(names)) != len(names) or not names:
            raise InvalidInputError(f"modality {self.name!r} needs distinct band names, got {list(names)}")
        taken = RESERVED_FIELDS.intersection(names)
        if len(names) > 1 and taken:
            raise InvalidInputError(
                f"modality {self.name!r} has a band named {min(taken)!r}, a reserved field"
            )

    def __repr__(self) -> str:
        """Return one line: a notebook shows many."""
        words = [name for _, name in self.classes] or list(self.band_names)
        listed = ", ".join(words if len(words) <= 6 else [*words[:3], "...", words[-1]])
        shape = " x ".join(map(str, self.sample_shape))
        return f"Modality({self.name!r}, {self.dtype}, {shape}: {listed})"

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(b.name for b in self.bands)

    @property
    def categorical(self) -> bool:
        return bool(self.classes)

    @property
    def sample_shape(self) -> tuple[int, int, int, int]:
        """The shape (time, band, y, x) of a sample."""
        return (self.n_times, len(self.bands), self.height, self.width)

    @property
    def n_blocks(self) -> int:
        """The number of blocks of a sample: one per date and band."""
        return self.n_times * len(self.bands)

    @property
    def block_bytes(self) -> int:
        """The decoded size of one block."""
        return self.height * self.width * np.dtype(self.dtype).itemsize

    @property
    def sample_bytes(self) -> int:
        """The decoded size of one sample."""
        return self.n_blocks * self.block_bytes

    @property
    def fill_value(self) -> float | int:
        """The value that a reader sees where a sample lacks this modality: NaN for floats, else 0."""
        return math.nan if np.dtype(self.dtype).kind == "f" else 0

    def band_index(self, name: str) -> int:
        """Return the position of a band; NotFoundError with the nearest names if there is none."""
        folded = [n.lower() for n in self.band_names]
        if name.lower() not in folded:
            raise NotFoundError(
                f"modality {self.name} has no band {name!r}.{nearest(name, self.band_names, n=3)}",
                kind=ErrorKind.UNKNOWN_BAND,
            )
        return folded.index(name.lower())

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Modality:
        """Return the modality that :meth:`to_json` wrote; FormatError for anything else."""
        try:
            raw = json.loads(text)
            bands = tuple(Band(**b) for b in raw.pop("bands"))
            classes = tuple((int(code), str(name)) for code, name in raw.pop("classes"))
            return cls(bands=bands, classes=classes, **raw)
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise FormatError(f"a modality description cannot be read ({error}): {text[:80]!r}") from error


@dataclass(frozen=True, slots=True, repr=False)
class TableSchema:
    """The modalities of a table, by name."""

    modalities: tuple[Modality, ...]

    def __repr__(self) -> str:
        return f"TableSchema({', '.join(self.names)})"

    def __iter__(self) -> Iterator[Modality]:
        return iter(self.modalities)

    def __contains__(self, name: object) -> bool:
        return any(m.name == name for m in self.modalities)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.modalities)

    def __getitem__(self, name: str) -> Modality:
        for modality in self.modalities:
            if modality.name == name:
                return modality
        raise NotFoundError(
            f"no modality {name!r}.{nearest(name, self.names)}", kind=ErrorKind.UNKNOWN_MODALITY
        )

    @property
    def sample_bytes(self) -> int:
        """The decoded size of a sample that has every modality."""
        return sum(m.sample_bytes for m in self.modalities)
