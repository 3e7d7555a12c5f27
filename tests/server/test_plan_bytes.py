"""Bytes of a plan at a service keep the contract of every reader of ranges."""

from __future__ import annotations

import pytest

import tensorbank as tb
from support.stored import stored  # noqa: F401 - a fixture
from tensorbank.testing import RangeReaderContract


@pytest.fixture(scope="module")
def signed(stored):  # noqa: F811
    with stored.serving() as served:
        yield served


@pytest.mark.parametrize("ranges", ["url", "proxy"], indirect=True)
class TestPlanBytes(RangeReaderContract):
    @pytest.fixture
    def ranges(self, request, signed):
        plan = tb.open(signed.url, access=request.param).query("terramesh").select("DEM", "LULC").plan()
        assert plan.origin.access == request.param
        return plan.origin.open()

    @pytest.fixture
    def known_object(self, stored):  # noqa: F811
        key = stored.direct.query("terramesh").select("DEM").plan().addresses["DEM"].shard_keys[0]
        return key, stored.direct.catalog.store.get(key)
