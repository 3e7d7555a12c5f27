"""The benchmark of the loader's own cost runs, on amounts too small to tell anything, and reads the same from memory."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

from tensorbank.fetch import FetchOptions
from tensorbank.reading import SampleReader
from tensorbank_demo.landscape.archive import write_archives

pytestmark = pytest.mark.timeout(240)
PROFILES = ("raw", "balanced")


@pytest.fixture(scope="module")
def bench():
    return importlib.import_module("bench_loader")


@pytest.fixture(scope="module")
def banks(bench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    source = write_archives(folder / "archives", n_samples=20, samples_per_tar=20, seed=1).root
    return bench.make_banks(folder, source, PROFILES)


def test_every_profile_stands_beside_its_ceiling(bench, banks):
    found = list(bench.served(banks, repeats=1))
    assert {(f.section, f.what) for f in found} == {(p, n) for p in PROFILES for n in bench.N_THREADS}
    assert {f.section: f.target for f in found} == {"raw": 0.85, "balanced": 1.0}
    for figure in found:
        assert np.isfinite([figure.value, figure.ceiling, figure.ratio]).all()
        assert figure.value > 0
        json.dumps(figure.to_dict())


def test_what_is_streamed_from_memory_is_what_the_bank_holds(bench, banks):
    plan = bench.plan_of(banks["raw"])
    in_memory = bench.in_memory(banks["raw"])
    at = np.arange(len(plan))
    stored, kept = (SampleReader.of(p, FetchOptions()).read(at) for p in (plan, in_memory))
    assert stored.keys() == kept.keys()
    for name in stored:
        np.testing.assert_array_equal(stored[name], kept[name])
    found = {f.what: f for f in bench.from_memory(banks["raw"], repeats=1)}
    assert len(found) == 3
    assert all(f.value > 0 for f in found.values() if f.ceiling is not None)
