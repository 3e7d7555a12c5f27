"""Every format: each tensor is what was written, each defect has its finding, all else is delivered."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from support.archives import MadeArchives, checksums, make_archives
from tensorbank_indexer.source import Finding, RawSample, Scan, Source
from tensorbank_indexer.sources import open_source

SINGLE = (
    "missing-member",
    "duplicate-key",
    "truncated-tar",
    "deflated-zip",
    "zarr3",
    "corrupt-chunk",
    "shape",
)
TRAPS = [word for trap in (*SINGLE, "s1-order", "ds-store") for word in ("--trap", trap)]
MODALITIES = ["DEM", "LULC", "NDVI", "S2L1C", "S2L2A", "S2RGB"]


def everything(source: Source) -> tuple[list[Scan], list[RawSample], list[Finding]]:
    archives, findings = source.archives()
    scans = [source.scan(archive) for archive in archives]
    samples = [sample for scan in scans for sample in source.read(scan.samples)]
    findings = [*findings, *(f for s in scans for f in s.findings), *(f for s in samples for f in s.findings)]
    return scans, samples, findings


def assert_equal_to_truth(sample: RawSample, rows: dict[int, dict], *, single: bool) -> int:
    """Compare all modalities of a sample but the cloud mask; returns how many tensors (dates) were compared."""
    dates = list(rows.values())
    n = 0
    for modality, raw in sample.modalities.items():
        if modality == "cloud_mask":
            assert raw.pixels.shape == (1 if single else 4, 1, 264, 264)
            assert raw.pixels.dtype == np.uint8
            assert raw.bands == ("cloud_mask",)
            continue
        assert raw.pixels.shape[1] == len(raw.bands)
        assert checksums(raw.pixels) == [d[f"crc32_{modality}"] for d in dates[: len(raw.pixels)]], modality
        n += len(raw.pixels)
        if modality == "DEM":
            assert raw.times_ns is None
        else:
            assert raw.times_ns is not None
            column = "S1_time" if modality.startswith("S1") else "S2_time"
            assert raw.times_ns.tolist() == [d[column].value for d in dates]
            assert len(raw.product_ids) == len(dates)
    return n


@pytest.fixture(scope="module")
def terramesh(tmp_path_factory: pytest.TempPathFactory) -> MadeArchives:
    options = ("--samples", "20", "--per-tar", "8", "--subset", "both")
    return make_archives(tmp_path_factory.mktemp("tm"), "terramesh", *options)


@pytest.fixture(scope="module")
def wds(tmp_path_factory: pytest.TempPathFactory) -> MadeArchives:
    return make_archives(
        tmp_path_factory.mktemp("sw"), "ssl4eo-wds", "--locations", "3", "--per-tar", "2", "--time-chunk", "1"
    )


@pytest.fixture(scope="module")
def zarrs(tmp_path_factory: pytest.TempPathFactory) -> MadeArchives:
    options = ("--files", "2", "--locations-per-file", "3", "--sample-chunk", "2")
    return make_archives(tmp_path_factory.mktemp("sz"), "ssl4eo-zarr", *options, split="val")


@pytest.mark.parametrize("tar_format", ["ustar", "gnu", "pax"])
def test_terramesh_is_read_bit_for_bit(tmp_path: Path, terramesh: MadeArchives, tar_format: str):
    made = terramesh
    if tar_format != "ustar":
        options = ("--samples", "3", "--tar-format", tar_format, "--subset", "both")
        made = make_archives(tmp_path, "terramesh", *options)
    source = open_source(str(made.root))
    scans, samples, findings = everything(source)
    assert source.format == "terramesh"
    assert source.placement == "anywhere"
    assert findings == []
    assert sum(assert_equal_to_truth(s, made.truth[s.ref.stem], single=True) for s in samples) == 7 * len(
        made.truth
    )
    assert {s.ref.stem for s in samples} == made.truth.keys()
    for sample in samples:
        (row,) = made.truth[sample.ref.stem].values()
        assert sample.ref.time_ns == row["S2_time"].value
        assert sample.cloud_cover == (row["cloud_cover"],)
        assert sample.epsg is not None
        assert sample.x.shape == sample.y.shape == (264,)
        assert sample.modalities.keys() >= {*MODALITIES, "cloud_mask"}
        if sample.ref.subset == "majortom":
            assert sample.sample_id == sample.ref.sample_id == row["sample_id"]
            assert (sample.cell_id, sample.location_id) == (row["sample_id"].rsplit("_", 2)[0], None)
            assert "S1RTC" in sample.modalities
        else:
            assert sample.sample_id == sample.ref.sample_id == f"{row['sample_id']}_{row['time_index']}"
            assert (sample.cell_id, sample.location_id) == (None, row["sample_id"])
            assert "S1GRD" in sample.modalities
    for scan in scans:
        assert [ref.position for ref in scan.samples] == list(range(len(scan.samples)))


def test_terramesh_without_tables_and_as_one_split(tmp_path: Path, terramesh: MadeArchives):
    """Ids, places and times then come from the members; the folder of a split finds the table beside it."""
    split = open_source(str(terramesh.root / "train"))
    whole = open_source(str(terramesh.root))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "train").symlink_to(terramesh.root / "train")
    without = open_source(str(bare))

    def refs(source: Source) -> dict:
        scans = [source.scan(a) for a in source.archives()[0]]
        return {
            r.stem: (r.split, r.sample_id, r.time_ns, round(r.lon, 9), round(r.lat, 9))
            for s in scans
            for r in s.samples
        }

    assert refs(split) == refs(whole) == refs(without)
    assert next(iter(split.scan(split.archives()[0][0]).samples)).metadata


def test_scan_tells_addresses_that_hold_the_member(terramesh: MadeArchives):
    source = open_source(str(terramesh.root))
    archive = source.archives()[0][0]
    refs = source.scan(archive).samples[:2]
    assert [len(ref.members) for ref in refs] == [7, 7]
    for ref in refs:
        for address in ref.members.values():
            data = (terramesh.root / address.path).read_bytes()[
                address.offset : address.offset + address.length_bytes
            ]
            assert data.startswith(b"PK\x03\x04")
            assert data[-22:-18] == b"PK\x05\x06"
            assert address.etag.startswith("mtime-")


def test_sources_pickle_to_an_address(terramesh: MadeArchives, zarrs: MadeArchives):
    for made in (terramesh, zarrs):
        source = open_source(str(made.root))
        archive = source.archives()[0][0]
        refs = source.scan(archive).samples[:1]
        first = next(iter(source.read(refs)))
        copied, copied_refs = pickle.loads(pickle.dumps((source, refs)))
        again = next(iter(copied.read(copied_refs)))
        assert again.modalities.keys() == first.modalities.keys()
        assert len(pickle.dumps(source)) < 2000


def test_webdataset_is_read_bit_for_bit(wds: MadeArchives):
    source = open_source(str(wds.root))
    _, samples, findings = everything(source)
    assert source.format == "ssl4eo-s12-wds"
    assert findings == []
    assert sum(assert_equal_to_truth(s, wds.truth[s.ref.stem], single=False) for s in samples) == 3 * 25
    for sample in samples:
        assert sample.sample_id == sample.location_id == wds.truth[sample.ref.stem][0]["sample_id"]
        assert len(sample.cloud_cover) == 4
        assert sample.modalities["DEM"].pixels.shape == (1, 1, 264, 264)


def test_zarr_files_are_read_bit_for_bit(zarrs: MadeArchives):
    source = open_source(str(zarrs.root))
    _, samples, findings = everything(source)
    assert source.format == "ssl4eo-s12-zarr"
    assert source.placement == "archive"
    assert findings == []
    assert sum(assert_equal_to_truth(s, zarrs.by_id[s.sample_id], single=False) for s in samples) == 6 * 16
    for sample in samples:
        assert sample.ref.stem == sample.sample_id == sample.location_id
        assert sample.ref.time_ns == zarrs.by_id[sample.sample_id][0]["S2_time"].value
        assert np.diff(sample.x).tolist() == [10.0] * 263
        assert np.diff(sample.y).tolist() == [-10.0] * 263


# ---------------------------------------------------------------- defects


def kinds(findings: list[Finding]) -> dict[str, set[tuple[str, str]]]:
    out: dict[str, set[tuple[str, str]]] = {}
    for found in findings:
        out.setdefault(found.kind, set()).add((found.member, found.modality))
    return out


def planted(made: MadeArchives, name: str) -> set[tuple[str, str]]:
    return {(t["member"].removesuffix(".zarr.zip"), t.get("modality", "")) for t in made.trap(name)}


@pytest.fixture(scope="module")
def broken_terramesh(tmp_path_factory: pytest.TempPathFactory) -> MadeArchives:
    options = ("--samples", "24", "--per-tar", "12", "--subset", "majortom", "--trap", "nan-only-band")
    traps = [word for trap in (*SINGLE, "ds-store") for word in ("--trap", trap)]
    return make_archives(tmp_path_factory.mktemp("btm"), "terramesh", *options, *traps)


@pytest.fixture(scope="module")
def broken_wds(tmp_path_factory: pytest.TempPathFactory) -> MadeArchives:
    return make_archives(
        tmp_path_factory.mktemp("bsw"), "ssl4eo-wds", "--locations", "13", "--per-tar", "7", *TRAPS
    )


@pytest.fixture(scope="module")
def broken_zarrs(tmp_path_factory: pytest.TempPathFactory) -> MadeArchives:
    options = ("--files", "6", "--locations-per-file", "2", "--sample-chunk", "1")
    return make_archives(tmp_path_factory.mktemp("bsz"), "ssl4eo-zarr", *options, *TRAPS, split="val")


@pytest.mark.parametrize("name", ["broken_terramesh", "broken_wds"])
def test_each_defect_of_tars_has_its_finding(name: str, request: pytest.FixtureRequest):
    made: MadeArchives = request.getfixturevalue(name)
    scans, samples, findings = everything(open_source(str(made.root)))
    found = kinds(findings)
    assert planted(made, "missing-member") <= found["missing-member"]
    assert found["deflated-entries"] == planted(made, "deflated-zip")
    assert found["zarr-v3"] == planted(made, "zarr3")
    assert found["corrupt-chunk"] == planted(made, "corrupt-chunk")
    assert found["footprint-mismatch"] == planted(made, "shape")
    assert found["truncated-archive"] == {("", "S2L1C")}
    assert {member.rpartition("/")[2] for member, _ in found["stray-file"]} == {".DS_Store"}
    assert found.keys() <= {
        *("missing-member", "deflated-entries", "zarr-v3", "corrupt-chunk", "footprint-mismatch"),
        *("truncated-archive", "stray-file", "duplicate-member", "sample-id-mismatch", "s1-order"),
    }
    (duplicate,) = made.trap("duplicate-key")
    stem = duplicate["member"].removesuffix(".zarr.zip")
    places = [ref.archive for scan in scans for ref in scan.samples if ref.stem == stem]
    assert len(places) == 2 or {m for m, _ in found["duplicate-member"]} == {stem}
    assert {s.ref.stem for s in samples} == made.truth.keys()
    # What carries no defect is what was written; the defects change one modality each.
    seen: set[str] = set()
    for sample in samples:
        if sample.ref.stem in seen:
            continue
        seen.add(sample.ref.stem)
        rows = [made.truth[sample.ref.stem][t] for t in sorted(made.truth[sample.ref.stem])]
        for modality, raw in sample.modalities.items():
            touched = {
                m for t in ("shape", "nan-only-band") for k, m in planted(made, t) if k == sample.ref.stem
            }
            if modality == "cloud_mask" or modality in touched or modality == "S1GRD":
                continue
            assert checksums(raw.pixels) == [r[f"crc32_{modality}"] for r in rows[: len(raw.pixels)]]
        for modality in {m for k, m in planted(made, "shape") if k == sample.ref.stem}:
            assert sample.modalities[modality].pixels.shape[2:] == (263, 264)


@pytest.mark.parametrize("name", ["broken_wds", "broken_zarrs"])
def test_dates_of_sentinel_1_are_put_in_order(name: str, request: pytest.FixtureRequest):
    made: MadeArchives = request.getfixturevalue(name)
    _, samples, findings = everything(open_source(str(made.root)))
    wrong = {t["member"] for t in made.trap("s1-order")}
    ids = {s.ref.stem: s.sample_id for s in samples}
    reported = {ids[f.member] for f in findings if f.kind == "s1-order"}
    duplicates = {t["member"] for t in made.trap("duplicate-key")}
    # The maker renames the last location of zarr files to the duplicate, after it noted its dates.
    assert (reported ^ wrong) & (made.by_id.keys() - duplicates) == set()
    assert reported
    for sample in samples:
        rows = made.by_id[sample.sample_id]
        if sample.sample_id not in reported or {r["sample_id"] for r in rows.values()} != {sample.sample_id}:
            continue
        raw = sample.modalities["S1GRD"]
        stored = {rows[t]["S1_file_id"]: rows[t]["crc32_S1GRD"] for t in rows}
        if not set(raw.product_ids) <= stored.keys():
            continue
        assert np.all(np.diff(raw.times_ns) > 0)
        assert checksums(raw.pixels) == [stored[i] for i in raw.product_ids]
        stamps = [
            np.datetime64(f"{i[17:21]}-{i[21:23]}-{i[23:25]}T{i[26:28]}:{i[28:30]}:{i[30:32]}", "ns")
            for i in raw.product_ids
        ]
        assert [int(s.astype(np.int64)) for s in stamps] == raw.times_ns.tolist()


def test_each_defect_of_zarr_files_has_its_finding(broken_zarrs: MadeArchives):
    scans, samples, findings = everything(open_source(str(broken_zarrs.root)))
    by_kind = {
        kind: Counter((f.archive.rpartition("/")[2], f.modality) for f in findings if f.kind == kind)
        for kind in kinds(findings)
    }

    def files(name: str) -> set[tuple[str, str]]:
        return planted(broken_zarrs, name)

    assert by_kind["missing-member"].keys() == files("missing-member")
    assert by_kind["deflated-entries"].keys() == files("deflated-zip")
    assert by_kind["zarr-v3"].keys() == files("zarr3")
    assert by_kind["corrupt-chunk"].keys() == files("corrupt-chunk")
    assert by_kind["footprint-mismatch"].keys() == files("shape")
    assert by_kind["truncated-archive"].keys() == files("truncated-tar")
    stems = Counter(ref.stem for scan in scans for ref in scan.samples)
    assert [stem for stem, n in stems.items() if n > 1] == [
        t["member"] for t in broken_zarrs.trap("duplicate-key")
    ]
    for sample in samples[:-1]:
        name = sample.ref.archive.rpartition("/")[2]
        for modality, raw in sample.modalities.items():
            if modality in ("cloud_mask", "S1GRD") or (name, modality) in files("shape"):
                continue
            rows = broken_zarrs.by_id[sample.sample_id]
            assert checksums(raw.pixels) == [rows[t][f"crc32_{modality}"] for t in range(4)]
