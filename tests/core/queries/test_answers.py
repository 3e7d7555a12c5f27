"""A notebook's uses of a query: look, count, and put tensors into xarray;
each against the rows or the Zarr arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import zarr

import tensorbank as tb
from tensorbank.layout import modality_of_key
from tensorbank_indexer import IngestOptions, ingest, open_source

CLEAR = "cloud_cover < 0.5"


@pytest.fixture(scope="module")
def bank(make_archives, tmp_path_factory):
    source, _ = make_archives("terramesh", "--samples", "24", "--per-tar", "12", "--subset", "both")
    opened = tb.create(tmp_path_factory.mktemp("bank"))
    ingest(open_source(str(source)), opened, "t", IngestOptions(n_workers=2, samples_per_shard=8))
    return opened


@pytest.fixture(scope="module")
def stored(bank):
    """Pixels of each (sample, modality) as zarr-python reads them."""
    names = list(bank.table("t").schema.names)
    rows = (
        bank.sql(f"SELECT sample_id, part, {', '.join(f'{n}.ref AS {n}' for n in names)} FROM t")
        .arrow()
        .to_pylist()
    )
    groups = {
        p: zarr.open_group(u.removeprefix("file://"), mode="r") for p, u in bank.table("t").parts().items()
    }
    return {
        (r["sample_id"], n): groups[r["part"]][n][r[n]["row"]]
        for r in rows
        for n in names
        if r[n] is not None
    }


def test_a_question_tells_what_its_answer_depends_on(bank):
    """Ranks share a plan of equal questions: the bank, its pinned versions, and one's own tables are part of them."""
    statement = "SELECT sample_id FROM t"
    url = bank.url

    def question(sql=statement, versions=None, rows=None):
        mine = tb.open(url) if versions is None else tb.open(url).at(versions)
        if rows is not None:
            mine.register("mine", pa.table({"sample_id": rows}))
        return mine.sql(sql).question

    assert question() == question()
    assert question(rows=["a", "b"]) == question(rows=["a", "b"])
    different = [
        question(),
        question(f"{statement} LIMIT 1"),
        question(versions={"t": 1}),
        question(rows=["a", "b"]),
        question(rows=["a", "c"]),
    ]
    assert len(set(different)) == len(different)


def test_rows_as_a_data_frame(bank):
    query = bank.sql(f"SELECT sample_id, cloud_cover, S2_time, DEM FROM t WHERE {CLEAR} ORDER BY sample_id")
    rows = query.arrow()
    frame = query.df()
    assert len(frame) == len(query) == rows.num_rows > 5
    assert frame["sample_id"].tolist() == rows["sample_id"].to_pylist()
    assert frame["cloud_cover"].tolist() == rows["cloud_cover"].to_pylist()
    assert str(frame["S2_time"].dt.tz) == "UTC"
    assert modality_of_key(frame["DEM"][0]["key"]) == "DEM"
    assert query.head(3)["sample_id"].tolist() == rows["sample_id"].to_pylist()[:3]
    assert query.head(0).empty


def test_a_selection_answers_as_its_statement_does(bank):
    selection = bank.query("t").where(CLEAR).select("sample_id").order_by("sample_id")
    assert len(selection) == len(bank.sql(f"SELECT sample_id FROM t WHERE {CLEAR}"))
    assert selection.head(4)["sample_id"].tolist() == selection.df()["sample_id"].tolist()[:4]
    assert len(selection.limit(2).head(4)) == 2
    assert selection.explain() == selection.plan().explain()


def test_a_query_is_true_without_being_run(bank):
    assert bool(bank.sql("SELECT nonsense FROM nowhere"))
    with pytest.raises(tb.InvalidInputError, match="head"):
        bank.sql("SELECT sample_id FROM t").head(-1)


