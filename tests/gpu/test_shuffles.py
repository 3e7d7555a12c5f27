"""Shuffles that torch undoes, against those that Blosc did."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tensorbank_gpu import Shuffle, unshuffled


def shuffled_bytes(data: np.ndarray, typesize: int) -> np.ndarray:
    """A byte shuffle, written from its definition."""
    whole = len(data) // typesize * typesize
    return np.concatenate([data[:whole].reshape(-1, typesize).T.reshape(-1), data[whole:]])


def shuffled_bits(data: np.ndarray, typesize: int) -> np.ndarray:
    """A bit shuffle, written from its definition: bit by bit of the elements, lowest first."""
    whole = len(data) // typesize * typesize
    bits = np.unpackbits(data[:whole], bitorder="little").reshape(-1, typesize * 8)
    return np.concatenate([np.packbits(bits.T.reshape(-1), bitorder="little"), data[whole:]])


SHAPES = st.tuples(st.integers(0, 9), st.integers(1, 40), st.integers(0, 40), st.integers(0, 2**32 - 1))


@given(SHAPES)
def test_bytes_come_back(shape):
    n, typesize, elements, seed = shape
    rest = seed % typesize
    data = np.random.default_rng(seed).integers(0, 256, (n, elements * typesize + rest)).astype(np.uint8)
    changed = np.array([shuffled_bytes(row, typesize) for row in data]).reshape(data.shape)
    found = unshuffled(torch.from_numpy(changed), Shuffle.BYTES, typesize)
    np.testing.assert_array_equal(found.numpy(), data)


@given(SHAPES)
def test_bits_come_back(shape):
    n, typesize, eights, seed = shape
    rest = seed % typesize
    data = np.random.default_rng(seed).integers(0, 256, (n, eights * 8 * typesize + rest)).astype(np.uint8)
    changed = np.array([shuffled_bits(row, typesize) for row in data]).reshape(data.shape)
    found = unshuffled(torch.from_numpy(changed), Shuffle.BITS, typesize)
    np.testing.assert_array_equal(found.numpy(), data)


@pytest.mark.parametrize("shuffle", [Shuffle.BYTES, Shuffle.BITS], ids=lambda s: s.name)
def test_what_is_given_stays_as_it_is(shuffle):
    given_ = torch.arange(96, dtype=torch.uint8).reshape(2, 48)
    before = given_.clone()
    assert not torch.equal(unshuffled(given_, shuffle, 2), before)
    assert torch.equal(given_, before)


def test_nothing_is_done_where_nothing_was():
    pieces = torch.arange(6, dtype=torch.uint8).reshape(1, 6)
    assert unshuffled(pieces, Shuffle.NONE, 2) is pieces
    assert unshuffled(pieces, Shuffle.BYTES, 7) is pieces
