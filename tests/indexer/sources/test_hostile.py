"""Members that are damaged, odd or hostile: each costs itself and is named, all others are ingested exactly."""

from __future__ import annotations

import errno
import json
import resource
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.hostile.members import (
    TIME_NS,
    array_entries,
    member,
    member_entries,
    pixels_of,
    sample_of,
    sound_members,
    stem_of,
    tar_of,
    write_tars,
    zipped,
)
from tensorbank.errors import FormatError, StorageError
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_indexer.containers.limits import ReadLimits
from tensorbank_indexer.members.member import read_member

INLINE = IngestOptions(n_workers=1, samples_per_shard=16)
DEEP = 3000
FIRST_HOSTILE = 1000


def with_document(number: int, key: str, change: Callable[[Any], Any], entry: str = "bands/.zarray") -> bytes:
    """A member of which one document was changed, in the consolidated metadata."""
    entries = member_entries(pixels_of(number), sample=sample_of(number))
    whole = json.loads(zipped_metadata(entries))
    whole["metadata"][entry][key] = change(whole["metadata"][entry].get(key))
    return zipped(entries | {".zmetadata": json.dumps(whole).encode()})


def zipped_metadata(entries: dict[str, bytes]) -> bytes:
    documents = {k: json.loads(v) for k, v in entries.items() if k.rpartition("/")[2].startswith(".z")}
    return json.dumps({"zarr_consolidated_format": 1, "metadata": documents}).encode()


def to(value: Any) -> Callable[[Any], Any]:
    return lambda _given: value


def odd_array(name: str, data: Any, number: int, **metadata: Any) -> bytes:
    """A member one small array of which is another."""
    entries = member_entries(pixels_of(number), sample=sample_of(number), drop=[name])
    return zipped(entries | array_entries(name, data, ["d"] * np.asarray(data).ndim, **metadata))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


