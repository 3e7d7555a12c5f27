"""The format that tensorbank/FORMAT.md describes is the one that is written: read by a reader made from that page alone."""

from __future__ import annotations

import ast
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zarr

import tensorbank as tb
from support import SUPPORT
from support import second_reader as second
from support.guides import read_blocks
from support.handmade_index import make_table
from support.ragged import make_ragged_bank
from support.ranged import small_pieces
from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema
from tensorbank.schema import Band, Modality, TableSchema
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_loader import DataLoader

FORMAT = Path(__file__).parents[2] / "tensorbank" / "FORMAT.md"
PAGE = FORMAT.read_text()
ROOMS = ("tensorbank", "indexer", "loader", "server")
SQL = """
SELECT sample_id, lon, bands(S2L2A, ['B08', 'B04']), NDVI, S1RTC FROM terramesh
WHERE S2L2A.B04.mean > 0 ORDER BY sample_id
"""
TWO_PARTS = IngestOptions(n_workers=1, samples_per_shard=4, samples_per_part=6)


@pytest.fixture(scope="module")
def bank(make_archives, tmp_path_factory) -> Path:
    """A bank of 12 samples in two parts of two shards each."""
    folder = tmp_path_factory.mktemp("format") / "bank"
    archives, _ = make_archives("terramesh", "--samples", "12", "--per-tar", "6", "--subset", "both")
    ingest(open_source(str(archives)), tb.create(folder), "terramesh", TWO_PARTS)
    return folder


@pytest.fixture(scope="module")
def ragged(make_archives, tmp_path_factory) -> Path:
    """A bank of samples of four dates, some of which have fewer."""
    folder = tmp_path_factory.mktemp("format") / "ragged"
    archives, _ = make_archives("ssl4eo-wds", "--locations", "7", "--per-tar", "7", "--split", "val")
    make_ragged_bank(archives, folder)
    return folder


@pytest.fixture(scope="module")
def snapshot(bank) -> second.Snapshot:
    return second.Snapshot(bank, "terramesh")


def as_zarr_python_reads(bank: Path, ref: dict) -> np.ndarray:
    array = zarr.open_array(bank / ref["key"].split("/c/")[0], mode="r")
    return array[ref["row"]]


def test_the_second_reader_knows_nothing_of_tensorbank():
    tree = ast.parse((SUPPORT / "second_reader.py").read_text())
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert "numpy" in imported
    assert not [name for name in imported if name.split(".")[0] in ("tensorbank", "zarr", "support")]


# ---------------------------------------------------------------- tensors and index


def test_every_sample_is_read_alike_by_three_readers(bank, snapshot):
    n_read, opened = 0, tb.open(bank)
    for row in snapshot.samples:
        theirs = opened.read(row["sample_id"], split=row["split"])
        assert sorted(theirs) == row["modalities"]
        for name in row["modalities"]:
            mine = second.read_sample(bank, row[name]["ref"])
            np.testing.assert_array_equal(mine, as_zarr_python_reads(bank, row[name]["ref"]))
            np.testing.assert_array_equal(mine, theirs[name])
            n_read += 1
    assert len(snapshot.samples) == 12
    assert n_read > 12 * 6


def test_the_index_of_a_shard_and_that_of_the_table_agree(bank, ragged, snapshot):
    n_missing = 0
    for folder, samples in ((bank, snapshot.samples), (ragged, second.Snapshot(ragged, "t").samples)):
        for row in samples:
            for name in row["modalities"]:
                ref = row[name]["ref"]
                starts = ref["offset"] + np.cumsum([0, *ref["block_bytes"]])
                expected = [
                    (int(s), n) if n else (0, 0) for s, n in zip(starts, ref["block_bytes"], strict=False)
                ]
                assert second.index_of_sample(folder, ref) == expected
                n_missing += expected.count((0, 0))
    assert n_missing > 0  # of dates that samples of the second bank do not have


def test_samples_of_fewer_dates(ragged):
    n_short = 0
    for row in second.Snapshot(ragged, "t").samples:
        for name in row["modalities"]:
            pixels = second.read_sample(ragged, row[name]["ref"])
            np.testing.assert_array_equal(pixels, as_zarr_python_reads(ragged, row[name]["ref"]))
            n_short += 0 in row[name]["ref"]["block_bytes"]
    assert n_short == 4


