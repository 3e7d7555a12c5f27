"""Names that an archive brings into a table, checked before anything is written: they become columns and fields of SQL."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.index_schema import (
    SAMPLE_BAND,
    SAMPLE_COLUMNS,
    SHARD_BAND,
    SHARD_COLUMNS,
    TILE_BAND,
    TILE_COLUMNS,
)
from tensorbank.layout import check_identifier
from tensorbank.schema import RESERVED_FIELDS, TableSchema

__all__ = ["check_names"]

_COLUMNS = {f.name.lower() for f in (*SAMPLE_COLUMNS, *TILE_COLUMNS, *SHARD_COLUMNS)}
_OF_BATCHES = {"mask"}
"""The keys that a batch of the loader has beside its modalities and columns."""
_FIELDS = {f.name.lower() for f in (*SAMPLE_BAND, *TILE_BAND, *SHARD_BAND)} | {
    f.lower() for f in RESERVED_FIELDS
}
_BAND = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]{0,62}")


def check_names(schema: TableSchema) -> None:
    """Refuse modalities and bands that SQL could not tell apart or would take for something else.

    Raises
    ------
    InvalidInputError
        Of kind ``bad-name``; the message names the first such name and what to do.
    """
    seen: dict[str, str] = {}
    for name in schema.names:
        check_identifier(name, "a modality; rename its folder in the archive")
        if name.lower() in _COLUMNS | _OF_BATCHES:
            raise _refusal(
                f"the modality {name!r} has the name of a column that every table has; rename its folder"
            )
        if name.lower() in seen:
            raise _refusal(
                f"SQL cannot tell the modality {name!r} from {seen[name.lower()]!r}, which differs in case only; rename one"
            )
        seen[name.lower()] = name
    for modality in schema:
        _check_bands(modality.name, modality.band_names)


def _check_bands(modality: str, bands: Iterable[str]) -> None:
    bands = tuple(bands)
    seen: dict[str, str] = {}
    for band in bands:
        if not _BAND.fullmatch(band):
            raise _refusal(
                f"{band!a} cannot name a band of {modality}: letters, digits, _, + or -, at most 63"
            )
        if len(bands) > 1 and band.lower() in _FIELDS:
            raise _refusal(
                f"the band {band!r} of {modality} has the name of a statistic; rename it in the archive"
            )
        if band.lower() in seen:
            raise _refusal(
                f"SQL cannot tell the band {band!r} of {modality} from {seen[band.lower()]!r}, which differs in case only"
            )
        seen[band.lower()] = band


def _refusal(message: str) -> InvalidInputError:
    return InvalidInputError(message, kind=ErrorKind.BAD_NAME)