Hostile = Callable[[int], bytes]
UNREADABLE: dict[str, Hostile] = {
    "shape huge": lambda i: with_document(i, "shape", to([1, 1, 1 << 30, 1 << 30])),
    "shape beyond sizes": lambda i: with_document(i, "shape", to([1, 1, 10**30, 16])),
    "shape negative": lambda i: with_document(i, "shape", to([1, 1, -16, 16])),
    "shape float": lambda i: with_document(i, "shape", to([1, 1, 16.5, 16])),
    "shape text": lambda i: with_document(i, "shape", to("16x16")),
    "shape texts": lambda i: with_document(i, "shape", to(["1", "1", "16", "16"])),
    "shape bool": lambda i: with_document(i, "shape", to([True, True, 16, 16])),
    "shape null": lambda i: with_document(i, "shape", to(None)),
    "shape nested": lambda i: with_document(i, "shape", to([[1], [1], [16], [16]])),
    "shape of no axes": lambda i: with_document(i, "shape", to([])),
    "shape of many axes": lambda i: with_document(i, "shape", to([1] * 100)),
    "shape zero": lambda i: with_document(i, "shape", to([1, 1, 0, 16])),
    "chunk zero": lambda i: with_document(i, "chunks", to([1, 1, 0, 16])),
    "chunk negative": lambda i: with_document(i, "chunks", to([1, 1, -1, 16])),
    "chunk huge": lambda i: with_document(i, "chunks", to([1, 1, 1 << 40, 16])),
    "chunk short": lambda i: with_document(i, "chunks", to([16, 16])),
    "chunk null": lambda i: with_document(i, "chunks", to(None)),
    "dtype object": lambda i: with_document(i, "dtype", to("|O")),
    "dtype nonsense": lambda i: with_document(i, "dtype", to("<q99")),
    "dtype number": lambda i: with_document(i, "dtype", to(2)),
    "dtype structured": lambda i: with_document(i, "dtype", to([["a", "<i2"]])),
    "dtype void": lambda i: with_document(i, "dtype", to("|V999999999")),
    "dtype complex": lambda i: with_document(i, "dtype", to("<c8")),
    "dtype text": lambda i: with_document(i, "dtype", to("<U1")),
    "dtype times": lambda i: with_document(i, "dtype", to("<M8[ns]")),
    "dtype wrong size": lambda i: with_document(i, "dtype", to("<f8")),
    "fill text": lambda i: with_document(i, "fill_value", to("nothing")),
    "fill list": lambda i: with_document(i, "fill_value", to([1, 2])),
    "fill object": lambda i: with_document(i, "fill_value", to({"a": 1})),
    "fill beyond type": lambda i: with_document(i, "fill_value", to(10**30)),
    "order": lambda i: with_document(i, "order", to("Z")),
    "order list": lambda i: with_document(i, "order", to([0, 1])),
    "separator": lambda i: with_document(i, "dimension_separator", to("../")),
    "separator number": lambda i: with_document(i, "dimension_separator", to(5)),
    "compressor list": lambda i: with_document(i, "compressor", to([1])),
    "compressor text": lambda i: with_document(i, "compressor", to("blosc")),
    "compressor unknown": lambda i: with_document(i, "compressor", to({"id": "sprintz"})),
    "compressor pickle": lambda i: with_document(i, "compressor", to({"id": "pickle"})),
    "compressor other": lambda i: with_document(i, "compressor", to({"id": "zlib"})),
    "filters object": lambda i: with_document(i, "filters", to({"id": "delta"})),
    "filters nonsense": lambda i: with_document(i, "filters", to([5])),
    "filters scale zero": lambda i: with_document(
        i, "filters", to([{"id": "fixedscaleoffset", "offset": 0, "scale": 0, "dtype": "<i2"}])
    ),
    "dims of others": lambda i: with_document(
        i, "_ARRAY_DIMENSIONS", to(["x", "y", "q", "p"]), "bands/.zattrs"
    ),
    "dims twice": lambda i: with_document(i, "_ARRAY_DIMENSIONS", to(["y", "y", "y", "x"]), "bands/.zattrs"),
    "dims number": lambda i: with_document(i, "_ARRAY_DIMENSIONS", to(4), "bands/.zattrs"),
    "dims too few": lambda i: with_document(i, "_ARRAY_DIMENSIONS", to(["y", "x"]), "bands/.zattrs"),
    "metadata deep": lambda i: zipped({".zmetadata": b'{"a":' * DEEP + b"1" + b"}" * DEEP}),
    "metadata deep shape": lambda i: with_document(i, "shape", to(nested(900))),
    "metadata list": lambda i: zipped({".zmetadata": b"[1, 2]"}),
    "metadata text": lambda i: zipped({".zmetadata": b'"abc"'}),
    "metadata of lists": lambda i: zipped({".zmetadata": b'{"zarr_consolidated_format": 1, "metadata": []}'}),
    "metadata of numbers": lambda i: zipped(
        {
            ".zmetadata": b'{"zarr_consolidated_format": 1, "metadata": {"bands/.zarray": 5, "bands/.zattrs": 5}}'
        }
    ),
    "metadata not utf-8": lambda i: zipped({".zmetadata": b"\xff\xfe\x00"}),
    "metadata empty": lambda i: zipped({".zmetadata": b""}),
    "v3 nonsense": lambda i: zipped({"zarr.json": b'{"consolidated_metadata": {"metadata": {"bands": []}}}'}),
    "v3 group only": lambda i: zipped({"zarr.json": b'{"node_type": "group"}'}),
    "no zip": lambda i: b"not a zip archive at all" * 20,
    "empty": lambda i: b"",
    "cut off": lambda i: member(pixels_of(i))[:-200],
    "no group": lambda i: zipped({"readme": b"nothing"}, consolidated=False),
    "no bands": lambda i: zipped(member_entries(pixels_of(i), drop=["bands"])),
    "chunk damaged": lambda i: zipped(member_entries(pixels_of(i)) | {"bands/0.0.0.0": b"\xff" * 700}),
    "chunk of another": lambda i: zipped(
        member_entries(pixels_of(i)) | {"bands/0.0.0.0": zlib.compress(b"1" * 99)}
    ),
}
"""The members of which no pixel can be used."""


