"""A small table in two parts, and how its pixels are compared with what its archives hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank_indexer import IngestOptions, ingest

OPTIONS = IngestOptions(n_workers=1, samples_per_shard=2, n_tiles=2)


@pytest.fixture
def options() -> IngestOptions:
    """Options of an ingest into shards of two samples, in this process."""
    return OPTIONS


@pytest.fixture
def bank(tmp_path):
    """A bank with the table t: samples 0 to 4 and 5 to 7 in a part each, of DEM and S2L2A."""
    bank = tb.create(tmp_path / "bank")
    for first, n in ((0, 5), (5, 3)):
        ingest(TinySource(n, first, modalities=("DEM", "S2L2A")), bank, "t", OPTIONS)
    return bank


@pytest.fixture
def stored() -> Callable[..., list[np.ndarray | None]]:
    """Return a function that reads a modality of samples 0 to n, None where a sample has none."""

    def read(table: tb.Table, modality: str, n: int = 8) -> list[np.ndarray | None]:
        names = [f"sample-{i:04d}" for i in range(n)]
        return [table.read(name).get(modality) for name in names]

    return read


@pytest.fixture
def same() -> Callable[..., None]:
    """Return a function that compares pixels of samples with those that are expected, None for none."""

    def compare(found, expected) -> None:
        assert [f is None for f in found] == [e is None for e in expected]
        for one, other in zip(found, expected, strict=True):
            if one is not None:
                np.testing.assert_array_equal(one, other)

    return compare
