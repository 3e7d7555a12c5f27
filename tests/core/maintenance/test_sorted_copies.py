"""Sorted copies of samples: read where that is quicker, renewed by compaction, and never a reason for another answer."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.handmade_index import NDVI, S1, make_table, part_of
from tensorbank.catalog import Change, LevelChange
from tensorbank.cli.app import main
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError
from tensorbank.maintenance.sorting import Renewal, add_sorted_copy, sorted_copies
from tensorbank.planning import views
from tensorbank.removal import collect
from tensorbank.schema import TableSchema
from tensorbank.sorted_copies import choice
from tensorbank.verification import Finding, FindingKind, verify

SCHEMA = TableSchema((S1, NDVI))
ROWS = 12
COLUMNS = ("sample_id", "lon", "NDVI.mean", "S1GRD.vh.mean", "cloud_cover", "season")


@pytest.fixture(autouse=True)
def small_files():
    with mock.patch.object(sorted_copies, "FILE_ROWS", ROWS), mock.patch.object(choice, "WORTH", 2):
        yield


@pytest.fixture
def bank(tmp_path):
    opened = tb.create(tmp_path / "bank")
    make_table(opened, "t", parts=4, n=25, schema=SCHEMA)
    return opened


def read_files(bank, sql: str, monkeypatch) -> list[str]:
    """Return the index files of samples that a query read, from the folder of their level on."""
    read: list[str] = []
    scan = views.TableViews._scan

    def noting(self, table, level, files, *, is_read: bool = True):
        if level == "samples":
            read.extend(file.key.partition("/index/")[2] for file in files.files)
        return scan(self, table, level, files, is_read=is_read)

    with monkeypatch.context() as patch:
        patch.setattr(views.TableViews, "_scan", noting)
        bank.sql(sql).plan()
    return read


def flaws(bank, table: str = "t") -> list[Finding]:
    """Return what is wrong with sorted copies; a table made by hand has no tensors, which verify tells as well."""
    return [f for f in verify(bank, table).findings if "/sorted/" in f.key]


def rows(bank, sql: str) -> list[dict]:
    return bank.sql(sql).arrow().to_pylist()


@pytest.mark.parametrize("column", COLUMNS)
def test_a_copy_has_all_rows_in_its_order(bank, column):
    report = bank.table("t").add_sorted_copy(column.upper())
    assert (report.column, report.n_rows, report.changed) == (column, 100, True)
    assert report.n_files == -(-100 // ROWS)
    version = bank.catalog.version("t")
    files = bank.catalog.state(version, f"sorted/{column}").files
    copied = pa.concat_tables(pq.read_table(bank.catalog.path(f)) for f in files.files)
    paths = [bank.catalog.path(f) for f in version.samples.files]
    stored = pa.concat_tables([pq.read_table(path) for path in paths])
    assert sorted(map(repr, copied.to_pylist())) == sorted(map(repr, stored.to_pylist()))
    held = [values_of(pq.read_table(bank.catalog.path(f)), column) for f in files.files]
    known = [[value for value in values if value is not None] for values in held]
    edges = [(min(values), max(values)) for values in known if values]
    edges.sort()
    assert len(edges) > 5
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(edges))


def values_of(table: pa.Table, column: str) -> list:
    found = table.to_pylist()
    for name in column.split("."):
        found = [None if row is None else row[name] for row in found]
    return found


def test_a_query_for_few_values_reads_the_copy_alone(bank, monkeypatch):
    values = sorted(v for v in values_of(bank.sql("SELECT lon FROM t").arrow(), "lon"))
    asked = f"SELECT sample_id, S1GRD, NDVI FROM t WHERE lon >= {values[-3]!r}"
    before = rows(bank, asked), bank.sql(asked).plan()
    assert all("samples/" in key for key in read_files(bank, asked, monkeypatch))
    bank.table("t").add_sorted_copy("lon")
    read = read_files(bank, asked, monkeypatch)
    assert len(read) == 1
    assert read[0].startswith("sorted/lon/")
    after = rows(bank, asked), bank.sql(asked).plan()
    assert sorted(map(repr, after[0])) == sorted(map(repr, before[0]))
    assert len(before[0]) == 3
    assert after[1].table.equals(before[1].table)
    assert len(after[1]) == 3
    assert [plan.source.sorted_copies for _, plan in (before, after)] == [{}, {"t": "lon"}]
    assert "sorted     t by lon" in after[1].explain()
    assert "sorted" not in before[1].explain()


def test_samples_that_came_later_are_read_beside_the_copy(bank, monkeypatch):
    bank.table("t").add_sorted_copy("sample_id")
    bank.catalog.commit("t", part_of("t", "late", 25, schema=SCHEMA))
    asked = "SELECT sample_id, S1GRD FROM t WHERE sample_id IN ('part-2-0003', 'late-0008')"
    read = read_files(bank, asked, monkeypatch)
    assert sorted(key.partition("/")[0] for key in read) == ["samples", "sorted"]
    plan = bank.sql(asked).plan()
    assert plan.table["sample_id"].to_pylist() == ["late-0008", "part-2-0003"]
    assert plan.explain_json()["sorted_copies"] == {"t": "sample_id"}


def test_the_copy_is_not_read_where_it_has_as_many_rows_or_the_order_matters(bank, monkeypatch):
    bank.table("t").add_sorted_copy("lon")
    for asked in (
        "SELECT sample_id, S1GRD FROM t",
        "SELECT sample_id, S1GRD FROM t WHERE lon > -1000",
        "SELECT sample_id, S1GRD FROM t WHERE lat > 70",
        "SELECT sample_id, S1GRD FROM t WHERE lon > 150 LIMIT 2",
    ):
        read = read_files(bank, asked, monkeypatch)
        assert read, asked
        assert all(key.startswith("samples/") for key in read), asked
        assert bank.sql(asked).plan().source.sorted_copies == {}


def test_an_older_version_is_read_without_the_copy(bank, monkeypatch):
    before = bank.catalog.version("t").version
    bank.table("t").add_sorted_copy("lon")
    asked = "SELECT sample_id, S1GRD FROM t WHERE lon > 150"
    read = read_files(bank.at({"t": before}), asked, monkeypatch)
    assert read
    assert all(key.startswith("samples/") for key in read)


def test_deleted_samples_do_not_come_back(bank, monkeypatch):
    bank.table("t").add_sorted_copy("sample_id")
    bank.table("t").delete("sample_id = 'part-1-0004'")
    asked = "SELECT sample_id, S1GRD FROM t WHERE sample_id IN ('part-1-0004', 'part-1-0005')"
    assert any(key.startswith("sorted/") for key in read_files(bank, asked, monkeypatch))
    assert bank.sql(asked).plan().table["sample_id"].to_pylist() == ["part-1-0005"]


def test_compaction_writes_copies_anew(bank, monkeypatch):
    bank.table("t").add_sorted_copy("lon")
    bank.catalog.commit("t", part_of("t", "late", 25, schema=SCHEMA))
    done = bank.table("t").compact()
    assert (done.changed, done.sorted_copies) == (True, ("lon",))
    assert done.version == bank.catalog.version("t").version
    read = read_files(bank, "SELECT sample_id, S1GRD FROM t WHERE lon > 150", monkeypatch)
    assert read
    assert all(key.startswith("sorted/") for key in read)
    again = bank.table("t").compact()
    assert (again.changed, again.sorted_copies) == (False, ())
    assert not flaws(bank)


def test_a_copy_that_is_out_of_date_is_not_read(bank, monkeypatch):
    bank.table("t").add_sorted_copy("lon")
    with mock.patch("tensorbank.maintenance.compaction.renew_sorted_copies", return_value=Renewal()):
        bank.table("t").compact()
    read = read_files(bank, "SELECT sample_id, S1GRD FROM t WHERE lon > 150", monkeypatch)
    assert read
    assert all(key.startswith("samples/") for key in read)
    assert not flaws(bank)
    assert bank.table("t").add_sorted_copy("lon").changed


def test_a_copy_that_is_there_is_not_written_again(bank):
    first = bank.table("t").add_sorted_copy("lon")
    second = bank.table("t").add_sorted_copy("LON")
    assert (second.changed, second.version, second.n_bytes) == (False, first.version, first.n_bytes)
    assert bank.table("t").sorted_copies == ("lon",)


def test_a_copy_of_an_empty_table_is_empty(tmp_path):
    bank = tb.create(tmp_path / "bank")
    bank.catalog.create("t", TableSchema((S1,)), single_writer=True)
    assert bank.table("t").add_sorted_copy("lon").n_rows == 0
    bank.catalog.commit("t", part_of("t", "p", 5, schema=TableSchema((S1,))))
    assert len(bank.sql("SELECT sample_id, S1GRD FROM t WHERE lon > -181").plan()) == 5


def test_a_copy_by_a_modality_that_older_files_lack(tmp_path, monkeypatch):
    bank = tb.create(tmp_path / "bank")
    bank.catalog.create("t", TableSchema((S1,)), single_writer=True)
    bank.catalog.commit("t", part_of("t", "old", 30, schema=TableSchema((S1,))))
    with_ndvi = TableSchema((S1, NDVI))
    bank.catalog.publish("t", lambda head: Change("widen", schema=with_ndvi))
    bank.catalog.commit("t", part_of("t", "new", 30, schema=with_ndvi, missing=0.0))
    asked = "SELECT sample_id, NDVI FROM t WHERE NDVI.mean > 30"
    before = sorted(map(repr, rows(bank, asked)))
    bank.table("t").add_sorted_copy("NDVI.mean")
    assert before
    assert sorted(map(repr, rows(bank, asked))) == before
    few = "SELECT sample_id, NDVI FROM t WHERE NDVI.mean > 45"
    assert all(key.startswith("sorted/") for key in read_files(bank, few, monkeypatch))
    assert not flaws(bank)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("NDVI", "no column 'NDVI'"),
        ("ndvi.men", "NDVI.mean"),
        ("modalities", "holds list"),
        ("S1GRD.vh", "no column"),
        ("", "no column"),
    ],
)
def test_columns_without_an_order_are_refused_by_name(bank, column, words):
    before = bank.catalog.version("t").version
    with pytest.raises(InvalidInputError, match=words):
        bank.table("t").add_sorted_copy(column)
    assert bank.catalog.version("t").version == before


def test_added_columns_are_told_to_lie_apart(bank):
    ids = bank.sql("SELECT sample_id FROM t").arrow()["sample_id"].to_pylist()
    bank.table("t").add_columns(pa.table({"sample_id": ids, "score": [1.0] * len(ids)}))
    with pytest.raises(InvalidInputError, match="no column 'score'"):
        bank.table("t").add_sorted_copy("score")


def test_a_dropped_copy_is_read_by_older_versions_alone(bank, monkeypatch):
    at = bank.table("t").add_sorted_copy("lon").version
    dropped = bank.table("t").drop_sorted_copy("Lon")
    asked = "SELECT sample_id, S1GRD FROM t WHERE lon > 150"
    assert all(key.startswith("samples/") for key in read_files(bank, asked, monkeypatch))
    assert all(key.startswith("sorted/") for key in read_files(bank.at({"t": at}), asked, monkeypatch))
    assert (bank.table("t").sorted_copies, bank.table("t").at(at).sorted_copies) == ((), ("lon",))
    with pytest.raises(NotFoundError, match="no copy sorted by 'lon'"):
        bank.table("t").drop_sorted_copy("lon")
    bank.table("t").restore(at)
    assert all(key.startswith("sorted/") for key in read_files(bank, asked, monkeypatch))
    assert bank.catalog.version("t").version == dropped + 1


def test_a_copied_and_renamed_table_has_its_copies(bank, monkeypatch):
    bank.table("t").add_sorted_copy("lon")
    bank.copy("t", "u")
    bank.rename("t", "v")
    for table in ("u", "v"):
        asked = f"SELECT sample_id, S1GRD FROM {table} WHERE lon > 150"
        read = read_files(bank, asked, monkeypatch)
        assert read
        assert all(key.startswith("sorted/lon/") for key in read)
        assert not flaws(bank, table)


def test_garbage_of_copies_goes_and_what_is_needed_stays(bank):
    bank.table("t").add_sorted_copy("lon")
    bank.table("t").add_sorted_copy("sample_id")
    bank.table("t").drop_sorted_copy("lon")
    later = datetime.now(UTC) + timedelta(days=30)
    found = collect(bank.catalog, dry_run=False, now=later)
    assert found.n_foreign == 0
    left = [o.key for o in bank.catalog.store.objects("t/index/sorted") if o.key.endswith(".parquet")]
    assert left
    assert all("/sorted/sample_id/" in key for key in left)
    assert bank.sql("SELECT sample_id, S1GRD FROM t WHERE sample_id = 'part-0-0001'").plan()
    assert not flaws(bank)


def flip(bank, level: str) -> str:
    """Flip a byte of an index file in the bank's folder; return its key."""
    file = bank.catalog.state(bank.catalog.version("t"), level).files.files[0]
    path = Path(bank.catalog.store.local_path) / file.key
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(bytes(data))
    return file.key


