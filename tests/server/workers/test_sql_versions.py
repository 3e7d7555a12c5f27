"""Statements and requests over other versions of a table than the newest, as the library answers them."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pyarrow as pa
import pytest

import tensorbank as tb
from support.handmade_index import make_table
from support.server_process import PATIENT, serving
from support.service import check_problem
from tensorbank.errors import InvalidInputError, NotFoundError
from tensorbank_server.access.keys import KeyFile

URL = "/v1/banks/eo/sql"
TABLE = "/v1/banks/eo/tables/terramesh"
NEWEST = 5


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """Versions 2 (tagged), and 5: a third part, a column of losses, and one sample fewer; version 1 was removed."""
    bank = tb.create(tmp_path_factory.mktemp("versions") / "bank")
    make_table(bank, "terramesh", parts=3, n=4)
    table = bank.table("terramesh")
    table.at(2).tag("paper-v1", message="eight samples")
    ids = bank.sql("SELECT sample_id FROM terramesh").arrow()["sample_id"]
    table.add_columns(pa.table({"sample_id": ids, "loss": [float(i) for i in range(12)]}))
    table.delete("loss > 10.5")
    bank.gc(older_than=timedelta(0), dry_run=False)
    assert table.at(NEWEST).snapshot().n_samples == 11
    return bank


@pytest.fixture(scope="module")
def served(bank, tmp_path_factory):
    keys = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    _, key = keys.create("analyst", ["read", "sql", "plan", "proxy"])
    _, reader = keys.create("reader", ["read"])
    settings = {**PATIENT, "TENSORBANK_FULL_SQL": "true"}
    with serving(bank.url, "--name", "eo", "--keys", str(keys.path), key=key, **settings) as found:
        found.extra |= {"key": key, "reader": reader}
        yield found


def ask(served, sql, **more: object):
    return served.post(URL, json={"sql": sql, **more})


@pytest.mark.parametrize(
    ("sql", "snapshots"),
    [
        ("SELECT count(*) AS n FROM terramesh AT (VERSION => 2)", {"terramesh@2": 2}),
        ("SELECT sample_id FROM terramesh AT (VERSION => 'paper-v1') ORDER BY 1", {"terramesh@2": 2}),
        ("SELECT count(*) AS n FROM terramesh AT (TIMESTAMP => '2100-01-01')", {"terramesh@5": 5}),
        ("SELECT count(*) AS n FROM terramesh.tiles t AT (VERSION => 2)", {"terramesh@2": 2}),
        (
            "SELECT b.sample_id, b.loss FROM terramesh b ANTI JOIN terramesh a AT (VERSION => 2) USING (sample_id) ORDER BY 1",
            {"terramesh": NEWEST, "terramesh@2": 2},
        ),
        ("SELECT sample_id, loss FROM terramesh WHERE loss > 3.5 ORDER BY loss", {"terramesh": NEWEST}),
        ("SELECT 'meet me at (noon)' AS said", {}),
    ],
)
def test_answers_are_those_of_the_library(served, bank, sql, snapshots):
    answer = ask(served, sql)
    assert answer.status_code == 200, answer.text
    rows = bank.sql(sql).arrow().to_pylist()
    assert rows
    assert answer.json()["rows"] == rows
    assert answer.json()["snapshots"] == snapshots


@pytest.mark.parametrize(
    ("at", "status", "code", "words"),
    [
        ("VERSION => 77", 404, "unknown-snapshot", "no version 77"),
        ("VERSION => 1", 404, "unknown-snapshot", "was removed by `tensorbank gc`"),
        ("VERSION => 'paper-v2'", 404, "unknown-tag", "Did you mean 'paper-v1'"),
        ("TIMESTAMP => '2000-01-01'", 404, "unknown-snapshot", "had no version at"),
        ("TIMESTAMP => now()", 400, "sql", "a constant"),
        ("VERSION => 2.5", 400, "sql", "an AT takes"),
    ],
)
def test_a_version_that_is_not_there_is_told(served, bank, at, status, code, words):
    answer = ask(served, f"SELECT count(*) FROM terramesh AT ({at})")
    check_problem(answer, status, code)
    assert words in answer.json()["detail"]
    assert bank.url.removeprefix("file://") not in answer.text


def test_what_has_no_versions_is_told(served):
    answer = ask(served, "SELECT count(*) FROM terrames AT (VERSION => 2)")
    check_problem(answer, 400, "unknown-table")
    assert "'terramesh'" in answer.json()["detail"]
    deep = ask(served, f"SELECT {'1 + ' * 900}1 FROM terramesh AT (VERSION => 2)")
    check_problem(deep, 400, "sql")
    check_problem(ask(served, "SELECT x FROM terramesh AT (VERSION => 2)"), 400, "sql")


def test_an_at_opens_nothing(served):
    headers = {"Authorization": f"Bearer {served.extra['reader']}"}
    sql = {"sql": "SELECT count(*) FROM terramesh AT (VERSION => 2)"}
    check_problem(httpx.post(served.url + URL, json=sql, headers=headers), 403, "scope")
    escape = "SELECT * FROM read_text('/etc/passwd') JOIN terramesh AT (VERSION => 2) ON true"
    check_problem(ask(served, escape), 400, "sql")


def test_snapshots_are_given_by_tag_and_time_everywhere(served):
    size = served.get(f"{TABLE}/size?snapshot=paper-v1")
    assert size.json()["size"]["n_samples"] == 8
    assert size.headers["cache-control"] == "private, no-cache", "a tag can be made anew"
    assert "immutable" in served.get(f"{TABLE}/size?snapshot=2").headers["cache-control"]
    assert served.get(f"{TABLE}/size?snapshot=2100-01-01").json()["snapshot"] == NEWEST
    counted = ask(served, "SELECT count(*) AS n FROM terramesh", snapshots={"terramesh": "paper-v1"})
    assert counted.json()["rows"] == [{"n": 8}]
    body = {"table": "terramesh", "modalities": ["S2L2A"]}
    ids = {
        served.post("/v1/banks/eo/plans", json={**body, "snapshot": name}).json()["id"]
        for name in ("paper-v1", 2, "2")
    }
    assert len(ids) == 1
    for url, name, code in (("plans", "paper-v2", "unknown-tag"), ("plans", 1, "unknown-snapshot")):
        answer = served.post(f"/v1/banks/eo/{url}", json={**body, "snapshot": name})
        check_problem(answer, 404, code)
    check_problem(served.get(f"{TABLE}/size?snapshot=paper"), 404, "unknown-tag")
    assert "'terramesh'" in served.get("/v1/banks/eo/tables/terrames").json()["detail"]


def test_a_client_pins_by_tag_and_time(served, bank):
    there = tb.open(served.url, key=served.extra["key"])
    assert (
        there.sql("SELECT count(*) AS n FROM terramesh AT (VERSION => 'paper-v1')").arrow()["n"][0].as_py()
        == 8
    )
    pinned = there.at({"terramesh": "paper-v1"})
    assert pinned.versions == {"terramesh": 2}
    assert len(pinned.query("terramesh").select("S2L2A").plan()) == 8
    assert [(t.name, t.version, t.message) for t in there.table("terramesh").tags()] == [
        ("paper-v1", 2, "eight samples")
    ]
    assert str(there.table("terramesh").tags()[0].owner) == "somebody"
    with pytest.raises(NotFoundError, match="Did you mean 'paper-v1'") as caught:
        there.at({"terramesh": "paper-v2"})
    assert caught.value.kind == "unknown-tag"
    with pytest.raises(InvalidInputError, match="cannot name a tag"):
        there.at({"terramesh": "../size"})
