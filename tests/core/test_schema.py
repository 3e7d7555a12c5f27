"""Schema values: sizes of samples, and what a modality says of itself."""

from __future__ import annotations

import math

import pytest

from tensorbank import Band, FormatError, Modality, NotFoundError, TableSchema

SERIES = Modality("S1", "float32", (Band("VV"), Band("VH")), n_times=4, height=264, width=264)
MASK = Modality("mask", "uint8", (Band("mask"),), 1, 264, 264, classes=((0, "clear"), (1, "cloud")))


def test_sizes_of_a_sample():
    assert SERIES.sample_shape == (4, 2, 264, 264)
    assert SERIES.n_blocks == 8
    assert SERIES.block_bytes == 278_784
    assert SERIES.sample_bytes == 2_230_272
    assert TableSchema((SERIES, MASK)).sample_bytes == 2_230_272 + 69_696


def test_absent_floats_are_nan_and_absent_integers_zero():
    assert math.isnan(SERIES.fill_value)
    assert MASK.fill_value == 0
    assert (SERIES.categorical, MASK.categorical) == (False, True)


def test_bands_are_found_in_any_case():
    assert (SERIES.band_index("VH"), SERIES.band_index("vv")) == (1, 0)
    with pytest.raises(NotFoundError, match="VV") as caught:
        SERIES.band_index("VW")
    assert caught.value.kind == "unknown-band"


def test_modalities_of_a_table_are_found_by_name():
    schema = TableSchema((SERIES, MASK))
    assert [m.name for m in schema] == ["S1", "mask"]
    assert "mask" in schema
    assert "S2" not in schema
    assert schema["mask"] is MASK
    assert repr(schema) == "TableSchema(S1, mask)"


def test_a_modality_is_shown_on_one_line():
    many = Modality("S2", "int16", tuple(Band(f"B{b:02}") for b in range(1, 10)), 1, 8, 8)
    assert repr(many) == "Modality('S2', int16, 1 x 9 x 8 x 8: B01, B02, B03, ..., B09)"
    assert repr(MASK) == "Modality('mask', uint8, 1 x 1 x 264 x 264: clear, cloud)"


@pytest.mark.parametrize(
    "text", ["", "null", "[]", '{"bands": []}', '{"bands": [{"nme": "x"}], "classes": []}']
)
def test_what_describes_no_modality_is_refused(text):
    with pytest.raises(FormatError, match="cannot be read"):
        Modality.from_json(text)
