"""An index that is lost or wrong comes out of what is left as it was written, or by one commit with the same rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank.catalog import Change, LevelChange
from tensorbank.cli.app import main
from tensorbank.verification import verify
from tensorbank_indexer import IngestOptions, ingest
from tensorbank_indexer.repairs import repair

MODALITIES = ("DEM", "S1RTC")
OPTIONS = IngestOptions(n_workers=1, samples_per_shard=2, n_tiles=2, profile="hot")
ARCHIVES = TinySource(5, modalities=MODALITIES)


@pytest.fixture
def bank(tmp_path) -> tb.Bank:
    made = tb.create(tmp_path / "bank")
    ingest(ARCHIVES, made, "t", OPTIONS)
    return made


def elsewhere(bank: tb.Bank, tmp_path: Path) -> tb.Bank:
    """The bank as another machine opens it, which has no copies of index files."""
    return tb.open(bank.url, cache=tmp_path / "another-cache")


def objects(bank: tb.Bank) -> dict[str, bytes]:
    return {o.key: bank.catalog.store.get(o.key) for o in bank.catalog.store.objects("t")}


def index_files(bank: tb.Bank, level: str) -> list[Path]:
    folder = bank.catalog.store.local_path
    return [folder / f.key for f in bank.catalog.files("t", level).files]


def rows_of(bank: tb.Bank, level: str) -> list[dict]:
    return [row for path in index_files(bank, level) for row in pq.read_table(path).to_pylist()]


def told(rows: list[dict]) -> list[str]:
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in rows)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "levels", [["samples"], ["tiles"], ["shards"], ["keys"], ["tiles", "shards", "keys"], ["samples", "keys"]]
)
@pytest.mark.parametrize("damage", [Path.unlink, flip])
def test_index_files_come_out_as_they_were_written(bank, tmp_path, levels, damage):
    before = objects(bank)
    for level in levels:
        for path in index_files(bank, level):
            damage(path)
    damaged = objects(bank)
    tried = repair(ARCHIVES, elsewhere(bank, tmp_path), "t", dry_run=True)
    assert len(tried.repaired) + len(tried.left) >= len(levels)
    assert objects(bank) == damaged
    done = repair(ARCHIVES, elsewhere(bank, tmp_path), "t")
    assert (done.left, done.replaced, len(done.repaired)) == ([], [], len(levels))
    assert objects(bank) == before
    assert verify(bank, "t", deep=True).findings == []


@pytest.mark.parametrize("damage", [Path.unlink, flip])
def test_a_sorted_copy_is_written_anew(bank, tmp_path, damage):
    bank.table("t").add_sorted_copy("lon")
    (path,) = index_files(bank, "sorted/lon")
    before = path.read_bytes()
    damage(path)
    tried = repair(None, elsewhere(bank, tmp_path), "t", dry_run=True)
    assert (tried.left, tried.replaced) == ([], ["t/index/sorted/lon"])
    done = repair(None, elsewhere(bank, tmp_path), "t")
    assert (done.left, done.replaced, done.repaired) == ([], ["t/index/sorted/lon"], [])
    assert path.read_bytes() == before
    assert verify(bank, "t", deep=True).findings == []


def test_a_lost_deletion_is_made_again_by_its_condition(bank, tmp_path):
    bank.table("t").delete("sample_id = 'sample-0001'")
    before = objects(bank)
    (path,) = index_files(bank, "deleted")
    path.unlink()
    done = repair(None, elsewhere(bank, tmp_path), "t")
    assert (done.left, done.replaced) == ([], [])
    assert objects(bank) == before


@pytest.mark.parametrize("level", ["samples", "tiles", "shards"])
def test_what_comes_out_otherwise_is_replaced_by_one_commit(bank, tmp_path, level):
    ingest(TinySource(3, 5, modalities=MODALITIES), bank, "t", OPTIONS)
    bank.table("t").delete("sample_id = 'sample-0001'")
    version = bank.table("t").compact().version
    rows = rows_of(bank, level)
    (path,) = index_files(bank, level)
    path.unlink()
    done = repair(TinySource(8, modalities=MODALITIES), elsewhere(bank, tmp_path), "t")
    assert (done.left, done.version) == ([], version + 1)
    assert done.replaced == [path.relative_to(bank.catalog.store.local_path).as_posix()]
    newest = bank.table("t").history()[0]
    assert (newest.operation, newest.details["repaired"]) == ("repair", {level: [1, 1]})
    found = rows_of(bank, level)
    for row in (*found, *rows):
        for name in MODALITIES:
            row[name].pop("source", None)  # these archives have other names
            for band in (row[name], *(row[name].get(b) for b in ("vv", "vh"))):
                if band and "m2" in band:
                    band["m2"] = float(f"{band['m2']:.9g}")  # sums of floats by another order
                for field in ("bins", "bin_counts"):  # known again of shards that lost samples
                    band and band.pop(field, None)
    assert told(found) == told(rows)
    assert verify(bank, "t", deep=True).findings == []


def test_the_archives_are_not_needed_where_other_rows_tell(bank, tmp_path):
    before = objects(bank)
    for level in ("tiles", "shards", "keys"):
        index_files(bank, level)[0].unlink()
    assert repair(None, elsewhere(bank, tmp_path), "t").complete
    assert objects(bank) == before
    index_files(bank, "samples")[0].unlink()
    left = repair(None, elsewhere(bank, tmp_path), "t").left
    assert any("follow from archives, and none are given" in one.reason for one in left)


def test_the_index_of_a_copy_of_the_table_is_a_copy(bank, tmp_path):
    bank.catalog.copy("t", "u")
    before = objects(bank)
    (path,) = index_files(bank, "samples")
    path.unlink()
    assert repair(None, elsewhere(bank, tmp_path), "t").complete
    assert objects(bank) == before


def set_wrong(bank: tb.Bank, level: str, change) -> None:
    """Put a file in the place of one of a level, whose name has the right checksum and one row another value."""
    (file,) = bank.catalog.files("t", level).files
    rows = pq.read_table(bank.catalog.path(file))
    listed = rows.to_pylist()
    change(listed[1])
    new = bank.catalog.write("t", level, type(rows).from_pylist(listed, schema=rows.schema))
    bank.catalog.publish("t", lambda _head: Change("plant", {level: LevelChange((new,), (file,))}))


def longer(row):
    row["DEM"]["ref"]["offset"] += 1


def other_mean(row):
    row["S1RTC"]["vv"]["mean"] += 100


@pytest.mark.parametrize(
    ("level", "change"),
    [
        ("samples", other_mean),
        ("samples", longer),
        ("samples", lambda row: row["modalities"].pop()),
        ("tiles", other_mean),
        ("tiles", longer),
        ("tiles", lambda row: row.update(key=1)),
        ("tiles", lambda row: row.update(x1=5)),
        ("shards", other_mean),
        ("shards", lambda row: row.update(shard=9)),
        ("shards", lambda row: row["S1RTC"]["vh"]["bins"].__setitem__(0, 3)),
    ],
)
def test_wrong_rows_with_right_checksums_are_replaced(bank, level, change):
    rows = rows_of(bank, level)
    set_wrong(bank, level, change)
    version = bank.catalog.version("t").version
    done = repair(ARCHIVES, bank, "t")
    assert (done.left, done.repaired, done.version) == ([], [], version + 1)
    assert told(rows_of(bank, level)) == told(rows)
    assert verify(bank, "t", deep=True).findings == []


def test_shards_that_were_exchanged_are_put_back_and_not_described_anew(tmp_path):
    bank = tb.create(tmp_path / "bank")
    archives = TinySource(4)
    ingest(archives, bank, "t", IngestOptions(n_workers=1, samples_per_shard=2, n_tiles=2, profile="raw"))
    before = objects(bank)
    folder = bank.catalog.store.local_path
    one, other = sorted(folder.glob("t/tensors/*/DEM/c/*/0/0/0/0"))
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    left = repair(None, bank, "t")
    assert not left.complete
    assert left.replaced == []
    for path in index_files(bank, "tiles"):
        path.unlink()
    done = repair(archives, elsewhere(bank, tmp_path), "t")
    assert (done.left, done.replaced) == ([], [])
    assert objects(bank) == before


def test_documents_are_derived_again(bank):
    before = objects(bank)
    folder = bank.catalog.store.local_path
    (dem,) = folder.glob("t/tensors/*/DEM/zarr.json")
    dem.write_text("{}")
    assert repair(None, bank, "t").complete
    assert objects(bank) == before
    group = dem.parent.parent / "zarr.json"
    said = json.loads(group.read_text())
    for path in (dem, group):
        path.unlink()
    assert repair(ARCHIVES, bank, "t").complete
    assert verify(bank, "t", deep=True).findings == []
    again = json.loads(group.read_text())
    assert again["consolidated_metadata"] == said["consolidated_metadata"]
    same = {"source", "source_format", "source_revision", "source_etags", "licence", "codec_profile"}
    assert {k: again["attributes"][k] for k in same} == {k: said["attributes"][k] for k in same}
    for path in (dem, dem.parent.parent / "S1RTC/zarr.json", group):
        path.unlink()
    assert repair(ARCHIVES, bank, "t").complete
    assert verify(bank, "t", deep=True).findings == []


def test_what_follows_from_nothing_is_named_with_what_to_do(bank, tmp_path, capsys):
    bank.table("t").add_columns(pa.table({"sample_id": ["sample-0001"], "loss": [1.0]}))
    (path,) = index_files(bank, "columns/loss")
    path.unlink()
    left = repair(ARCHIVES, elsewhere(bank, tmp_path), "t").left
    assert [one.kind for one in left] == ["missing-index-file"]
    assert "add-columns --replace" in left[0].reason
    assert main(["repair", "-", bank.url, "--table", "t"]) == 1
    assert "add-columns --replace" in capsys.readouterr().out