def test_a_statement_with_a_comment_at_its_end_can_be_counted(bank):
    query = bank.sql("SELECT sample_id FROM t -- all of them;\n;")
    assert len(query) == query.arrow().num_rows == len(query.head(1000))


def test_tensors_in_xarray_are_the_stored_ones(bank, stored):
    query = bank.sql(
        f"SELECT sample_id, S2_time, lon, bands(S2L2A, ['B08', 'B02']) AS S2L2A, S1GRD, LULC FROM t WHERE {CLEAR} ORDER BY lon"
    )
    dataset = query.to_xarray()
    rows = query.arrow()
    ids = dataset["sample_id"].values.tolist()
    assert ids == rows["sample_id"].to_pylist()
    assert dataset["lon"].values.tolist() == rows["lon"].to_pylist()
    assert dataset["S2_time"].dtype == "datetime64[us]"
    assert dataset["S2L2A"].dims == ("sample", "time", "S2L2A_band", "y", "x")
    red = dataset["S2L2A"].sel(S2L2A_band="B02")
    for at, name in enumerate(ids):
        np.testing.assert_array_equal(red[at].values, stored[name, "S2L2A"][:, 1])
        np.testing.assert_array_equal(dataset["LULC"][at].values, stored[name, "LULC"])
        if (name, "S1GRD") in stored:
            np.testing.assert_array_equal(dataset["S1GRD"][at].values, stored[name, "S1GRD"])
    present = dataset["S1GRD_present"].values.tolist()
    assert present == [(name, "S1GRD") in stored for name in ids]
    assert 0 < sum(present) < len(present)


def test_tiles_and_samples_share_no_axis_of_another_length(bank):
    joined = bank.sql(
        "SELECT s.sample_id, s.DEM AS whole, t.S2L2A AS tile FROM t.tiles t JOIN t s USING (sample_id) WHERE t.tile = 0"
    )
    dataset = joined.to_xarray()
    assert dataset["whole"].shape[-2:] == (264, 264)
    assert dataset["tile"].shape[-2:] == (66, 66)


def test_too_much_or_nothing_is_refused(bank):
    with pytest.raises(tb.InvalidInputError, match="dataloader") as refused:
        bank.sql("SELECT S2L2A FROM t").to_xarray(max_bytes=1_000)
    assert refused.value.kind == "too-large"
    with pytest.raises(tb.InvalidInputError, match="no tensor"):
        bank.sql("SELECT sample_id FROM t").to_xarray()


def test_one_sample_by_its_id(bank, stored):
    name = next(n for n, m in stored if m == "S1GRD")
    found = bank.read(name)
    assert set(found) == {m for n, m in stored if n == name}
    for modality, pixels in found.items():
        np.testing.assert_array_equal(pixels, stored[name, modality])
    some = bank.read(name, table="t", split="train", modalities=["S2L2A[B08]", "LULC"])
    np.testing.assert_array_equal(some["S2L2A"], stored[name, "S2L2A"][:, [7]])
    assert set(some) == {"S2L2A", "LULC"}
    for wrong, kind in (("nobody", "unknown-sample"), ("it's", "unknown-sample")):
        with pytest.raises(tb.NotFoundError) as refused:
            bank.read(wrong)
        assert refused.value.kind == kind
    with pytest.raises(tb.NotFoundError):
        bank.read(name, split="val")
    with pytest.raises(tb.InvalidInputError, match="text"):
        bank.read(7)


def test_what_a_notebook_shows_fits_a_line(bank):
    table = bank.table("t")
    shown = [repr(v) for v in (bank, table, table.schema, *table.schema, *table.describe().values())]
    shown += [repr(b) for s in table.describe().values() for b in s.bands]
    assert len(shown) > 30
    assert max(map(len, shown)) < 160
    assert repr(table.schema["LULC"]).startswith("Modality('LULC', uint8, 1 x 1 x 264 x 264: ")
    assert "<pre>S2L2A over 24 samples" in table.describe()["S2L2A"]._repr_html_()
