"""A sample, measured and encoded: its blocks as a shard will hold them, and what its index rows will say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.reading import codec_for
from tensorbank.schema import Modality, TableSchema
from tensorbank_indexer.guarded_source import cause_of, is_text
from tensorbank_indexer.measures import Measure, PixelMeasure, measure, radiometric_offset, suspicions
from tensorbank_indexer.parts.table_fit import conform, misfit, stored_numbers
from tensorbank_indexer.reports import StageClock
from tensorbank_indexer.source import Finding, MemberAddress, RawModality, RawSample, SampleRef

__all__ = ["EncodedModality", "EncodedSample", "encode_sample"]


@dataclass(frozen=True, slots=True)
class EncodedModality:
    """One modality of one sample, ready to be stored.

    ``blocks`` has one for each date and band of the table's modality; those of dates that the sample lacks are empty.
    ``tensor_bytes`` is the size of its pixels, decoded. The rest is as in :class:`tensorbank_indexer.rows.StoredModality`.
    """

    blocks: tuple[bytes, ...]
    tensor_bytes: int
    measure: Measure
    source: Mapping[str, object]
    product_ids: tuple[str, ...]
    radiometric_offset: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One sample, ready to be stored. ``modalities`` lacks what does not fit the table; ``findings`` says why."""

    modalities: Mapping[str, EncodedModality]
    findings: tuple[Finding, ...]


def encode_sample(
    raw: RawSample, schema: TableSchema, *, profile: str, n_tiles: int, clock: StageClock
) -> EncodedSample:
    """Measure and encode the modalities of a sample; one that fails costs itself only. Pure but for the clock."""
    modalities: dict[str, EncodedModality] = {}
    findings: list[Finding] = []
    for name, given in raw.modalities.items():
        one = _ModalityEncoder(raw.ref, name, [])
        try:
            encoded = one.encode(given, schema, profile, n_tiles, clock)
        except Exception as error:  # noqa: BLE001 - one modality of one sample: any cause costs it only
            encoded = None
            one.findings.clear()  # they tell what was done with a modality that is left out now
            one.leave_out("unusable-modality", cause_of(error))
        findings += one.findings
        if encoded is not None:
            modalities[name] = encoded
    return EncodedSample(modalities, tuple(findings))


@dataclass(frozen=True, slots=True)
class _ModalityEncoder:
    """An encoder of one modality of one sample, which adds what it finds to ``findings``."""

    ref: SampleRef
    name: str
    findings: list[Finding]

    def encode(
        self, raw: RawModality, schema: TableSchema, profile: str, n_tiles: int, clock: StageClock
    ) -> EncodedModality | None:
        """Return the encoded modality, or None if it does not fit its table."""
        if self.name not in schema:
            self.leave_out("unknown-modality", f"the table has no modality {self.name!a}")
            return None
        modality = schema[self.name]
        given = stored_numbers(raw.pixels)
        pixels = conform(given, modality.dtype)
        wrong = misfit(raw, pixels, modality)
        if wrong is not None:
            self.leave_out(*wrong)
            return None
        with clock.stage("statistics"):
            statistics = measure(pixels, modality, n_tiles)
        with clock.stage("encode"):
            blocks = _blocks(pixels, modality, profile)
        if given.dtype != pixels.dtype:
            action = f"stored as {modality.dtype}, which holds each of them exactly"
            self.find("other-type", f"the pixels are {given.dtype.name}", action)
        self.findings.extend(suspicions(statistics, modality, self.ref))
        ids = tuple(i for i in raw.product_ids if is_text(i))
        return EncodedModality(
            blocks,
            pixels.nbytes,
            statistics,
            _source(raw.address),
            ids if len(ids) == len(raw.product_ids) else (),
            self._offset(modality, statistics, ids),
        )

    def _offset(
        self, modality: Modality, statistics: Measure, product_ids: tuple[str, ...]
    ) -> dict[str, object] | None:
        """Return the radiometric offset as a row states it, None for a modality that cannot have one."""
        if not isinstance(statistics, PixelMeasure):
            return None
        offset = radiometric_offset(modality, statistics, product_ids)
        if offset is None:
            return None
        if offset.contradiction:
            self.find("offset-baseline", offset.contradiction, "the offset of the pixels is stated")
        return {"value": offset.value, "method": offset.method}

    def leave_out(self, kind: str, reason: str) -> None:
        self.find(kind, reason, "modality left out, the sample's others kept")

    def find(self, kind: str, reason: str, action: str) -> None:
        self.findings.append(
            Finding(kind, self.ref.archive, reason, action, member=self.ref.stem, modality=self.name)
        )


def _source(address: MemberAddress) -> dict[str, object]:
    """Return an address as a row states it."""
    return {
        "path": address.path if is_text(address.path) else ascii(address.path),
        "offset": address.offset,
        "length": address.length_bytes,
        "etag": address.etag,
    }


def _blocks(pixels: npt.NDArray[np.generic], modality: Modality, profile: str) -> tuple[bytes, ...]:
    """Return the blocks as stored: dates in order, and of each date its bands in order."""
    codec = codec_for(profile, modality)
    ordered = np.ascontiguousarray(pixels, dtype=np.dtype(modality.dtype).newbyteorder("<"))
    blocks = [codec.encode(band) for date in ordered for band in date]
    return (*blocks, *[b""] * (modality.n_blocks - len(blocks)))
