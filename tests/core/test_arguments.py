"""Checks of arguments: what passes comes back as one type, what does not is named."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from tensorbank import InvalidInputError
from tensorbank.arguments import number, whole_number


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_whole_numbers_become_int(value):
    found = whole_number("n", value, at_least=3, at_most=3)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("value", [True, 3.0, "3", None, np.float64(3), [3], 2, 6])
def test_other_things_are_no_whole_numbers(value):
    with pytest.raises(InvalidInputError, match=r"^n is .*whole number of at least 3 and at most 5$"):
        whole_number("n", value, at_least=3, at_most=5)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int16(2), Fraction(4, 2)])
def test_numbers_become_float(value):
    found = number("x", value, above=1)
    assert (found, type(found)) == (2.0, float)


@pytest.mark.parametrize(
    "value", [True, "2", None, float("nan"), float("inf"), 10**400, 1, 0.5, Decimal(2), 2j, [2]]
)
def test_other_things_are_no_numbers(value):
    with pytest.raises(InvalidInputError, match=r"^x is .*finite number above 1$"):
        number("x", value, above=1)


def test_infinity_may_be_a_number():
    assert number("x", float("inf"), finite=False) == float("inf")
    with pytest.raises(InvalidInputError):
        number("x", float("nan"), finite=False)