def with_array(name: str, data: Any, **metadata: Any) -> Hostile:
    return lambda i: odd_array(name, data, i, **metadata)


USABLE: dict[str, Hostile] = {
    "x NaN": with_array("x", np.full(16, np.nan)),
    "x one NaN": with_array("x", np.where(np.arange(16) == 3, np.nan, 10.0 * np.arange(16))),
    "x infinite": with_array("x", np.full(16, np.inf)),
    "x equal": with_array("x", np.zeros(16)),
    "x text": with_array("x", np.array(["a"] * 16)),
    "x short": with_array("x", 10.0 * np.arange(7)),
    "x of two axes": with_array("x", np.zeros((16, 16))),
    "x uneven": with_array("x", np.arange(16.0) ** 2),
    "x one": with_array("x", np.zeros(1)),
    "x none": with_array("x", np.zeros(0)),
    "x huge": lambda i: with_document(i, "shape", to([1 << 40]), "x/.zarray"),
    "y NaN": with_array("y", np.full(16, np.nan, np.float32)),
    "lon text": with_array("center_lon", np.array("east")),
    "lon NaN": with_array("center_lon", np.array(np.nan)),
    "lon infinite": with_array("center_lon", np.array(np.inf)),
    "lon bool": with_array("center_lon", np.array(True)),
    "lon none": with_array("center_lon", np.zeros(0)),
    "crs zero": with_array("crs", np.array(0)),
    "crs huge": with_array("crs", np.array(2**62)),
    "crs negative": with_array("crs", np.array(-1)),
    "crs text": with_array("crs", np.array("EPSG:nowhere")),
    "crs float": with_array("crs", np.array(1.5)),
    "id of a surrogate": lambda i: zipped(
        member_entries(pixels_of(i), drop=["sample"])
        | array_entries("sample", np.array(0x0000D800, "<u4"), (), dtype="<U1")
    ),
    "id of no character": lambda i: zipped(
        member_entries(pixels_of(i), drop=["sample"])
        | array_entries("sample", np.array(0x7FFFFFFF, "<u4"), (), dtype="<U1")
    ),
    "id with a line": with_array("sample", np.array("282D\n485L_0_0")),
    "id with a slash": with_array("sample", np.array("../../282D")),
    "id long": with_array("sample", np.array("x" * 10_000)),
    "id empty": with_array("sample", np.array("")),
    "id not utf-8": with_array("sample", np.array(b"\xff\xfe")),
    "id float": with_array("sample", np.array(np.nan)),
    "time text": with_array("time", np.array(["9999999-99-99"])),
    "time NaN": with_array("time", np.array([np.nan]), attrs={"units": "days since 2000-01-01"}),
    "time huge": with_array("time", np.array([1e300]), attrs={"units": "days since 2000-01-01"}),
    "time units text": with_array("time", np.array([5]), attrs={"units": "fortnights since the flood"}),
    "time units number": with_array("time", np.array([5]), attrs={"units": 5}),
    "time units list": with_array("time", np.array([5]), attrs={"units": ["days since 2000-01-01"]}),
    "time units long": with_array("time", np.array([5]), attrs={"units": "days since " + "2" * 100_000}),
    "time units no date": with_array("time", np.array([5]), attrs={"units": "days since 2000-13-99"}),
    "time calendar": with_array(
        "time", np.array([5]), attrs={"units": "days since 2000-01-01", "calendar": "360_day"}
    ),
    "times too many": with_array("time", np.full(5, TIME_NS)),
    "times of a year": with_array("time", np.array([2020], "M8[Y]").view("i8"), dtype="<M8[Y]"),
    "file ids": with_array("file_id", np.array(["\ud800"], object).astype("U1")),
    "file ids not utf-8": with_array("file_id", np.array([b"\xff"])),
    "bands repeated": lambda i: member(
        np.repeat(pixels_of(i), 2, axis=1), bands=["DEM", "DEM"], sample=sample_of(i)
    ),
    "bands missing": lambda i: zipped(member_entries(pixels_of(i), sample=sample_of(i), drop=["band"])),
    "bands of control": with_array("band", np.array(["\x00\x1b[2J"])),
    "extra array": lambda i: zipped(
        member_entries(pixels_of(i), sample=sample_of(i))
        | {"more/.zarray": b'{"shape": "?"}', "more/.zattrs": b"[]"}
    ),
    "attributes of all kinds": lambda i: member(
        pixels_of(i),
        sample=sample_of(i),
        attrs={
            "a": nested(200),
            "b": 10**40,
            "c": "\ud800",
            "d": None,
            "": True,
            "valid_min": {},
            "_Unsigned": [],
        },
    ),
    "scale text": lambda i: member(pixels_of(i), sample=sample_of(i), attrs={"scale_factor": "large"}),
    "scale zero": lambda i: member(pixels_of(i), sample=sample_of(i), attrs={"scale_factor": 0}),
    "missing list": lambda i: member(
        pixels_of(i), sample=sample_of(i), attrs={"missing_value": ["x", {}, None, 1e99]}
    ),
}
"""The members whose pixels are sound; what is wrong with the rest is told."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory):
    """A table of sound members with all hostile ones among them: rows by stem, findings by stem."""
    folder = tmp_path_factory.mktemp("hostile")
    sound = sound_members(range(12))
    makers = {**UNREADABLE, **USABLE}
    stems = {stem_of(FIRST_HOSTILE + i): name for i, name in enumerate(makers)}
    bad = {stem: makers[name](int(stem[-7:])) for stem, name in stems.items()}
    names = sorted([*sound, *bad], key=lambda stem: zlib.crc32(stem.encode()))
    write_tars(folder / "source", {"DEM": {stem: (sound | bad)[stem] for stem in names}})
    report = ingest(open_source(str(folder / "source")), tb.create(folder / "bank"), "t", INLINE)
    bank = tb.open(folder / "bank")
    query = "SELECT stem, part, sample_id, epsg, lon, lat, bbox, DEM.ref.row AS row, DEM.product_ids AS product_ids FROM t"
    rows = {row["stem"]: row for row in bank.sql(query).arrow().to_pylist()}
    return bank, report, stems, rows


def pixels_in(bank: tb.Bank, row: dict[str, Any]) -> np.ndarray:
    import zarr

    url = bank.table("t").parts()[row["part"]]
    return zarr.open_group(url.removeprefix("file://"), mode="r")["DEM"][row["row"]]


def test_sound_members_are_ingested_beside_hostile_ones(hostile) -> None:
    bank, report, stems, rows = hostile
    for number in range(12):
        row = rows[stem_of(number)]
        assert row["sample_id"] == sample_of(number)
        np.testing.assert_array_equal(pixels_in(bank, row), pixels_of(number))
        assert row["epsg"] == 32633
        assert row["bbox"] is not None
    assert report.n_added + report.n_skipped == report.n_found == 12 + len(stems)
    assert {f.member for f in report.findings} <= set(stems)


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_named_and_left_out(hostile, name: str) -> None:
    _, report, stems, rows = hostile
    (stem,) = (s for s, n in stems.items() if n == name)
    assert stem not in rows
    found = [f for f in report.findings if f.member == stem]
    assert {f.kind for f in found} - {"no-modality"}, found
    for finding in found:
        assert len(finding.reason) < 600
        assert finding.reason.isprintable()


NOTHING_TO_REPORT = {"extra array", "file ids", "file ids not utf-8", "id float"}


@pytest.mark.parametrize("name", USABLE)
def test_pixels_are_kept_and_what_is_wrong_beside_them_is_told(hostile, name: str) -> None:
    bank, report, stems, rows = hostile
    (stem,) = (s for s, n in stems.items() if n == name)
    found = [f for f in report.findings if f.member == stem]
    assert bool(found) == (name not in NOTHING_TO_REPORT), found
    if name == "bands repeated":  # two bands, where the table has one
        assert {f.kind for f in found} == {"band-names", "other-shape", "no-modality"}
        assert stem not in rows
        return
    np.testing.assert_array_equal(pixels_in(bank, rows[stem]), pixels_of(int(stem[-7:])))
    for value in (rows[stem]["sample_id"], *(f.reason for f in found), *rows[stem]["product_ids"]):
        assert value.isprintable()
        assert value.encode("utf-8")
    for column in ("lon", "lat"):
        assert rows[stem][column] is None or np.isfinite(rows[stem][column])
    if name[0] in "xy" and name[1] == " ":
        assert rows[stem]["bbox"] is None


def test_a_tar_of_a_mac_and_odd_names_lose_nothing_else(tmp_path: Path) -> None:
    sound = sound_members(range(3))
    odd = [
        ("._majortom_train_0000000.zarr.zip", b"\0\5\26\7\0\2\0\0Mac OS X        " + bytes(130)),
        (".zarr.zip", b"no name"),
        ("x" * 90 + ".zarr.zip", b""),
        ("with\nline.zarr.zip", member(pixels_of(7))),
    ]
    folder = tmp_path / "source" / "train" / "DEM"
    folder.mkdir(parents=True)
    members = [
        item
        for pair in zip(odd, [(f"{s}.zarr.zip", d) for s, d in sound.items()], strict=False)
        for item in pair
    ]
    (folder / "majortom_shard_000001.tar").write_bytes(tar_of([*members, odd[3]]))
    report = ingest(open_source(str(tmp_path / "source")), tb.create(tmp_path / "bank"), "t", INLINE)
    assert report.n_added == 3
    kinds = {(f.kind, f.member) for f in report.findings}
    assert ("stray-file", "._majortom_train_0000000.zarr.zip") in kinds
    assert {kind for kind, _ in kinds} >= {"stray-file", "unsupported-member"}


def test_a_member_above_the_limits_is_named(tmp_path: Path) -> None:
    root = write_tars(
        tmp_path / "source",
        {"DEM": sound_members(range(3)) | {stem_of(9): member(pixels_of(9, 128), sample=sample_of(9))}},
    )
    source = open_source(str(root), limits=ReadLimits(max_sample_bytes=16_384))
    report = ingest(source, tb.create(tmp_path / "bank"), "t", INLINE)
    assert report.n_added == 3
    assert "over-limit" in {f.kind for f in report.findings if f.member == stem_of(9)}


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
def test_a_compressed_tar_is_named_beside_others_and_alone(tmp_path: Path, suffix: str) -> None:
    root = write_tars(tmp_path / "source", {"DEM": sound_members(range(3))})
    compressed = root / "train" / "DEM" / f"majortom_shard_000002.tar{suffix}"
    compressed.write_bytes(b"\x1f\x8b anything")
    report = ingest(open_source(str(root)), tb.create(tmp_path / "bank"), "t", INLINE)
    assert report.n_added == 3
    assert [(f.kind, f.member) for f in report.findings] == [
        ("compressed-archive", f"train/DEM/majortom_shard_000002.tar{suffix}")
    ]
    assert report.harmful
    (root / "train" / "DEM" / "majortom_shard_000001.tar").unlink()
    with pytest.raises(FormatError) as refused:
        open_source(str(root))
    assert refused.value.kind == "compressed-archive"


def test_no_descriptors_left_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tars(tmp_path / "source", {"DEM": sound_members(range(1))})
    source = open_source(str(root))
    archives, _ = source.archives()

    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("tensorbank_indexer.containers.descriptors.os.open", none_left)
    with pytest.raises(StorageError) as refused:
        source.scan(archives[0])
    assert refused.value.kind == "no-descriptors"


def test_a_chain_of_codecs_without_end_is_refused(tmp_path: Path) -> None:
    entries = member_entries(pixels_of(1))
    document = json.loads(entries["bands/.zarray"])
    document["filters"] = [{"id": "delta", "dtype": "<i2"}] * 10_000
    found = read_member(
        zipped(entries | {"bands/.zarray": json.dumps(document).encode()}), want_cloud_mask=False
    )
    assert found.pixels is None
    assert [problem.kind for problem in found.problems] == ["over-limit"]


# ---------------------------------------------------------------- metadata tables


def ingested_with_table(folder: Path, table: pa.Table | bytes) -> tuple[Any, list[dict[str, Any]]]:
    root = write_tars(folder / "source", {"DEM": sound_members(range(3))})
    path = root / "train_metadata.parquet"
    if isinstance(table, bytes):
        path.write_bytes(table)
    else:
        pq.write_table(table, path)
    report = ingest(open_source(str(root)), tb.create(folder / "bank"), "t", INLINE)
    rows = tb.open(folder / "bank").sql("SELECT * FROM t.samples ORDER BY sample_id").arrow().to_pylist()
    assert [row["sample_id"] for row in rows] == [sample_of(i) for i in range(3)]
    return report, rows


def columns(**changed: Any) -> pa.Table:
    names = [f"{stem_of(i)}.zarr.zip" for i in range(3)]
    sound = {"zarr": names, "sample_id": [sample_of(i) for i in range(3)], "center_lon": [15.0] * 3}
    return pa.table({k: v for k, v in (sound | changed).items() if v is not None})


TABLES: dict[str, pa.Table | bytes] = {
    "zarr of numbers": columns(zarr=[1, 2, 3]),
    "no zarr": columns(zarr=None),
    "no sample_id": columns(sample_id=None),
    "ids of lists": columns(sample_id=[["a"], ["b"], ["c"]]),
    "ids of surrogates": columns(sample_id=["a\nb", "", "x" * 10_000]),
    "lon of texts": columns(center_lon=["east", "15.0", ""]),
    "lon NaN": columns(center_lon=[np.nan, np.inf, 1e308]),
    "lon of structs": columns(center_lon=[{"a": 1}] * 3),
    "cloud cover NaN": columns(cloud_cover=[np.nan, -np.inf, 0.5]),
    "cloud cover texts": columns(cloud_cover=["clear", "0.5", None]),
    "time no date": columns(S2_time=["9999999-99-99", "", "yesterday"]),
    "time beyond": columns(S2_time=pa.array([2**62, -(2**62), 5], pa.timestamp("us"))),
    "time of numbers": columns(S2_time=[1e300, -1.0, 2.0]),
    "time of lists": columns(S2_time=[[1], [2], [3]]),
    "tar of numbers": columns(tar=[1, 2, 3]),
    "an id that is null": columns(sample_id=[sample_of(0), None, sample_of(2)]),
    "no parquet": b"PAR1 nothing of the kind PAR1",
    "empty": b"",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_metadata_table_of_any_kind_costs_its_wrong_values_only(tmp_path: Path, name: str) -> None:
    report, rows = ingested_with_table(tmp_path, TABLES[name])
    if name != "tar of numbers":
        kind = "cloud-cover-range" if name == "cloud cover NaN" else "corrupt-metadata"
        assert kind in {f.kind for f in report.findings}
    assert len(rows) == 3
    for row in rows:
        assert row["lon"] is None or np.isfinite(row["lon"])
        assert row["cloud_cover"] is None or 0 <= row["cloud_cover"] <= 1


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
def test_columns_of_a_table_may_be_of_any_type_that_tells_the_same(tmp_path: Path, kind: pa.DataType) -> None:
    table = columns(tar=["majortom_shard_000001.tar"] * 3, cloud_cover=[Decimal("0.25")] * 3)
    for i, column in enumerate(table.schema):
        if pa.types.is_string(column.type):
            values = table[i].combine_chunks()
            cast = values.dictionary_encode() if pa.types.is_dictionary(kind) else values
            table = table.set_column(i, column.name, cast.cast(kind))
    report, rows = ingested_with_table(tmp_path, table)
    assert [row["cloud_cover"] for row in rows] == [0.25] * 3
    assert "corrupt-metadata" not in {f.kind for f in report.findings}


def test_dates_of_a_table_may_be_texts_and_repeated_rows_are_told(tmp_path: Path) -> None:
    from tensorbank_indexer.containers.files import SourceFiles
    from tensorbank_indexer.sources.metadata_table import MetadataTable

    table = columns(
        S2_time=["2020-05-24T18:49:21+02:00", "2020-05-24 18:49:21", "2020-05-24"], cloud_cover=[0.1] * 3
    )
    again = table.slice(1, 1).set_column(4, "cloud_cover", [[0.9]])
    pq.write_table(pa.concat_tables([table, again]), tmp_path / "train_metadata.parquet")
    rows, problems = MetadataTable(SourceFiles(str(tmp_path)), "train", False).rows(
        "x.tar", map(stem_of, range(3))
    )
    stamps = [np.datetime64(rows[stem_of(i)].time_ns, "ns") for i in range(3)]
    assert stamps == [
        np.datetime64(t, "ns") for t in ("2020-05-24T16:49:21", "2020-05-24T18:49:21", "2020-05-24")
    ]
    assert rows[stem_of(1)].metadata == {"cloud_cover": (0.1,)}
    assert [stem for stem, _ in problems] == [stem_of(1)]


def test_rows_that_take_no_room_are_not_all_read(tmp_path: Path) -> None:
    """A few kB of Parquet are 3 million rows of the archive."""
    n = 3_000_000
    one = pa.array([f"{stem_of(0)}.zarr.zip", sample_of(0), "majortom_shard_000001.tar"])
    columns = {
        name: pa.DictionaryArray.from_arrays(pa.array(np.full(n, i, np.int8)), one)
        for i, name in enumerate(("zarr", "sample_id", "tar"))
    }
    path = tmp_path / "source" / "train_metadata.parquet"
    write_tars(tmp_path / "source", {"DEM": sound_members(range(3))})
    pq.write_table(pa.table(columns), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    del columns
    source = open_source(str(tmp_path / "source"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scan = source.scan(source.archives()[0][0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10
    assert [ref.sample_id for ref in scan.samples] == [sample_of(i) for i in range(3)]
    assert {f.kind for f in scan.findings} == {"corrupt-metadata"}


def test_a_damaged_page_costs_its_column(tmp_path: Path) -> None:
    table = columns(cloud_cover=[0.25, 0.5, 0.75], center_lat=[45.0] * 3)
    path = tmp_path / "sound.parquet"
    pq.write_table(table, path, use_dictionary=False, compression="zstd")
    place = pq.ParquetFile(path).metadata.row_group(0).column(3)
    assert place.path_in_schema == "cloud_cover"
    damaged = bytearray(path.read_bytes())
    start = place.data_page_offset
    damaged[start : start + place.total_compressed_size] = b"\xff" * place.total_compressed_size
    report, rows = ingested_with_table(tmp_path / "t", bytes(damaged))
    assert any("cloud_cover" in f.reason for f in report.findings if f.kind == "corrupt-metadata")
    assert [row["cloud_cover"] for row in rows] == [None] * 3