def test_the_last_shard_of_a_part_has_a_whole_index(bank, snapshot):
    last = max(snapshot.shards, key=lambda row: row["shard"])
    document = second.read_array_document(bank, last["S2L2A"]["key"])
    per_shard, _, n_bands = document["chunk_grid"]["configuration"]["chunk_shape"][:3]
    assert (per_shard, document["shape"][0], last["shard"]) == (4, 6, 1)
    data = (bank / last["S2L2A"]["key"]).read_bytes()
    index = second.read_shard_index(data, per_shard * n_bands)
    there = index[:, 0] != second.MISSING
    assert there.tolist() == [True] * 2 * n_bands + [False] * 2 * n_bands
    assert len(data) == last["S2L2A"]["length"] + 16 * per_shard * n_bands + 4


def test_index_files_prove_the_pieces_that_they_list(tmp_path):
    bank = tb.create(tmp_path / "bank")
    with small_pieces():
        make_table(bank, "t", parts=1, n=40)
    n_pieces = 0
    for level in ("samples", "tiles", "shards"):
        for file in bank.catalog.files("t", level).files:
            path = tmp_path / "bank" / file.key
            assert second.read_index_file(path).num_rows == file.n_rows
            pieces = second.pieces_of(path)
            assert path.read_bytes().startswith(b"".join(pieces))
            n_pieces += len(pieces)
            for at in (len(pieces) * 256, file.n_bytes - 400):
                data = bytearray(path.read_bytes())
                data[at] ^= 1
                (tmp_path / path.name).write_bytes(data)
                with pytest.raises((second.RefusedError, OSError, ValueError)):
                    second.pieces_of(tmp_path / path.name)
    assert n_pieces > 10


