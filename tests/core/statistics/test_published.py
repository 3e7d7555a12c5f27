"""Published constants of normalisation."""

from __future__ import annotations

import pytest

from tensorbank import NotFoundError
from tensorbank.statistics import normalization
from tensorbank.statistics.published import PROFILE_NAMES

N_BANDS = {"S2L1C": 13, "S2L2A": 12, "S2RGB": 3, "NDVI": 1, "DEM": 1, "S1GRD": 2, "S1RTC": 2}


@pytest.mark.parametrize("profile", ["ssl4eo-s12-v1.1", "terramesh", "terramind-v1"])
def test_each_band_has_a_mean_and_a_deviation(profile):
    found = 0
    for modality, n_bands in N_BANDS.items():
        if (profile, modality) == ("ssl4eo-s12-v1.1", "S1RTC"):
            continue
        constants = normalization(profile, modality)
        assert len(constants.mean) == len(constants.std) == n_bands, modality
        assert min(constants.std) > 0, modality
        found += 1
    assert found >= len(N_BANDS) - 1
    assert profile in PROFILE_NAMES


def test_releases_disagree_by_the_offset_of_processing_baselines():
    old, new = normalization("terramesh", "S2L2A"), normalization("ssl4eo-s12-v1.1", "S2L2A")
    assert old.mean[0] == 1390.461
    assert new.mean[0] == 793.243


def test_names_that_are_nearly_right_are_suggested():
    with pytest.raises(NotFoundError, match="terramesh") as caught:
        normalization("terramsh", "S2L2A")
    assert caught.value.kind == "unknown-profile"
    with pytest.raises(NotFoundError, match="S2L2A") as caught:
        normalization("terramesh", "S2L3A")
    assert caught.value.kind == "unknown-modality"
