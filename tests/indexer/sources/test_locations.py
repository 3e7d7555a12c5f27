"""Files of many locations that are odd or hostile: each array and each location costs itself only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numcodecs import Zlib

from support.hostile.locations import DATES, IDS, SIDE, N, entries_of, pixels_of, write
from support.hostile.members import TIME_NS
from tensorbank_indexer.containers.limits import ReadLimits
from tensorbank_indexer.source import Finding, RawSample
from tensorbank_indexer.sources import open_source


def everything(root: Path, **options: Any) -> tuple[dict[str, RawSample], list[Finding]]:
    source = open_source(str(root), **options)
    archives, findings = source.archives()
    samples: dict[str, RawSample] = {}
    for archive in archives:
        scan = source.scan(archive)
        samples |= {raw.sample_id: raw for raw in source.read(scan.samples)}
        findings = [*findings, *scan.findings]
    return samples, [*findings, *(f for raw in samples.values() for f in raw.findings)]


def assert_sound(samples: dict[str, RawSample], modality: str, ids: list[str] = IDS) -> None:
    for sample_id in ids:
        expected = pixels_of(modality)[IDS.index(sample_id)]
        np.testing.assert_array_equal(samples[sample_id].modalities[modality].pixels, expected)


def test_sound_files_have_no_findings(tmp_path: Path) -> None:
    samples, findings = everything(write(tmp_path, S2L2A=entries_of("S2L2A"), S1GRD=entries_of("S1GRD")))
    assert findings == []
    assert samples.keys() == set(IDS)
    for modality in ("S2L2A", "S1GRD"):
        assert_sound(samples, modality)


def changed_document(key: str, change: dict[str, Any], modality: str = "S1GRD") -> dict[str, bytes]:
    entries = entries_of(modality)
    return entries | {key: json.dumps(json.loads(entries[key]) | change).encode()}


FILES: dict[str, Callable[[], dict[str, bytes] | bytes]] = {
    "no zip": lambda: b"nothing of the kind" * 9,
    "empty": lambda: b"",
    "no ids": lambda: entries_of("S1GRD", sample=None),
    "no bands": lambda: {k: v for k, v in entries_of("S1GRD").items() if not k.startswith("bands/")},
    "ids of objects": lambda: changed_document("sample/.zarray", {"dtype": "|O"}),
    "deep": lambda: {".zmetadata": b'{"a":' * 3000 + b"}" * 3000},
    "shape huge": lambda: changed_document("bands/.zarray", {"shape": [3, 2, 2, 1 << 20, 1 << 20]}),
    "chunk huge": lambda: changed_document("bands/.zarray", {"chunks": [1 << 20, 1 << 10, 2, 8, 8]}),
    "chunk zero": lambda: changed_document("bands/.zarray", {"chunks": [0, 1, 2, 8, 8]}),
    "no axes": lambda: changed_document("bands/.zarray", {"shape": [], "chunks": []}),
    "codec": lambda: changed_document("bands/.zarray", {"compressor": {"id": "pickle"}}),
    "locations elsewhere": lambda: changed_document(
        "bands/.zattrs", {"_ARRAY_DIMENSIONS": ["time", "sample", "band", "y", "x"]}
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_costs_its_modality_only(tmp_path: Path, name: str) -> None:
    samples, findings = everything(write(tmp_path, S2L2A=entries_of("S2L2A"), S1GRD=FILES[name]()))
    assert_sound(samples, "S2L2A")
    assert {f.modality for f in findings} == {"S1GRD"}
    assert all("S1GRD" not in raw.modalities for raw in samples.values())
    assert all(f.reason.isprintable() and len(f.reason) < 600 for f in findings)


ARRAYS: dict[str, dict[str, Any]] = {
    "x NaN": {"x_": (np.full((N, SIDE), np.nan), ("sample", "x"), {})},
    "x of other axes": {"x_": (np.zeros(N), ("sample",), {})},
    "x short": {"x_": (np.arange(N * 4.0).reshape(N, 4), ("sample", "x"), {})},
    "x text": {"x_": (np.full((N, SIDE), "a"), ("sample", "x"), {})},
    "crs text": {"crs": (np.full(N, "nowhere"), ("sample",), {})},
    "crs none": {"crs": None},
    "lon infinite": {"center_lon": (np.full(N, np.inf), ("sample",), {})},
    "lon one": {"center_lon": (np.array(15.0), (), {})},
    "times text": {"time_": (np.full((N, DATES), "yesterday"), ("sample", "time"), {})},
    "times of no unit": {"time_": (np.zeros((N, DATES), int), ("sample", "time"), {"units": "moons"})},
    "times short": {"time_": (np.full((N, 1), TIME_NS), ("sample", "time"), {})},
    "band names": {"band": (np.array(["a", "a"]), ("band",), {})},
    "file ids": {"file_id": (np.full((N, DATES), b"\xff"), ("sample", "time"), {})},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_odd_small_arrays_leave_the_pixels(tmp_path: Path, name: str) -> None:
    entries = entries_of("S2L2A", **ARRAYS[name])
    samples, findings = everything(write(tmp_path, S2L2A=entries))
    assert_sound(samples, "S2L2A")
    if name not in ("crs none", "lon one", "file ids"):
        assert len(findings) >= N
    for raw in samples.values():
        assert raw.lon is None or np.isfinite(raw.lon)
        assert raw.x is None or np.isfinite(raw.x).all()


def test_locations_without_a_usable_id_are_left_out_by_name(tmp_path: Path) -> None:
    ids = np.array(["0000001", "", "a/b"])
    samples, findings = everything(write(tmp_path, S2L2A=entries_of("S2L2A", sample=(ids, ("sample",), {}))))
    assert samples.keys() == {"0000001"}
    assert [f.kind for f in findings] == ["damaged-id", "damaged-id"]


def test_locations_lie_north_up_and_are_unpacked(tmp_path: Path) -> None:
    pixels = pixels_of("S2L2A")
    y = 4_999_995.0 - 10 * np.arange(SIDE) - np.zeros((N, 1))
    entries = entries_of("S2L2A", pixels[..., ::-1, :], y_=(y[:, ::-1], ("sample", "y"), {}))
    attrs = json.loads(entries["bands/.zattrs"]) | {"scale_factor": 0.5}
    entries["bands/.zattrs"] = json.dumps(attrs).encode()
    samples, findings = everything(write(tmp_path, S2L2A=entries))
    assert {f.kind for f in findings} == {"flipped", "unpacked"}
    for i, sample_id in enumerate(IDS):
        np.testing.assert_array_equal(
            samples[sample_id].modalities["S2L2A"].pixels, pixels[i] * np.float32(0.5)
        )
        np.testing.assert_array_equal(samples[sample_id].y, y[i])


def test_a_damaged_chunk_costs_the_locations_in_it(tmp_path: Path) -> None:
    entries = entries_of("S2L2A")
    entries["bands/0.1.0.0.0"] = b"\xff" * 50
    samples, findings = everything(write(tmp_path, S2L2A=entries))
    assert_sound(samples, "S2L2A", ["0000003"])
    assert {f.member for f in findings if f.kind == "corrupt-chunk"} == {"0000001", "0000002"}


def test_chunks_of_a_location_file_are_bounded(tmp_path: Path) -> None:
    entries = entries_of("S2L2A")
    document = json.loads(entries["bands/.zarray"]) | {"compressor": {"id": "zlib", "level": 1}}
    bomb = {k: v for k, v in entries.items() if not k.startswith("bands/0") and not k.startswith("bands/1")}
    bomb["bands/.zarray"] = json.dumps(document).encode()
    for i in range(2):
        for t in range(DATES):
            bomb[f"bands/{i}.{t}.0.0.0"] = bytes(Zlib(1).encode(bytes(64 << 20)))
    samples, findings = everything(
        write(tmp_path, S1GRD=entries_of("S1GRD"), S2L2A=bomb), limits=ReadLimits(max_sample_bytes=1 << 20)
    )
    assert_sound(samples, "S1GRD")
    assert {f.modality for f in findings} == {"S2L2A"}