def test_a_flipped_bit_is_found(bank, snapshot, tmp_path):
    copy = tmp_path / "bank"
    shutil.copytree(bank, copy)
    ref = snapshot.samples[3]["S2L2A"]["ref"]
    shard = copy / ref["key"]
    data = bytearray(shard.read_bytes())
    data[ref["offset"] + ref["length"] // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(second.RefusedError, match="checksum of a block"):
        second.read_sample(copy, ref)
    data[-100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(second.RefusedError, match="checksum of the index"):
        second.index_of_sample(copy, ref)


def test_statistics_are_those_of_the_pixels(bank, snapshot):
    edges = second.histogram_edges()
    sums: dict[tuple, int] = {}
    for row in snapshot.samples:
        sample = second.read_sample(bank, row["S2L2A"]["ref"]).astype(np.float64)
        for band, name in enumerate(b["name"] for b in snapshot.modalities["S2L2A"]["bands"]):
            pixels = sample[:, band]
            told, ordered = row["S2L2A"][name], np.sort(pixels, axis=None)
            assert (told["count"], told["valid"]) == (pixels.size, pixels.size)
            assert (told["min"], told["max"]) == (pixels.min(), pixels.max())
            assert told["mean"] == pytest.approx(pixels.mean(), rel=1e-12)
            assert told["std"] == pytest.approx(pixels.std(), rel=1e-9)
            for p in (2, 25, 50, 75, 98):
                assert told[f"p{p:02}"] == ordered[math.floor(p / 100 * (ordered.size - 1))]
            bins, counts = np.unique(np.searchsorted(edges, ordered, side="right") - 1, return_counts=True)
            for at, n in zip(bins.tolist(), counts.tolist(), strict=True):
                key = (row["S2L2A"]["ref"]["key"], name, at)
                sums[key] = sums.get(key, 0) + n
    n_bins = 0
    for shard in snapshot.shards:
        for name in (b["name"] for b in snapshot.modalities["S2L2A"]["bands"]):
            told = shard["S2L2A"][name]
            for at, n in zip(told["bins"], told["bin_counts"], strict=True):
                assert sums[shard["S2L2A"]["key"], name, at] == n
                n_bins += 1
    assert n_bins == len(sums)


def test_tiles_are_cells_of_their_samples(bank, snapshot):
    samples = {(row["split"], row["sample_id"]): row for row in snapshot.samples}
    assert len(snapshot.tiles) == 12 * 16
    for tile in snapshot.tiles[::7]:
        sample = samples[tile["split"], tile["sample_id"]]
        for name in set(sample["modalities"]) & {"NDVI", "DEM", "LULC"}:
            ref = tile[name]["ref"]
            assert {k: ref[k] for k in sample[name]["ref"]} == sample[name]["ref"]
            size = 264
            y, x = divmod(tile["tile"], 4)
            assert (ref["y0"], ref["y1"]) == (y * size // 4, (y + 1) * size // 4)
            assert (ref["x0"], ref["x1"]) == (x * size // 4, (x + 1) * size // 4)
            pixels = second.read_sample(bank, ref)[
                ref["time_index"], 0, ref["y0"] : ref["y1"], ref["x0"] : ref["x1"]
            ]
            assert tile[name]["valid"] == pixels.size
            if name == "LULC":
                classes = {c: n for n, c in snapshot.modalities["LULC"]["classes"]}
                for told, share in tile[name]["share"].items():
                    assert share == pytest.approx((pixels == classes[told]).mean(), rel=1e-6)
            else:
                assert tile[name]["min"] <= pixels.min()
                assert tile[name]["max"] >= pixels.max()
                assert tile[name]["mean"] == pytest.approx(
                    pixels.astype(np.float64).mean(), rel=1e-6, abs=1e-6
                )


def test_places_lie_on_the_curve_and_in_its_order(snapshot):
    by_part: dict[str, list] = {}
    for row in snapshot.samples:
        assert row["hilbert"] == second.hilbert(row["lon"], row["lat"])
        key = (row["season"], row["hilbert"], row["stem"])
        by_part.setdefault(row["part"], []).append((row["S2L2A"]["ref"]["row"], key))
    assert len(by_part) == 2
    for rows in by_part.values():
        keys = [key for _, key in sorted(rows)]
        assert keys == sorted(keys)


def test_no_number_of_the_index_is_not_finite(snapshot):
    def numbers(value: object):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for each in value:
                yield from numbers(each)
        elif isinstance(value, float):
            yield value

    found = [n for rows in (snapshot.samples, snapshot.tiles, snapshot.shards) for n in numbers(rows)]
    assert len(found) > 10_000
    assert all(map(math.isfinite, found))


# ---------------------------------------------------------------- commits


def test_commits_are_as_described(bank, snapshot):
    assert set(snapshot.logs) == {"samples", "tiles", "shards", "keys"}
    for level, log in snapshot.logs.items():
        assert log.version == 2, level
        assert log.configuration["delta.dataSkippingNumIndexedCols"] == "-1"
        assert len(log.parts) == len(set(log.parts)) == 2
    samples = snapshot.logs["samples"]
    assert samples.parts == snapshot.logs["tiles"].parts == snapshot.logs["shards"].parts
    said = {name: n for name, n in samples.transactions.items() if not name.startswith("tensorbank.pin.")}
    assert said == {"tensorbank.format": 2, "tensorbank.finite": 1}
    assert set(samples.modalities) == set(tb.open(bank).table("terramesh").schema.names)


def test_keys_are_as_described(snapshot):
    mine = sorted(
        (second.key_of(r["split"], r["sample_id"]), second.key_of(r["split"], r["subset"], r["stem"]))
        for r in snapshot.samples
    )
    assert sorted((r["key"], r["stem_key"]) for r in snapshot.keys) == mine
    assert len(mine) == 12
    for rows in (snapshot.samples, snapshot.tiles):
        assert all(r["key"] == second.key_of(r["split"], r["sample_id"]) for r in rows)


def test_an_older_snapshot_shows_its_parts_only(bank):
    older = second.Snapshot(bank, "terramesh", version=1)
    table = tb.open(bank).table("terramesh").at(1).snapshot()
    assert (len(older.samples), len(older.shards)) == (table.n_samples, table.n_shards) == (6, 2)
    assert len(older.tiles) == 96
    assert second.Snapshot(bank, "terramesh", version=0).samples == []


def test_rows_of_a_part_that_is_not_in_samples_do_not_count(bank, tmp_path):
    """A writer that was killed before its last commit, made by taking that one back."""
    copy = tmp_path / "bank"
    shutil.copytree(bank, copy)
    (copy / "terramesh/index/samples/_delta_log/00000000000000000002.json").unlink()
    left = second.Snapshot(copy, "terramesh")
    assert second.Log(copy / "terramesh/index/tiles").version == 2
    assert left.logs["tiles"].version == 1
    assert (len(left.samples), len(left.tiles), len(left.shards)) == (6, 96, 2)
    counted = tb.open(copy).sql("SELECT count(*) AS n FROM terramesh.tiles").arrow()["n"].to_pylist()
    assert counted == [96]


# ---------------------------------------------------------------- plans and states


@pytest.fixture(scope="module")
def plan(bank) -> tb.Plan:
    return tb.open(bank).sql(SQL).plan()


def test_a_saved_plan_is_read(bank, plan, tmp_path):
    described, table = second.read_plan(plan.save(tmp_path / "saved.plan"))
    assert described["fingerprint"] == plan.fingerprint
    assert described["source"]["snapshots"]["terramesh"][1] == 2
    assert [h["name"] for h in described["handles"]] == ["S2L2A", "NDVI", "S1RTC"]
    assert second.runs_of(described["handles"][0]) == [(3, 1), (7, 1)]
    rows, n_missing, opened = table.to_pylist(), 0, tb.open(bank)
    assert len(rows) == 12
    for row in rows:
        theirs = opened.read(row["sample_id"], modalities=["S2L2A[B08,B04]", "NDVI", "S1RTC"])
        for handle in described["handles"]:
            mine = second.read_planned(bank, handle, row)
            n_missing += mine is None
            assert (mine is None) == (handle["name"] not in theirs)
            if mine is not None:
                np.testing.assert_array_equal(mine, theirs[handle["name"]])
    assert n_missing > 0


def test_a_plan_of_tiles_is_read(bank, tmp_path):
    query = tb.open(bank).sql(
        "SELECT sample_id, tile, bands(S2L2A, ['B02', 'B03']) FROM terramesh.tiles ORDER BY ALL"
    )
    described, table = second.read_plan(query.plan().save(tmp_path / "tiles.plan"))
    (handle,) = described["handles"]
    assert handle["window"] == [66, 66]
    assert second.runs_of(handle) == [(1, 2)]
    for row in table.to_pylist()[::40]:
        whole = tb.open(bank).read(row["sample_id"], modalities=["S2L2A[B02,B03]"])["S2L2A"]
        y, x = divmod(row["tile"], 4)
        expected = whole[:, :, y * 66 : (y + 1) * 66, x * 66 : (x + 1) * 66]
        np.testing.assert_array_equal(second.read_planned(bank, handle, row), expected)


def test_every_byte_of_a_plan_is_under_its_seal(plan, tmp_path):
    path = plan.save(tmp_path / "saved.plan")
    data = path.read_bytes()
    assert len(data) > 1000
    for at in (*range(0, len(data) - 40, 997), *range(len(data) - 40, len(data))):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(second.RefusedError):
            second.read_plan(path)
        with pytest.raises(tb.FormatError):
            tb.Plan.load(path)


def test_a_state_is_read_and_its_order_is_the_one_described(plan):
    loader = DataLoader(plan, global_batch_size=3, seed=7)
    ids = plan.table["sample_id"].to_pylist()
    batches = iter(loader)
    first = [next(batches)["sample_id"] for _ in range(2)]
    state = loader.state_dict()
    second.check_state(state)
    assert (state["position"], state["n_samples"], state["fingerprint"]) == (2, 12, plan.fingerprint)
    order = [second.permuted(place, 12, seed=7, epoch=0) for place in range(12)]
    assert sorted(order) == list(range(12))
    assert first == [[ids[i] for i in order[:3]], [ids[i] for i in order[3:6]]]
    with pytest.raises(second.RefusedError, match="digest"):
        second.check_state({**state, "position": 3})


# ---------------------------------------------------------------- the page itself

SEVERAL = Modality("several", "int16", (Band("a"), Band("b")), 1, 8, 8)
SINGLE = Modality("single", "float16", (Band("c"),), 1, 8, 8)
CLASSES = Modality("classes", "uint8", (Band("d"),), 1, 8, 8, classes=((0, "land"), (1, "water")))


def type_name(kind: pa.DataType) -> str:
    """Return the name of a type, without the names that Arrow gives to the items of lists."""
    return str(kind).replace("list<item: ", "list<").replace("list<element: ", "list<")


SCHEMAS = {"samples": samples_schema, "tiles": tiles_schema, "shards": shards_schema}


def table_of(mark: str) -> dict[str, str]:
    """Return the types by name of a table of the page."""
    text = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /", PAGE, re.DOTALL)[1]
    found = re.findall(r"^\| \*{0,2}`(\w+)`\*{0,2} \| ([^|]+) \|", text, re.MULTILINE)
    return {name: kind.strip() for name, kind in found}


@pytest.mark.parametrize("level", SCHEMAS)
def test_the_page_lists_every_column_and_field(level):
    schema = SCHEMAS[level](TableSchema((SEVERAL,)))
    plain = {f.name: type_name(f.type) for f in schema if f.name != "several"}
    assert table_of(f"columns: {level}") == plain
    kind = schema.field("several").type
    fields = {f.name: type_name(f.type) for f in kind if f.name not in ("a", "b")}
    assert table_of(f"fields: {level}") == fields


@pytest.mark.parametrize("level", SCHEMAS)
def test_the_page_lists_every_statistic(level):
    schema = SCHEMAS[level](TableSchema((SEVERAL, SINGLE, CLASSES)))
    rows = dict(re.findall(rf"^\| {level} \| (a band|classes) \| (.*) \|$", PAGE, re.MULTILINE))

    def told(kind: str) -> list[str]:
        return re.findall(r"`(\w+)`", rows[kind])

    band = schema.field("several").type.field("a").type
    assert told("a band") == [f.name for f in band]
    head = list(table_of(f"fields: {level}"))
    assert head + told("a band") == [f.name for f in schema.field("single").type]
    assert head + told("classes") == [f.name for f in schema.field("classes").type]
    types = [re.sub(r" of (\w+)", r"<\1>", t) for t in re.findall(r"`\w+` (\w+(?: of \w+)?)", rows["a band"])]
    assert types == [type_name(f.type) for f in band]


def test_the_examples_of_the_page_are_what_is_written(bank, plan, tmp_path):
    group, array, modality, described, state = (json.loads(b.code) for b in read_blocks(FORMAT, "json"))
    part = next((bank / "terramesh" / "tensors").glob("part-*/zarr.json")).parent
    real = json.loads((part / "S2L2A" / "zarr.json").read_text())
    for key in array.keys() - {"attributes", "shape", "chunk_grid"}:
        assert array[key] == real[key], key
    assert array.keys() == real.keys()
    assert array["attributes"].keys() == real["attributes"].keys()
    assert json.loads((part / "zarr.json").read_text()).keys() == group.keys()
    assert (
        json.loads(
            second.Log(bank / "terramesh/index/samples").columns["NDVI"]["metadata"]["tensorbank.modality"]
        )
        == modality
    )
    saved, _ = second.read_plan(plan.save(tmp_path / "saved.plan"))
    assert described.keys() == saved.keys()
    assert described["source"].keys() == saved["source"].keys()
    assert described["handles"][0].keys() == saved["handles"][0].keys()
    loader = DataLoader(plan, global_batch_size=3, seed=7)
    assert state.keys() == loader.state_dict().keys()
    second.check_state(state)


VERSIONS = {
    "index of a table": "INDEX_VERSION",
    "saved plan": "FORMAT_VERSION",
    "planner": "PLANNER_VERSION",
    "state of a loader": "STATE_VERSION",
    "plans over HTTP": "WIRE_VERSION",
    "names of parts": "WRITER_VERSION",
}
"""The constants of the code for what the page gives a version."""


def test_the_versions_of_the_page_are_those_of_the_code():
    section = PAGE.split("## 8. Versions")[1]
    told = dict(re.findall(r"^\| ([a-z][^|]+) \| (\d+) \|", section, re.MULTILINE))
    assert told.keys() == VERSIONS.keys()
    code = [path.read_text() for room in ROOMS for path in (FORMAT.parents[1] / room).rglob("*.py")]
    for what, constant in VERSIONS.items():
        found = {n for text in code for n in re.findall(rf"^{constant} = (\d+)$", text, re.MULTILINE)}
        assert found == {told[what]}, what
