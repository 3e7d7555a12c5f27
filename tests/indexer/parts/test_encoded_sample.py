"""A modality that cannot be encoded costs itself only, and says so."""

from __future__ import annotations

import numpy as np

from tensorbank import Band, Modality
from tensorbank.reading import codec_for
from tensorbank.schema import TableSchema
from tensorbank_indexer import MemberAddress, RawModality, RawSample, SampleRef
from tensorbank_indexer.parts.encoded_sample import encode_sample
from tensorbank_indexer.reports.stage_seconds import StageClock

S2 = Modality("S2", "int16", (Band("B02"), Band("B03")), 3, 8, 8)
DEM = Modality("DEM", "int16", (Band("DEM"),), 1, 8, 8)
SCHEMA = TableSchema((S2, DEM))
REF = SampleRef("train/a", "train", "", "stem-1", "s1", 0.0, 0.0, 0, {})


def raw(pixels: object, *bands: str) -> RawModality:
    return RawModality(pixels, bands, None, ("id",), MemberAddress("a.tar", 5, 7, "e"))  # type: ignore[arg-type]


def encoded(**modalities: RawModality):
    clock = StageClock()
    sample = RawSample(REF, "s1", None, None, None, None, None, modalities)
    found = encode_sample(sample, SCHEMA, profile="balanced", n_tiles=2, clock=clock)
    assert {f.member for f in found.findings} <= {"stem-1"}
    return found, {(f.kind, f.modality) for f in found.findings}, clock.seconds


def test_blocks_are_the_pixels_date_by_date_and_empty_for_dates_that_lack():
    pixels = np.random.default_rng(0).integers(0, 99, (2, 2, 8, 8)).astype(np.int16)
    found, kinds, seconds = encoded(S2=raw(pixels, "B02", "B03"))
    modality = found.modalities["S2"]
    codec = codec_for("balanced", S2)
    assert modality.blocks == (*(codec.encode(band) for date in pixels for band in date), b"", b"")
    assert modality.tensor_bytes == pixels.nbytes
    assert modality.source == {"path": "a.tar", "offset": 5, "length": 7, "etag": "e"}
    assert modality.product_ids == ("id",)
    assert kinds == set()
    assert seconds.encode > 0
    assert seconds.statistics > 0
    assert seconds.read == seconds.write == 0


def test_pixels_that_fail_cost_their_modality_only():
    dem = np.ones((1, 1, 8, 8), np.uint8)
    found, kinds, _ = encoded(
        S2=raw("no pixels", "B02", "B03"), DEM=raw(dem, "DEM"), fog=raw(dem, "fog"), LULC=raw(dem, "LULC")
    )
    assert found.modalities.keys() == {"DEM"}
    assert kinds == {
        ("unusable-modality", "S2"),
        ("other-type", "DEM"),
        ("unknown-modality", "fog"),
        ("unknown-modality", "LULC"),
    }


def test_an_address_and_ids_that_cannot_be_stored_are_escaped_or_left_out():
    given = raw(np.ones((1, 1, 8, 8), np.int16), "DEM")
    given.address = MemberAddress("a\ud800.tar", 0, 1, "e")
    given.product_ids = ("sound", "\ud800")
    found, _, _ = encoded(DEM=given)
    assert found.modalities["DEM"].source["path"] == r"'a\ud800.tar'"
    assert found.modalities["DEM"].product_ids == ()
