"""Slips of the pen in names of tensors, tables and functions: the sentence names what was meant."""

from __future__ import annotations

import pytest

import tensorbank as tb
from support.handmade_index import LULC, NDVI, make_table
from tensorbank import Band, Modality, TableSchema, TensorBankError

S2 = Modality("S2L2A", "int16", tuple(Band(b) for b in ("B02", "B03", "B04", "B08", "B8A")), 1, 8, 8)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    bank = tb.create(tmp_path_factory.mktemp("slips"))
    make_table(bank, "terramesh", parts=1, n=12, schema=TableSchema((S2, NDVI, LULC)))
    return bank


def answers(bank, sql: str) -> list[tuple[str, str]]:
    """Return the kind and sentence of the refusal by each way of asking."""
    found = []
    for ask in (bank.sql(sql).plan, bank.sql(sql).arrow):
        with pytest.raises(TensorBankError) as caught:
            ask()
        found.append((caught.value.kind, str(caught.value)))
    return found


@pytest.mark.parametrize(
    ("condition", "kind", "words"),
    [
        ("S2L2A.mean > 3", "unknown-band", "each with statistics of its own; name one, such as S2L2A.B04.mean"),
        ("t.S2L2A.p98 > 3", "unknown-band", "name one, such as t.S2L2A.B04.p98"),
        ("S2L2A.B8.mean > 3", "unknown-band", "modality S2L2A has no band 'B8'. Did you mean 'B8A' or 'B08'?"),
        ("S2L2A.B88 IS NULL", "unknown-band", "modality S2L2A has no band 'B88'. Did you mean"),
        ("S2L2A.B04.avg > 3", "sql", "S2L2A.B04 has no statistic 'avg'. Choose from count, max, mean, min, p02"),
        ("S2L2A.B04.maen > 3", "sql", "S2L2A.B04 has no statistic 'maen'. Did you mean 'mean'"),
        ("NDVI.NDVI.mean > 0.3", "sql", "NDVI has no statistic 'NDVI'"),
        ("NDVI > 0.3", "sql", "NDVI is a tensor, not a number; take a statistic of it, such as NDVI.mean"),
        ("0.3 < t.NDVI", "sql", "t.NDVI is a tensor, not a number; take a statistic of it, such as t.NDVI.mean"),
        ("NDVI BETWEEN 0.1 AND 0.3", "sql", "such as NDVI.mean"),
        ("S2L2A = 0", "sql", "such as S2L2A.B04.mean"),
        ("NDVI * 2 > 1", "sql", "such as NDVI.mean"),
        ("1 < (SELECT avg(NDVI) FROM terramesh)", "sql", "such as NDVI.mean"),
        ("within_bbox(lon, lat, 3)", "sql", "within_bbox(lon, lat, west, south, east, north)"),
        ("nd(S2L2A.B08, S2L2A.B04) > 0.2", "sql", "inside of a predicate of pixels"),
        ("split_fraction(split) < 0.1", "sql", "split_fraction(cell_id, seed)"),
        ("hilbert_cell(hilbert, 17) = 0", "sql", "a level of 0 to 16"),
        ("hilbert_cell(hilbert, -1) = 0", "sql", "a level of 0 to 16"),
        ("LULC = 2", "sql", "such as LULC.share.trees"),
        ("LULC.trees > 0.3", "sql", "whose shares are its statistics; there is no 'trees', but LULC.share.trees"),
        ("LULC.mean > 0.3", "sql", "there is no 'mean', but LULC.share.trees"),
        ("LULC.share.tree > 0.3", "sql", "modality LULC has no class 'tree'. Did you mean 'trees'?"),
        ("zzzzzz < 0.1", "sql", "there is no column 'zzzzzz'. DESCRIBE of the table lists its columns."),
        ("cloudcover < 0.1", "sql", "there is no column 'cloudcover'. Did you mean 'cloud_cover'"),
        ("t.cloudcover < 0.1", "sql", "there is no column 'cloudcover' in 't'. Did you mean 'cloud_cover'"),
    ],
)  # fmt: skip
def test_a_name_that_is_nearly_right(bank, condition, kind, words):
    found = answers(bank, f"SELECT t.NDVI FROM terramesh t WHERE {condition}")
    assert [got for got, _ in found] == [kind] * 2
    for _, sentence in found:
        assert words in sentence
        assert "STRUCT" not in sentence


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT bands(S2L2A, ['B8']) FROM terramesh",
        "SELECT sample_id, bands(t.S2L2A, ['B04', 'B8']) AS x FROM terramesh t",
        "WITH c AS (SELECT S2L2A AS s FROM terramesh) SELECT bands(s, ['B8']) FROM c LIMIT 0",
        "SELECT NDVI FROM terramesh WHERE bands(S2L2A, ['B8']).ref.key IS NULL",
    ],
)
def test_a_band_that_there_is_not_is_an_error_wherever_it_stands(bank, sql):
    found = answers(bank, sql)
    assert [(kind, "B08" in sentence) for kind, sentence in found] == [("unknown-band", True)] * 2


def test_a_misspelt_table_or_function(bank):
    sentence = "there is no table 'terramsh'. Did you mean 'terramesh'?"
    assert answers(bank, "SELECT NDVI FROM terramsh") == [("unknown-table", sentence)] * 2
    found = answers(bank, "SELECT NDVI FROM terramesh.sample")
    assert [(kind, "samples" in sentence) for kind, sentence in found] == [("unknown-table", True)] * 2
    found = answers(bank, "SELECT NDVI FROM terramesh WHERE lowr(season) = 'summer'")
    assert [(kind, "lower" in sentence) for kind, sentence in found] == [("sql", True)] * 2


def test_the_command_fails_for_a_wrong_band(bank, capsys):
    from tensorbank.cli.app import main

    assert main(["query", bank.url, "SELECT bands(S2L2A, ['B8']) FROM terramesh"]) in (1, 2)
    assert "B08" in capsys.readouterr().err
    assert main(["query", bank.url, "SELECT bands(S2L2A, ['B08']) FROM terramesh"]) == 0


def test_right_names_are_left_alone(bank):
    sql = (
        "SELECT s.x FROM (SELECT S2L2A AS x, NDVI AS mean FROM terramesh) s "
        "WHERE s.x.b04.MEAN IS NOT NULL AND mean.max IS NOT NULL AND s.x.ref.row >= 0"
    )
    assert len(bank.sql(sql).plan())
