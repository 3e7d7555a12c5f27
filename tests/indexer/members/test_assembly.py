"""Members that disagree: times, ids and places."""

from __future__ import annotations

import numpy as np
import pytest

from tensorbank_indexer.cf.position import Position
from tensorbank_indexer.members.assembly import Assembly
from tensorbank_indexer.members.member import Member
from tensorbank_indexer.source import MemberAddress, RawSample, SampleRef

DAY = 86_400 * 10**9
TIME = int(np.datetime64("2021-07-21T08:40:10", "ns").astype(np.int64))
S1_ID = "S1A_IW_GRDH_1SDV_{0}_{0}_025147_05CE31_3A8B"


def stamp(time_ns: int) -> str:
    return str(np.datetime64(time_ns, "ns").astype("M8[s]")).replace("-", "").replace(":", "")


def member(
    sample_id: str = "a", times: list[int] | None = None, ids: tuple[str, ...] = (), x0: float = 0.0
) -> Member:
    times = [TIME] if times is None else times
    pixels = np.arange(len(times), dtype=np.int16).reshape(-1, 1, 1, 1)
    x = np.arange(4.0) * 10 + x0
    position = Position(sample_id, 32633, 1.0, 2.0, x, x[::-1], np.array(times, dtype=np.int64), ids)
    return Member(position, pixels=pixels, bands=("b",))


def assembled(members: dict[str, Member], ref_id: str = "a") -> tuple[RawSample, list[tuple[str, str]]]:
    addresses = {name: MemberAddress(f"{name}.tar", 0, 1, "e") for name in members}
    assembly = Assembly(SampleRef("train/x", "train", "ssl4eos12", "stem", ref_id, 1.0, 2.0, TIME, addresses))
    for name, item in members.items():
        assembly.add(name, item)
    sample = assembly.finish()
    return sample, [(f.kind, f.modality) for f in sample.findings]


def test_members_that_agree_have_no_findings():
    sample, findings = assembled({"S2L2A": member(), "S2L1C": member(), "DEM": member(times=[0])})
    assert findings == []
    assert sample.modalities["DEM"].times_ns is None
    assert sample.epsg == 32633


@pytest.mark.parametrize("damaged", [-TIME, 0, 9 * 10**18])
def test_damaged_times_are_taken_from_the_id_or_left_out(damaged: int):
    ids = tuple(f"{stamp(TIME + i * DAY)}_{stamp(TIME + i * DAY)}_T10SGF" for i in range(2))
    sample, findings = assembled({"S2L2A": member(times=[TIME, damaged], ids=ids)})
    assert findings == [("damaged-time", "S2L2A")]
    assert sample.modalities["S2L2A"].times_ns.tolist() == [TIME, TIME + DAY]
    sample, findings = assembled({"S2L2A": member(times=[TIME, damaged])})
    assert findings == [("damaged-time", "S2L2A")]
    assert sample.modalities["S2L2A"].times_ns is None


def test_one_date_of_sentinel_1_keeps_its_pixels_and_gets_the_time_of_its_id():
    wrong = member(times=[TIME + 90 * DAY], ids=(S1_ID.format(stamp(TIME)),))
    sample, findings = assembled({"S1GRD": wrong})
    assert findings == [("s1-order", "S1GRD")]
    assert sample.modalities["S1GRD"].times_ns.tolist() == [TIME]


def test_dates_in_the_order_of_ids_are_reordered():
    times = [TIME + i * 90 * DAY for i in range(4)]
    ids = tuple(S1_ID.format(stamp(times[i])) for i in (2, 0, 3, 1))
    sample, findings = assembled({"S1GRD": member(times=times, ids=ids)})
    assert findings == [("s1-order", "S1GRD")]
    raw = sample.modalities["S1GRD"]
    assert raw.pixels.ravel().tolist() == [1, 3, 0, 2]
    assert raw.times_ns.tolist() == times
    assert [i[17:32] for i in raw.product_ids] == [stamp(t) for t in times]


def test_another_id_at_the_same_place_is_kept_at_another_place_left_out():
    same = {"S2L2A": member(), "S2L1C": member(), "DEM": member("b")}
    sample, findings = assembled(same)
    assert findings == [("sample-id-mismatch", "DEM")]
    assert "DEM" in sample.modalities
    other = {"S2L2A": member(), "S2L1C": member(), "DEM": member("b", x0=5.0)}
    sample, findings = assembled(other)
    assert findings == [("footprint-mismatch", "DEM"), ("sample-id-mismatch", "DEM")]
    assert sample.modalities.keys() == {"S2L2A", "S2L1C"}
    assert sample.x[0] == 0.0


def test_a_table_that_names_another_sample_is_reported():
    sample, findings = assembled({"S2L2A": member(), "S2L1C": member()}, ref_id="z")
    assert findings == [("sample-id-mismatch", "")]
    assert sample.sample_id == "a"


def test_a_sample_without_readable_modality_is_still_one():
    sample, findings = assembled({})
    assert sample.modalities == {}
    assert (sample.sample_id, sample.lon, sample.lat) == ("a", 1.0, 2.0)
    assert findings == []


@pytest.mark.parametrize("order", [("S2L2A", "S1GRD"), ("S1GRD", "S2L2A")])
def test_of_two_sizes_the_square_one_is_believed(order: tuple[str, str]):
    cut = member()
    cut.position.y = cut.position.y[:-1]
    cut.pixels = np.zeros((1, 1, 3, 4), np.int16)
    sample, findings = assembled({name: cut if name == "S2L2A" else member() for name in order})
    assert findings == [("footprint-mismatch", "S2L2A")]
    assert "3 x 4 and 4 x 4" in sample.findings[0].reason
    assert "S1GRD" in sample.findings[0].reason
    assert len(sample.y) == 4
