"""The figures of codec profiles: how they are measured and mixed, and that the default keeps what was promised of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bench_codec import mixes, rates, sample_bytes

from codec.chains import Chain, chains_for, profiles_for
from codec.clock import Cost, measure, mixed
from codec.patches import MIXES, TERRAMESH_DTYPES, Group
from pages.codecs import codecs
from tensorbank.reading import DECODE_S_PER_GB, DEFAULT_PROFILE, PROFILES
from tensorbank.schema import Band, Modality

RESULTS = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / "codec.json").read_text())
M = Modality("M", "int16", (Band("a"), Band("b")), 1, 8, 8)


def group(*blocks: np.ndarray) -> Group:
    return Group("made", M, blocks)


def test_the_default_keeps_its_promise_on_every_kind_of_sample():
    """Twice as fast to decode as the default before it, at no more than 1.10 times its bytes, and no slower to write."""
    assert len(RESULTS["samples"]) == len(MIXES) + 1
    for kind, of in RESULTS["samples"].items():
        now, before = of[DEFAULT_PROFILE][""], of["small"][""]
        assert now["stored"] <= 1.10 * before["stored"], kind
        assert now["decode_s_per_gb"] <= before["decode_s_per_gb"] / 2, kind
        assert now["encode_s_per_gb"] <= before["encode_s_per_gb"], kind


def test_the_published_rates_have_the_measured_ratios():
    measured = {p: of[""]["decode_s_per_gb"] for p, of in RESULTS["samples"]["TerraMesh"].items()}
    assert measured.keys() == set(PROFILES)
    for profile, seconds in DECODE_S_PER_GB.items():
        ratio = seconds / DECODE_S_PER_GB["small"] / (measured[profile] / measured["small"])
        assert ratio == pytest.approx(1, abs=0.2), profile


def test_every_profile_is_opened_by_every_reader():
    for profile in PROFILES:
        assert RESULTS["readers"][f"profile {profile}"] == {
            "zarr-python": "yes",
            "tensorstore": "yes",
            "zarrs": "yes",
        }


def test_stored_bytes_are_counted_exactly():
    blocks = [np.full((8, 8), i, np.int16) for i in range(3)]
    halves = Chain(
        "half", lambda b: b[0].tobytes() * 4, lambda d, out: out.__setitem__(..., out.dtype.type(d[0]))
    )
    costs = measure(group(*blocks), [halves], n_rounds=1)
    assert costs["half"].stored == 0.5
    assert costs["half"].ratio == 2
    assert costs["half"].decode_s_per_gb > 0


def test_a_chain_that_loses_pixels_is_not_measured():
    lossy = Chain("lossy", lambda _: b"", lambda _, out: out.fill(0))
    with pytest.raises(SystemExit, match="lossy"):
        measure(group(np.ones((8, 8), np.int16)), [lossy], n_rounds=1)


@pytest.mark.parametrize("dtype", ["int16", "float16", "uint8"])
def test_every_chain_gives_back_what_it_was_given(dtype):
    modality = Modality("M", dtype, (Band("a"),), 1, 32, 32)
    block = np.random.default_rng(0).integers(0, 200, (32, 32)).astype(dtype)
    chains = [*chains_for(modality), *profiles_for(modality)]
    assert len({c.name for c in chains}) == len(chains)
    assert measure(Group("made", modality, (block,)), chains, n_rounds=1).keys() == {c.name for c in chains}


def test_a_mix_is_weighted_by_decoded_bytes():
    found = mixed([(Cost(0.5, 1.0, 2.0), 3), (Cost(0.1, 5.0, 6.0), 1)])
    assert found == Cost(pytest.approx(0.4), pytest.approx(2.0), pytest.approx(3.0))
    assert sample_bytes("S2L2A") == 12 * 264 * 264 * 2
    assert sum(map(sample_bytes, TERRAMESH_DTYPES)) == 264 * 264 * (2 * (12 + 13 + 2 + 1 + 1) + 3 + 1)


def test_rates_are_the_lesser_of_network_and_cores():
    total = sum(map(sample_bytes, TERRAMESH_DTYPES))
    costs = {name: {p: Cost(0.5, 1.0, 2.0) for p in PROFILES} for name in TERRAMESH_DTYPES}
    (kind,) = mixes(costs).values()
    by_machine = {(r["cores"], r["network_gbps"]): r["small"] for r in rates(kind)}
    assert by_machine[4, 1] == pytest.approx(0.125e9 / 0.5 / total)
    assert by_machine[4, 400] == pytest.approx(4 / 2.0 * 1e9 / total)


def test_the_tables_hold_the_figures():
    text = codecs(RESULTS)
    of = RESULTS["samples"]["TerraMesh"]
    assert f"{of['balanced']['']['stored'] / of['small']['']['stored']:.3f} x" in text
    assert text.count("| `balanced` |") >= len(RESULTS["samples"])
    assert codecs({}) == ""