def test_a_damaged_copy_is_found(bank):
    bank.table("t").add_sorted_copy("lon")
    key = flip(bank, "sorted/lon")
    (finding,) = flaws(bank)
    assert (finding.kind, finding.key) == (FindingKind.DAMAGED_INDEX_FILE, key)


def test_a_copy_with_other_rows_is_found(bank):
    add_sorted_copy(bank.catalog, "t", "lon")
    version = bank.catalog.version("t")
    state = bank.catalog.state(version, "sorted/lon")
    first, *_ = state.files.files
    wrong = pq.read_table(bank.catalog.path(first))
    lat = wrong.schema.get_field_index("lat")
    wrong = wrong.set_column(lat, wrong.schema.field(lat), pa.array([1.5] * wrong.num_rows))
    new = bank.catalog.write("t", "sorted/lon", wrong)
    change = Change("break", {"sorted/lon": LevelChange((new,), (first,))})
    bank.catalog.publish("t", lambda head: change)
    (finding,) = flaws(bank)
    assert (finding.kind, finding.key) == (FindingKind.WRONG_COPY, "t/index/sorted/lon")


def test_two_columns_whose_copies_would_have_one_name(bank):
    with mock.patch.object(sorted_copies, "copy_name", return_value="same"):
        bank.table("t").add_sorted_copy("lon")
        with pytest.raises(InvalidInputError, match="sorted by lon has the name") as caught:
            bank.table("t").add_sorted_copy("lat")
    assert caught.value.kind == ErrorKind.EXISTS


