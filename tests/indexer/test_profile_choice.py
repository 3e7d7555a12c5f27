"""The choice of a codec profile: arithmetic on bytes and published rates, the same however often an ingest is started."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import tensorbank as tb
from tensorbank.cli import main
from tensorbank.plans.forecast import DECODE_MB_PER_S
from tensorbank.reading import DECODE_S_PER_GB, DEFAULT_PROFILE, PROFILES
from tensorbank.schema import Band, Modality
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_indexer.profile_choice import ProfileTrial, ReadingMachine, choose_profile

SHARES = {"small": 0.36, "balanced": 0.38, "hot": 0.40, "raw": 1.0}
RATES = {"small": 1.0, "balanced": 0.5, "hot": 0.25, "raw": 0.1}


@pytest.mark.parametrize(
    ("cores", "gbps", "profile"),
    [
        (4, 1, "small"),  # 0.125 GB/s of network: 0.347 GB/s, 0.329, 0.3125, 0.125
        (64, 10, "small"),  # the network gives small 3.47 GB/s, balanced 3.29
        (2, 10, "balanced"),  # decoding gives small 2 GB/s; the network balanced 3.29, hot 3.125
        (
            2,
            40,
            "hot",
        ),  # decoding gives balanced 4, hot 8, of which the network brings 12.5; raw 5 by the network
        (2, 400, "raw"),  # hot 8 by decoding, raw 20
    ],
)
def test_the_smallest_that_is_as_good_as_the_fastest(cores, gbps, profile):
    found = choose_profile(SHARES, ReadingMachine(cores, gbps), RATES)
    assert found.profile == profile
    assert f"codec profile {profile}:" in found.reason
    assert f"{cores} cores at {gbps} Gbit/s" in found.reason


@given(
    st.dictionaries(st.sampled_from(PROFILES), st.floats(0.01, 1.2), min_size=1),
    st.integers(1, 256),
    st.floats(0.1, 1000),
)
def test_nothing_smaller_is_as_good(shares, cores, gbps):
    chosen = choose_profile(shares, ReadingMachine(cores, gbps)).profile
    seconds = {p: max(share * 8 / gbps, DECODE_S_PER_GB[p] / cores) for p, share in shares.items()}
    as_good = {p for p, s in seconds.items() if s <= min(seconds.values()) / 0.95 * (1 + 1e-9)}
    assert chosen in as_good
    assert shares[chosen] == min(shares[p] for p in as_good) or any(
        abs(s * 0.95 / min(seconds.values()) - 1) < 1e-6 for s in seconds.values()
    )


@pytest.mark.parametrize(("cores", "gbps"), [(0, 10), (1, 0), (1, -1), (1, float("nan"))])
def test_a_machine_that_reads_nothing_is_refused(cores, gbps):
    with pytest.raises(tb.InvalidInputError, match="reading machine"):
        ReadingMachine(cores, gbps)


def test_modalities_count_as_often_as_they_are_seen():
    """Four bands that hold noise and one that holds nothing: a fifth of the bytes vanish, however many blocks were tried."""
    noise = Modality("noise", "int32", tuple(Band(f"b{i}") for i in range(4)), 1, 64, 64)
    empty = Modality("empty", "int32", (Band("b"),), 1, 64, 64)
    rng = np.random.default_rng(0)
    trial = ProfileTrial()
    for _ in range(20):  # 80 blocks of noise, of which 48 are tried
        trial.add(noise, rng.integers(-(2**31), 2**31, (1, 4, 64, 64)).astype(np.int32))
        trial.add(empty, np.zeros((1, 1, 64, 64), np.int32))
    shares = trial.stored_shares()
    assert shares.keys() == set(PROFILES)
    assert shares["raw"] == pytest.approx(1.0, abs=0.002)
    assert shares["small"] == pytest.approx(0.8, abs=0.01)


def test_nothing_seen_is_nothing_gained():
    trial = ProfileTrial()
    trial.add(Modality("M", "int16", (Band("b"),), 1, 4, 4), np.empty((0, 1, 4, 4), np.int16))
    assert trial.stored_shares() == dict.fromkeys(PROFILES, 1.0)


def test_the_published_rates_are_those_of_the_forecast():
    assert DECODE_S_PER_GB.keys() == set(PROFILES)
    assert pytest.approx(1e3 / DECODE_S_PER_GB[DEFAULT_PROFILE]) == DECODE_MB_PER_S


def test_the_command_says_what_it_chose_and_why(write_members, tmp_path, capsys):
    arguments = [str(write_members(3)), str(tmp_path / "bank"), "--table", "t", "--workers", "1"]
    assert main(["ingest", *arguments, "--profile", "auto", "--reader-cores", "3"]) == 0
    (line,) = [text for text in capsys.readouterr().out.splitlines() if "codec profile" in text]
    (part,) = (tmp_path / "bank/t/tensors").glob("part-*[0-9a-f]")
    chosen = zarr.open_group(part, mode="r").attrs["codec_profile"]
    assert line.strip().startswith(f"codec profile {chosen}: ")
    assert "3 cores at 25 Gbit/s" in line


class InterruptedIngestError(Exception):
    """Somebody pressed a key."""


@pytest.mark.parametrize(("cores", "profile"), [(1, "hot"), (64, "small")])
def test_an_interrupted_ingest_comes_to_the_same_choice(make_archives, tmp_path, cores, profile):
    folder, _ = make_archives("terramesh", "--samples", "12", "--per-tar", "6", "--subset", "both")
    options = IngestOptions(
        profile="auto", reader_cores=cores, reader_network_gbps=10, n_workers=1, samples_per_shard=4
    )

    def interrupt(stage: str, _done: int, _total: int) -> None:
        if stage == "write":
            raise InterruptedIngestError

    bank = tb.create(tmp_path)
    with pytest.raises(InterruptedIngestError):
        ingest(open_source(str(folder)), bank, "t", options, progress=interrupt)
    report = ingest(open_source(str(folder)), bank, "t", options)
    assert report.n_added == 12
    assert report.n_resumed == 4
    (line,) = report.choices
    assert f"codec profile {profile}:" in line
    (part,) = report.parts
    attributes = zarr.open_group(tmp_path / "t/tensors" / part, mode="r").attrs
    assert attributes["codec_profile"] == profile
    assert attributes["codec_choice"] == line
    assert json.loads((tmp_path / f"t/tensors/{part}.ingest.json").read_text())["choices"] == [line]
    asked = tb.create(tmp_path / "asked")
    same = ingest(
        open_source(str(folder)), asked, "t", IngestOptions(profile=profile, n_workers=1, samples_per_shard=4)
    )
    assert (same.parts, same.stored_bytes, same.choices) == ([part], report.stored_bytes, [])
