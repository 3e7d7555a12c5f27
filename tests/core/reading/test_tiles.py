"""Tiles as windows of samples, against the arrays as zarr-python reads them; and what a query of handles must not do."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest
import zarr

import tensorbank as tb
from tensorbank import InvalidInputError
from tensorbank.plans import StoreAddress
from tensorbank.reading import SampleReader, block_places
from tensorbank.reading.codec import decode_run
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_loader import DataLoader


@pytest.fixture(scope="module")
def table(make_archives, tmp_path_factory):
    source, _ = make_archives("terramesh", "--samples", "14", "--per-tar", "14", "--subset", "both")
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    ingest(open_source(str(source)), bank, "t", IngestOptions(n_workers=1, samples_per_shard=8))
    ((_, url),) = bank.table("t").parts().items()
    return bank, zarr.open_group(url.removeprefix("file://"), mode="r")


def crop(array: np.ndarray, row: dict) -> np.ndarray:
    return array[
        row["row"], row["time_index"] : row["time_index"] + 1, :, row["y0"] : row["y1"], row["x0"] : row["x1"]
    ]


@pytest.mark.parametrize("handle", ["S2L2A", "NDVI", "LULC", "bands(S2L2A, ['B08', 'B02']) AS S2L2A"])
def test_selected_tiles_are_crops_of_their_samples(table, handle):
    bank, group = table
    name = handle.split()[-1]
    sql = f"SELECT sample_id, row, time_index, y0, y1, x0, x1, {handle} FROM t.tiles WHERE NDVI.mean > 0.3"
    plan = bank.sql(sql).plan()
    rows = bank.sql("SELECT tile FROM t.tiles WHERE NDVI.mean > 0.3").arrow().num_rows
    assert 0 < len(plan) == rows
    whole = group[name][:]
    with DataLoader(plan, batch_size=7, seed=2) as loader:
        seen = 0
        for batch in loader:
            for i, tensor in enumerate(batch[name]):
                row = {k: int(batch[k][i]) for k in ("row", "time_index", "y0", "y1", "x0", "x1")}
                expected = crop(whole, row)[0]
                expected = expected[[7, 1]] if "bands" in handle else expected
                np.testing.assert_array_equal(tensor.numpy(), expected)
                seen += 1
    assert seen == rows


def counted(outs, seen):
    for out in outs:
        seen.append(1)
        yield out


def test_a_block_is_decoded_once_for_all_its_tiles_in_a_batch(table, monkeypatch):
    bank, group = table
    plan = bank.sql(
        "SELECT row, time_index, y0, y1, x0, x1, bands(S2L2A, ['B08', 'B02']) AS S2L2A FROM t.tiles "
        "WHERE row < 3 AND S2L2A IS NOT NULL ORDER BY sample_id, tile"
    ).plan()
    decoded = []
    monkeypatch.setattr(
        block_places, "decode_run", lambda data, outs: decode_run(data, counted(outs, decoded))
    )
    with closing(SampleReader.of(plan)) as opened:
        tensors = opened.read(range(len(plan)))["S2L2A"]
    assert len(plan) == 3 * 16
    assert len(decoded) == 3 * 2
    whole = group["S2L2A"][:]
    for tensor, row in zip(tensors, plan.table.to_pylist(), strict=True):
        np.testing.assert_array_equal(tensor[0], crop(whole, row)[0][[7, 1]])


def test_a_sample_that_comes_twice_is_decoded_once(table, monkeypatch):
    bank, _ = table
    decoded = []
    monkeypatch.setattr(
        block_places, "decode_run", lambda data, outs: decode_run(data, counted(outs, decoded))
    )
    with closing(SampleReader.of(bank.sql("SELECT NDVI FROM t").plan())) as opened:
        found = opened.read([4, 1, 4, 4])["NDVI"]
        assert len(decoded) == 2
        np.testing.assert_array_equal(found[[0, 2]], opened.read([4, 4])["NDVI"])
        np.testing.assert_array_equal(found[[1, 3]], opened.read([1, 4])["NDVI"])


def test_tiles_join_their_samples(table):
    bank, _ = table
    plan = bank.sql(
        "SELECT s.S2L2A AS whole, t.S2L2A AS part, t.row AS row, t.y0 AS y0, t.x0 AS x0 "
        "FROM t.tiles AS t JOIN t AS s USING (sample_id) WHERE t.LULC.share.trees > 0.2"
    ).plan()
    assert len(plan) > 0
    batch = next(iter(plan.dataloader(batch_size=5, seed=1)))
    for whole, part, y, x in zip(
        batch["whole"], batch["part"], batch["y0"].tolist(), batch["x0"].tolist(), strict=True
    ):
        height, width = part.shape[-2:]
        np.testing.assert_array_equal(whole[..., y : y + height, x : x + width].numpy(), part.numpy())


def test_a_polygon_meets_the_same_footprints_with_and_without_boxes_before_it(table):
    bank, _ = table
    boxes = bank.sql("SELECT lon, lat FROM t ORDER BY sample_id LIMIT 2").arrow().to_pylist()
    assert len(boxes) == 2
    for point in boxes:
        w, s, e, n = point["lon"] - 0.01, point["lat"] - 0.01, point["lon"] + 0.01, point["lat"] + 0.01
        area = f'{{"type":"Polygon","coordinates":[[[{w},{s}],[{e},{s}],[{e},{n}],[{w},{n}],[{w},{s}]]]}}'
        direct = bank.sql(f"SELECT sample_id FROM t WHERE intersects_polygon(footprint, '{area}')")
        hidden = bank.sql(
            f"SELECT sample_id FROM (SELECT sample_id, footprint AS f FROM t) WHERE intersects_polygon(f, '{area}')"
        )
        found = sorted(direct.arrow()["sample_id"].to_pylist())
        assert found == sorted(hidden.arrow()["sample_id"].to_pylist())
        assert found


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("SELECT max(S2L2A) AS S2L2A FROM t", "aggregate"),
        ("SELECT season, any_value(S2L2A) AS S2L2A FROM t GROUP BY season", "aggregate"),
        ("SELECT arg_max(S2L2A, cloud_cover) AS S2L2A FROM t", "aggregate"),
        ("SELECT list(S2L2A) AS S2L2A FROM t", "aggregate|list or struct"),
        ("SELECT max(S2L2A) OVER (PARTITION BY season) AS S2L2A FROM t", "aggregate"),
        ("SELECT S2L2A FROM t USING SAMPLE 3", "REPEATABLE"),
        ("SELECT S2L2A FROM t WHERE random() < 0.5", "random"),
        ("SELECT S2L2A, uuid() AS u FROM t", "uuid"),
        ("SELECT dominant_class(NDVI) FROM t", "categorical"),
    ],
)
def test_what_a_plan_cannot_stand_on_is_refused_in_one_sentence(table, sql, hint):
    with pytest.raises(InvalidInputError, match=hint) as caught:
        table[0].sql(sql).plan()
    assert "\n" not in str(caught.value)


def test_a_seeded_sample_is_a_plan(table):
    bank, _ = table
    sql = "SELECT S2L2A FROM t USING SAMPLE reservoir(5 ROWS) REPEATABLE (7)"
    assert len(bank.sql(sql).plan()) == 5
    assert bank.sql(sql).plan().table == bank.sql(sql).plan().table
    assert bank.sql("SELECT count(*) AS n FROM t WHERE random() < 2").arrow()["n"].to_pylist() == [14]


def test_rows_of_one_snapshot_only_meet_handles_of_it(table):
    """A handle kept from another time is Arrow, not a handle: it has no address that the reader would follow."""
    bank = tb.open(table[0].url)
    bank.register("kept", bank.sql("SELECT sample_id, S2L2A FROM t").arrow())
    with pytest.raises(InvalidInputError, match="another query returned"):
        bank.sql("SELECT k.S2L2A FROM t JOIN kept AS k USING (sample_id)").plan()
    ref = {
        "key": "t/tensors/part-of-yesterday/S2L2A/c/0/0/0/0",
        "row": 0,
        "offset": 0,
        "length": 9,
        "block_bytes": [9],
    }
    bank.register("stolen", pa.Table.from_pylist([{"S2L2A": {"ref": ref}}]))
    with pytest.raises(InvalidInputError, match="another snapshot"):
        bank.sql("SELECT s.S2L2A FROM t, stolen AS s").plan()


def test_a_million_samples_fit_in_40_mb(tmp_path):
    n = 1_000_000
    from tensorbank import Band, Modality, Plan
    from tensorbank.plans import PlanSource
    from tensorbank.plans.handle import Handle

    modalities = [Modality(m, "int16", (Band("a"), Band("b")), 1, 8, 8) for m in ("S2L2A", "S1RTC")]
    handles = tuple(Handle(m.name, m, (0, 1)) for m in modalities)
    columns: dict[str, object] = {}
    for m in modalities:
        keys = pa.array([f"t/tensors/part-{i // 100:04d}/{m.name}/c/{i % 100}/0/0/0/0" for i in range(4000)])
        codes = pa.array(np.arange(n, dtype=np.int32) // 250)
        columns[f"{m.name}.key"] = pa.DictionaryArray.from_arrays(codes, keys)
        columns[f"{m.name}.starts"] = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(n) * 400_000), 1)
        columns[f"{m.name}.lengths"] = pa.FixedSizeListArray.from_arrays(
            pa.array(np.full(n, 400_000, np.uint32)), 1
        )
    plan = Plan("f" * 32, PlanSource("", {}, 1), handles, pa.table(columns), StoreAddress("file:///b"))
    assert plan.table.nbytes < 40_000_000
    path = tmp_path / "plan.arrow"
    plan.save(path)
    assert path.stat().st_size < 40_000_000
    before = pa.total_allocated_bytes()
    loaded = Plan.load(path)
    assert pa.total_allocated_bytes() - before < 1_000_000  # memory-mapped
    assert loaded.table == plan.table
