"""Answers from the index against brute force over the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorbank as tb
from tensorbank.statistics.band_stats import QUANTILES, bin_edges
from tensorbank.statistics.summaries import bracket_quantiles, histogram_quantiles, merge_moments
from tensorbank_indexer import IngestOptions, ingest, open_source

samples = st.lists(
    hnp.arrays(np.int16, st.integers(1, 60), elements=st.integers(-2000, 12000)), min_size=1, max_size=8
)


@given(samples)
def test_the_quantile_of_a_union_lies_in_its_bracket(parts):
    knots, valid = [], []
    for part in parts:
        middle = [np.quantile(part, p, method="lower") for _, p in QUANTILES]
        knots.append([part.min(), *middle, part.max()])
        valid.append(part.size)
    found = bracket_quantiles(np.array(knots, np.float64), np.array(valid))
    union = np.concatenate(parts)
    for name, p in QUANTILES:
        true = np.quantile(union, p, method="lower")
        assert found[name].low <= true <= found[name].high
        assert found[name].low <= found[name].estimate <= found[name].high


@given(samples)
def test_a_histogram_brackets_to_one_bin(parts):
    union = np.concatenate(parts).astype(np.float64)
    counts = np.bincount(np.searchsorted(bin_edges(), union, side="right") - 1, minlength=len(bin_edges()))
    found = histogram_quantiles(counts, float(union.min()), float(union.max()))
    for name, p in QUANTILES:
        true = np.quantile(union, p, method="lower")
        assert found[name].low <= true <= found[name].high
        assert found[name].high - found[name].low <= max(abs(true) * 0.033, 1e-5)


@given(samples)
def test_moments_merge_to_those_of_the_union(parts):
    mean, std = merge_moments(
        np.array([p.size for p in parts]),
        np.array([p.mean() for p in parts]),
        np.array([p.std() for p in parts]),
    )
    union = np.concatenate(parts).astype(np.float64)
    assert mean == pytest.approx(union.mean(), rel=1e-12, abs=1e-9)
    assert std == pytest.approx(union.std(), rel=1e-9, abs=1e-6)


@pytest.fixture(scope="module")
def table(make_archives, tmp_path_factory):
    source, _ = make_archives("terramesh", "--samples", "12", "--per-tar", "12", "--subset", "both")
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    ingest(open_source(str(source)), bank, "t", IngestOptions(n_workers=1, samples_per_shard=4))
    ((_, url),) = bank.table("t").parts().items()
    return bank, zarr.open_group(url.removeprefix("file://"), mode="r")


@pytest.mark.parametrize("where", ["true", "cloud_cover < 0.3", "NDVI.mean > 0.2 AND S1RTC IS NOT NULL"])
def test_a_selection_s_statistics_are_those_of_its_pixels(table, where):
    bank, group = table
    query = bank.sql(f"SELECT S2L2A, NDVI, LULC, S1RTC FROM t WHERE {where}")
    for name in ("S2L2A", "NDVI", "LULC", "S1RTC"):
        rows = bank.sql(f"SELECT {name}.ref.row AS r FROM t WHERE {name} IS NOT NULL AND ({where})").arrow()[
            "r"
        ]
        pixels = group[name][:][rows.to_pylist()].astype(np.float64)
        found = query.statistics(name)
        assert found.n_samples == len(rows) > 0
        if name == "LULC":
            assert found.shares["trees"] == pytest.approx((pixels == 2).mean(), rel=1e-12)
            assert sum(found.shares.values()) == pytest.approx(1.0)
            continue
        for b, summary in enumerate(found.bands):
            band = pixels[:, :, b][~np.isnan(pixels[:, :, b])]
            assert (summary.count, summary.valid) == (pixels[:, :, b].size, band.size)
            assert (summary.min, summary.max) == (band.min(), band.max())
            assert summary.mean == pytest.approx(band.mean(), rel=1e-12)
            assert summary.std == pytest.approx(band.std(), rel=1e-9)
            for quantile, p in QUANTILES:
                true = np.quantile(band, p, method="lower")
                assert summary.quantiles[quantile].low <= true <= summary.quantiles[quantile].high


def test_a_table_is_described_by_its_shards_as_by_its_samples(table):
    bank, _ = table
    everything = bank.sql("SELECT * FROM t")
    described = bank.table("t").describe()
    assert list(described) == list(bank.table("t").schema.names)
    for name, by_shard in described.items():
        by_sample = everything.statistics(name)
        assert by_shard.n_samples == by_sample.n_samples
        if by_shard.shares is not None:
            assert by_shard.shares == pytest.approx(by_sample.shares)
        for a, b in zip(by_shard.bands, by_sample.bands, strict=True):
            assert (a.count, a.valid, a.min, a.max) == (b.count, b.valid, b.min, b.max)
            assert (a.mean, a.std) == pytest.approx((b.mean, b.std), rel=1e-9)


def test_nothing_selected_gives_empty_statistics(table):
    bank, _ = table
    found = bank.sql("SELECT S2L2A, LULC FROM t WHERE false")
    assert found.statistics("S2L2A")["B04"].mean is None
    assert found.statistics("S2L2A").n_samples == 0
    assert set(found.statistics("LULC").shares.values()) == {0.0}


def test_what_cannot_be_summarised_is_said(table):
    bank, _ = table
    with pytest.raises(tb.InvalidInputError, match="S2L2A"):
        bank.sql("SELECT S2L2A FROM t").statistics("S2L2B")
    with pytest.raises(tb.InvalidInputError, match=r"bands\(\)"):
        bank.sql("SELECT bands(S2L2A, ['B04']) AS S2L2A FROM t").statistics("S2L2A")
    with pytest.raises(tb.NotFoundError, match="B08"):
        bank.sql("SELECT S2L2A FROM t").statistics("S2L2A")["B80"]


def test_profiles_have_a_number_for_each_band(table):
    bank, _ = table
    for profile in ("terramesh", "terramind-v1", "ssl4eo-s12-v1.1"):
        for modality in bank.table("t").schema:
            if modality.categorical or (profile.startswith("ssl4eo") and modality.name == "S1RTC"):
                continue
            constants = tb.normalization(profile, modality.name)
            assert len(constants.mean) == len(constants.std) == len(modality.bands)
    assert tb.normalization("terramesh", "S2L2A").mean[7] == 3083.248
    with pytest.raises(tb.NotFoundError, match="terramesh"):
        tb.normalization("terramash", "S2L2A")
    with pytest.raises(tb.NotFoundError, match="no constants"):
        tb.normalization("terramesh", "LULC")
