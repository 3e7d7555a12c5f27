"""Pixels take the type of their table if it holds each of them exactly; what does not fit is named."""

from __future__ import annotations

import numpy as np
import pytest

from tensorbank import Band, Modality
from tensorbank_indexer import MemberAddress, RawModality
from tensorbank_indexer.parts.table_fit import conform, misfit, stored_numbers

TABLE = Modality("S2", "int16", (Band("B02"), Band("B03")), 4, 8, 8)


def raw(pixels: np.ndarray, bands: tuple[str, ...] = ("B02", "B03")) -> RawModality:
    return RawModality(pixels, bands, None, (), MemberAddress("a.tar", 0, 1, "e"))


@pytest.mark.parametrize(
    ("values", "given", "wanted", "fits"),
    [
        ([0, 255], "uint8", "int16", True),
        ([0, 32_767], "uint16", "int16", True),
        ([0, 32_768], "uint16", "int16", False),
        ([-1], "int16", "uint16", False),
        ([-1], "int8", "uint8", False),
        ([2**63], "uint64", "int64", False),
        ([1.0, -3.0], "float32", "int16", True),
        ([1.5], "float32", "int16", False),
        ([np.nan], "float32", "int16", False),
        ([np.nan, 0.5], "float64", "float32", True),
        ([0.1], "float64", "float32", False),
        ([2.0**80], "float64", "int16", False),
        ([2**53 + 1], "int64", "float64", False),
    ],
)
def test_a_type_is_taken_only_if_it_holds_every_value(values, given, wanted, fits):
    pixels = np.array(values, given)
    found = conform(pixels, wanted)
    assert found.dtype == np.dtype(wanted if fits else given)
    assert found.tolist() == pytest.approx(pixels.tolist(), rel=0, nan_ok=True)


def test_truth_values_are_stored_as_bytes():
    assert stored_numbers(np.array([True, False])).tolist() == [1, 0]
    assert stored_numbers(np.array([True])).dtype == np.uint8


@pytest.mark.parametrize("n_dates", [1, 4])
def test_fewer_dates_fit(n_dates):
    pixels = np.zeros((n_dates, 2, 8, 8), np.int16)
    assert misfit(raw(pixels), pixels, TABLE) is None


@pytest.mark.parametrize(
    ("shape", "dtype", "bands", "kind", "reason"),
    [
        (
            (5, 2, 8, 8),
            "int16",
            ("B02", "B03"),
            "other-shape",
            "shape is 5 x 2 x 8 x 8 where the table has 4 x 2 x 8 x 8",
        ),
        (
            (1, 2, 8, 9),
            "int16",
            ("B02", "B03"),
            "other-shape",
            "shape is 1 x 2 x 8 x 9 where the table has 4 x 2 x 8 x 8",
        ),
        (
            (0, 2, 8, 8),
            "int16",
            ("B02", "B03"),
            "other-shape",
            "shape is 0 x 2 x 8 x 8 where the table has 4 x 2 x 8 x 8",
        ),
        (
            (1, 2, 8, 8),
            "float32",
            ("B02", "B03"),
            "other-dtype",
            "dtype is float32 where the table has int16",
        ),
        (
            (1, 2, 8, 8),
            "int16",
            ("B03", "B02"),
            "other-bands",
            "bands is B03 x B02 where the table has B02 x B03",
        ),
    ],
)
def test_what_does_not_fit_is_named(shape, dtype, bands, kind, reason):
    pixels = np.zeros(shape, dtype)
    assert misfit(raw(pixels, bands), pixels, TABLE) == (kind, reason)