def test_writers_that_replace_files_again_and_again(bank):
    table = bank.table("t")
    make = sorted_copies._sorted_files

    def slow(catalog, at, sources, path, level, progress):
        written = make(catalog, at, sources, path, level, progress)
        table.delete("sample_id = (SELECT min(sample_id) FROM t)")
        with mock.patch("tensorbank.maintenance.compaction.renew_sorted_copies", return_value=Renewal()):
            table.compact()
        return written

    with mock.patch.object(sorted_copies, "_sorted_files", slow), pytest.raises(tb.TensorBankError) as caught:
        table.add_sorted_copy("lon")
    assert caught.value.kind == ErrorKind.LOST_RACE
    assert table.sorted_copies == ()


def test_the_command_adds_lists_and_drops(bank, capsys):
    url = str(bank.catalog.store.local_path)
    assert main(["index", url, "t"]) == 0
    assert "t has no sorted copies" in capsys.readouterr().out
    assert main(["index", url, "t", "--column", "lon", "--column", "ndvi.mean"]) == 0
    assert "100 samples sorted by NDVI.mean in 9 files" in capsys.readouterr().out
    assert main(["index", url, "t", "--column", "lon", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is False
    assert main(["index", url, "t", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sorted_copies"] == ["lon", "NDVI.mean"]
    assert main(["compact", url, "t"]) == 0
    assert "copies sorted by lon, NDVI.mean written anew" in capsys.readouterr().out
    assert main(["index", url, "t", "--column", "lon", "--drop"]) == 0
    assert "no copy sorted by lon any more" in capsys.readouterr().out
    assert main(["index", url, "t", "--drop"]) == 2
    assert main(["index", url, "t", "--column", "nothing"]) == 2
    assert "no column 'nothing'" in capsys.readouterr().err


def test_history_says_what_was_sorted(bank):
    bank.table("t").add_sorted_copy("lon")
    newest = bank.table("t").history()[0]
    assert (newest.operation, newest.details["column"], newest.details["n_samples"]) == ("sort", "lon", 100)


def test_schemas_of_two_bands_name_the_band(bank):
    assert bank.table("t").add_sorted_copy("s1grd.VV.min").column == "S1GRD.vv.min"
    assert S1.band_names == ("vv", "vh")


def test_a_copy_goes_with_its_modality(bank, capsys):
    table = bank.table("t")
    table.add_sorted_copy("lon")
    table.add_sorted_copy("S1GRD.vh.mean")
    table.drop_modality("S1GRD")
    asked = "SELECT * FROM t WHERE lon > 150"
    assert "S1GRD" not in bank.sql(asked).arrow().column_names
    tried = table.compact(dry_run=True)
    assert (tried.changed, tried.sorted_copies) == (True, ("lon", "S1GRD.vh.mean"))
    before = len(bank.sql(asked).arrow())
    url = str(bank.catalog.store.local_path)
    assert main(["compact", url, "t", "--dry-run"]) == 0
    assert "copies sorted by lon, S1GRD.vh.mean renewed" in capsys.readouterr().out
    done = table.compact()
    assert (done.sorted_copies, done.dropped_copies) == (("lon",), ("S1GRD.vh.mean",))
    assert done.version == bank.catalog.version("t").version
    assert table.sorted_copies == ("lon",)
    assert len(bank.sql(asked).arrow()) == before > 0
    assert not flaws(bank)
    assert not table.compact().changed


def test_a_long_list_of_ids_is_no_name_of_a_copy(bank, monkeypatch):
    bank.table("t").add_sorted_copy("sample_id")
    ids = ", ".join(f"'part-1-{n:04d}'" for n in range(5000))
    assert len(bank.sql(f"SELECT sample_id, S1GRD FROM t WHERE sample_id IN ({ids})").plan()) == 25
