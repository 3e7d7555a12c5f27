"""A table gets a modality that its samples lack: from archives, or computed of what they have."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from support.tiny_source import TinySource, pixels
from tensorbank import Band, Modality
from tensorbank.catalog import Change, LevelChange
from tensorbank.errors import ErrorKind, FormatError, InvalidInputError, NotFoundError
from tensorbank.verification import verify
from tensorbank_indexer import IngestOptions, add_modality, ingest, replace_modality

RADAR = [pixels(i, "S1RTC") for i in range(8)]
NDVI = Modality("NDVI", "float32", (Band("NDVI"),), 1, 8, 8)


def ndvi(batch):
    red, infrared = (batch["S2L2A"][:, :, b : b + 1].astype(np.float32) for b in (0, 1))
    with np.errstate(invalid="ignore"):
        return (infrared - red) / (infrared + red)


def expected_ndvi(i: int) -> np.ndarray:
    return ndvi({"S2L2A": pixels(i, "S2L2A")[None]})[0]


def test_two_sources_bring_a_modality_and_what_is_there_stays(bank, options, stored, same):
    version = bank.table("t").snapshot().version
    report = add_modality(TinySource(4, 2, modalities=("S1RTC",)), bank, "t", "S1RTC", options)
    assert (report.n_given, report.n_kept, report.n_without) == (4, 0, 4)
    same(stored(bank.table("t"), "S1RTC"), [None, None, *RADAR[2:6], None, None])
    second = TinySource(8, edition=2, modalities=("S1RTC", "DEM"))
    report = add_modality(second, bank, "t", "S1RTC", options)
    assert (report.n_given, report.n_kept, report.n_without) == (4, 4, 0)
    table = bank.table("t")
    newer = [pixels(i, "S1RTC", 2) for i in range(8)]
    same(stored(table, "S1RTC"), [*newer[:2], *RADAR[2:6], *newer[6:]])
    same(stored(table, "DEM"), [pixels(i, "DEM") for i in range(8)])
    assert "S1RTC" not in table.at(version).schema
    assert "S1RTC" in table.schema
    lists = bank.sql("SELECT DISTINCT modalities FROM t").arrow()["modalities"].to_pylist()
    assert lists == [["DEM", "S1RTC", "S2L2A"]]
    assert verify(bank, "t").findings == []
    assert add_modality(second, bank, "t", "S1RTC", options).changed is False


def test_other_readers_find_the_array_with_the_rows_of_its_part(bank, options):
    add_modality(TinySource(8, modalities=("S1RTC",)), bank, "t", "S1RTC", options)
    rows = bank.sql("SELECT sample_id, S1RTC.ref AS radar, DEM.ref AS dem FROM t").arrow().to_pylist()
    root = bank.url.removeprefix("file://")
    parts = set()
    for row in rows:
        radar, dem = (row[n]["key"].rpartition("/c/")[0] for n in ("radar", "dem"))
        assert row["radar"]["row"] == row["dem"]["row"]
        assert zarr.open_array(f"{root}/{radar}").shape[0] == zarr.open_array(f"{root}/{dem}").shape[0]
        found = zarr.open_group(f"{root}/{radar.rpartition('/')[0]}", mode="r")["S1RTC"][row["radar"]["row"]]
        np.testing.assert_array_equal(found, RADAR[int(row["sample_id"][-4:])])
        parts |= {n.split("/")[2] for n in (radar, dem)}
    assert {url.rpartition("/")[2] for url in bank.table("t").parts().values()} == parts


def test_what_is_computed_equals_the_formula(bank, options, stored, same):
    sizes = []

    def compute(batch):
        sizes.append(len(batch["sample_id"]))
        assert batch["S2L2A"].shape == (sizes[-1], 1, 2, 8, 8)
        return ndvi(batch)

    report = add_modality(
        compute, bank, "t", NDVI, options, inputs=["S2L2A"], batch_size=1, where="lon < 10.65"
    )
    assert (report.n_given, report.n_without, sizes) == (7, 1, [1] * 7)
    truth = [expected_ndvi(i) for i in range(7)]
    same(stored(bank.table("t"), "NDVI"), [*truth, None])
    means = bank.sql("SELECT NDVI.mean AS m FROM t ORDER BY sample_id").arrow()["m"].to_pylist()
    np.testing.assert_allclose(means[:7], [np.nanmean(t, dtype=np.float64) for t in truth])
    assert means[7] is None
    assert verify(bank, "t").findings == []
    entry = bank.table("t").history()[0]
    assert (entry.operation, entry.details["source_format"]) == ("add-modality", "computed")


def test_nan_of_a_callable_is_stored_and_counts_as_not_valid(bank, options):
    def compute(batch):
        made = ndvi(batch)
        made[..., 0, :] = np.nan
        return made

    add_modality(compute, bank, "t", NDVI, options, inputs=["S2L2A"])
    assert np.isnan(bank.table("t").read("sample-0000")["NDVI"][0, 0, 0]).all()
    rows = bank.sql("SELECT DISTINCT NDVI.valid AS v, NDVI.count AS n FROM t").arrow().to_pylist()
    assert rows == [{"v": 56, "n": 64}]


def test_a_computation_with_a_revision_resumes_and_another_begins_anew(bank, options, stored, same):
    calls = []

    def compute(batch):
        calls.extend(batch["sample_id"])
        if len(calls) == 5:
            raise KeyboardInterrupt
        return ndvi(batch)

    named = IngestOptions(n_workers=1, revision="ndvi-1")
    arguments = {"inputs": ["S2L2A"], "batch_size": 1}
    with pytest.raises(KeyboardInterrupt):
        add_modality(compute, bank, "t", NDVI, named, **arguments)
    assert "NDVI" not in bank.table("t").schema
    report = add_modality(compute, bank, "t", NDVI, named, **arguments)
    assert report.n_resumed in (3, 4)
    assert len(calls) == 5 + 8 - report.n_resumed
    same(stored(bank.table("t"), "NDVI"), [expected_ndvi(i) for i in range(8)])
    assert add_modality(compute, bank, "t", NDVI, named, **arguments).changed is False


def test_a_callable_that_fails_names_the_sample(bank, options):
    def compute(batch):
        if "sample-0003" in batch["sample_id"]:
            raise ZeroDivisionError("no light")
        return ndvi(batch)

    with pytest.raises(InvalidInputError, match="sample-0003: ZeroDivisionError: no light"):
        add_modality(compute, bank, "t", NDVI, options, inputs=["S2L2A"])
    assert bank.table("t").history()[0].operation == "ingest"


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda b: ndvi(b)[:, 0], "shape"),
        (lambda b: ndvi(b)[:1, :, :, :4], "shape"),
        (lambda b: ndvi(b).astype(np.float64) / 3, "float32 does not hold"),
        (lambda b: None, "shape"),
    ],
)
def test_what_a_callable_returns_must_fit_the_modality(bank, options, compute, message):
    with pytest.raises(InvalidInputError, match=message):
        add_modality(compute, bank, "t", NDVI, options, inputs=["S2L2A"])
    assert bank.table("t").history()[0].operation == "ingest"


@pytest.mark.parametrize(
    ("modality", "inputs", "error"),
    [
        ("NDVI", ["S2L2A"], InvalidInputError),
        (NDVI, [], InvalidInputError),
        (NDVI, ["S9"], NotFoundError),
        (Modality("dem", "int16", (Band("a"),), 1, 8, 8), ["S2L2A"], InvalidInputError),
        (Modality("lon", "int16", (Band("a"),), 1, 8, 8), ["S2L2A"], InvalidInputError),
        (Modality("long", "int16", (Band("a"),), 2, 8, 8), ["S2L2A"], FormatError),
        (Modality("small", "int16", (Band("a"),), 1, 1, 1), ["S2L2A"], InvalidInputError),
        (Modality("DEM", "int16", (Band("DEM"),), 1, 4, 8), ["S2L2A"], FormatError),
    ],
)
def test_what_cannot_be_added_is_refused_before_the_callable_is_called(
    bank, options, modality, inputs, error
):
    def compute(_batch):
        raise AssertionError("called")

    if not isinstance(modality, str) and modality.name == "DEM":
        bank.table("t").drop_modality("DEM")
        add_modality(TinySource(4), bank, "t", "DEM", options)
    history = bank.table("t").history()
    with pytest.raises(error):
        add_modality(compute, bank, "t", modality, options, inputs=inputs)
    assert bank.table("t").history() == history


def test_inputs_that_another_replaced_meanwhile_are_read_again(bank, options, stored, same):
    once = []

    def compute(batch):
        if not once:
            once.append(True)
            replace_modality(TinySource(8, edition=2, modalities=("S2L2A",)), bank, "t", "S2L2A", options)
        return ndvi(batch)

    add_modality(compute, bank, "t", NDVI, options, inputs=["S2L2A"])
    assert once == [True]
    same(stored(bank.table("t"), "NDVI"), [ndvi({"S2L2A": pixels(i, "S2L2A", 2)[None]})[0] for i in range(8)])


def test_rows_of_several_parts_in_one_file_each_get_their_own(bank, options, stored, same):
    """A table as it is after small files were put together."""

    def joined(head):
        levels = {}
        for level in ("samples", "tiles", "shards"):
            files = bank.catalog.state(head, level).files.files
            rows = pa.concat_tables([pq.read_table(bank.catalog.path(f)) for f in files])
            shuffled = rows.take(np.random.default_rng(0).permutation(len(rows)))
            levels[level] = LevelChange((bank.catalog.write("t", level, shuffled),), tuple(files))
        return Change("join", levels)

    bank.catalog.publish("t", joined)
    report = add_modality(TinySource(6, 1, modalities=("S1RTC",)), bank, "t", "S1RTC", options)
    assert (report.n_given, report.n_without, len(report.parts)) == (6, 2, 2)
    same(stored(bank.table("t"), "S1RTC"), [None, *RADAR[1:7], None])
    tiles = bank.sql(
        "SELECT S1RTC.vh.max AS high FROM t.tiles WHERE S1RTC IS NOT NULL ORDER BY sample_id, tile"
    )
    cells = np.stack(RADAR[1:7])[:, 0, 1].reshape(6, 2, 4, 2, 4).max(axis=(2, 4)).reshape(-1)
    np.testing.assert_array_equal(tiles.arrow()["high"].to_pylist(), cells)
    assert verify(bank, "t").findings == []


def test_later_samples_bring_the_modality_and_earlier_ones_keep_theirs(bank, options, stored, same):
    add_modality(TinySource(8, modalities=("S1RTC",)), bank, "t", "S1RTC", options)
    ingest(TinySource(2, 8, modalities=("DEM", "S2L2A", "S1RTC")), bank, "t", options)
    assert bank.table("t").snapshot().n_samples == 10
    same(stored(bank.table("t"), "S1RTC", 10), [*RADAR, pixels(8, "S1RTC"), pixels(9, "S1RTC")])


def test_a_source_and_a_callable_are_told_apart(bank, options):
    with pytest.raises(InvalidInputError, match="callable"):
        add_modality(TinySource(8), bank, "t", NDVI, options)
    with pytest.raises(NotFoundError) as unknown:
        add_modality(TinySource(8), bank, "t", "S1RTC", options)
    assert unknown.value.kind == ErrorKind.UNKNOWN_MODALITY
