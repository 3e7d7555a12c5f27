"""Broken archives by the hundred: the same mutations as of ``make fuzz``, for as long as a test may take."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.hostile.check import Archive, Locations, check, check_ingest

IN_ONE_FOLDER = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory) -> Locations:
    return Locations(tmp_path_factory.mktemp("fuzz"))


@settings(max_examples=250, deadline=None, suppress_health_check=IN_ONE_FOLDER)
@given(st.randoms(use_true_random=False))
def test_sound_members_are_read_exactly_whatever_lies_beside_them(archive: Archive, rng: Random) -> None:
    assert check(archive, rng) == ""


@settings(max_examples=80, deadline=None, suppress_health_check=IN_ONE_FOLDER)
@given(st.randoms(use_true_random=False))
def test_sound_files_of_locations_are_read_exactly_whatever_lies_beside_them(
    locations: Locations, rng: Random
) -> None:
    assert locations.check(rng) == ""


@settings(max_examples=12, deadline=None, suppress_health_check=IN_ONE_FOLDER)
@given(st.integers(0, 2**40))
def test_sound_members_are_ingested_whatever_lies_beside_them(archive: Archive, number: int) -> None:
    assert check_ingest(archive, Random(number)) == ""


def test_mutations_get_as_far_as_the_readers(archive: Archive) -> None:
    with_findings = lost = 0
    for number in range(40):
        archive.write(Random(number))
        samples, findings = archive.read()
        with_findings += bool(findings)
        lost += any(not raw.modalities for raw in samples)
    assert with_findings >= 15
    assert lost >= 5
