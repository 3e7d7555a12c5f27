"""Plans over HTTP: the library's samples and bytes, delivered whole, open to outside programs, refreshed, and nobody else's."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import xarray

from support.plan_client import open_references, pixels_of, records_of
from support.server_process import serving
from support.service import QUERY, check_problem, make
from support.waiting import wait_until
from tensorbank_server.http.page_tokens import PageTokens
from tensorbank_server.http.problems import Problem

SQL = "SELECT sample_id, bands(S2L2A, ['B08', 'B02']), S1GRD FROM terramesh WHERE S2L2A.B08.mean > 500"


@pytest.fixture(scope="module")
def plan(service):
    return make(service)


@pytest.fixture(scope="module")
def expected(bank):
    return bank.sql(SQL).plan()


# ------------------------------------------------------------ the plan


def test_a_plan_is_that_of_the_library(service, plan, expected, bank):
    assert plan["state"] == "completed"
    assert plan["n_samples"] == len(expected)
    assert plan["read_bytes"] == expected.read_bytes
    assert plan["tensor_bytes"] == expected.tensor_bytes
    assert plan["snapshot"] == 1
    assert service.get(f"/v1/plans/{plan['id']}").json() == plan


def test_the_same_question_has_the_same_id(service, plan):
    answer = service.post("/v1/banks/eo/plans", json=QUERY)
    assert (answer.status_code, answer.json()["id"]) == (200, plan["id"])
    tree = {"op": ">", "args": [{"property": "S2L2A.B08.mean"}, 500]}
    assert make(service, filter=tree)["id"] == plan["id"], "however it is written"
    assert make(service, snapshot=1)["id"] == plan["id"]
    for other in (
        {"filter": "S2L2A.B08.mean > 501"},
        {"modalities": ["S2L2A"]},
        {"columns": ["lon"]},
        {"limit": 2},
        {"snapshot": 0},
    ):
        assert make(service, **other)["id"] != plan["id"]


def test_who_asks_at_once_gets_one_plan_that_is_made(service):
    def ask(question: dict) -> tuple[str, int]:
        made = make(service, **question)
        return made["id"], service.get(f"/v1/plans/{made['id']}/tasks").status_code

    with ThreadPoolExecutor(8) as pool:
        for n in range(8):  # questions that nobody has asked before
            question = {"filter": f"lon > {-500 - n}"}
            answers = list(pool.map(ask, [question] * 8))
            assert len({identity for identity, _ in answers}) == 1
            assert [status for _, status in answers] == [200] * 8


def test_ndjson_has_every_task_and_an_end(service, plan, expected):
    records = records_of(service.get(f"/v1/plans/{plan['id']}/tasks"))
    assert [next(iter(r)) for r in records] == ["task"] * len(expected) + ["end"]
    end = records[-1]["end"]
    assert (end["n_tasks"], end["n_total"], end["next"]) == (len(expected), len(expected), None)
    ids = expected.table["sample_id"].to_pylist()
    assert [r["task"]["columns"]["sample_id"] for r in records[:-1]] == ids
    assert {"S1GRD" in r["task"]["tensors"] for r in records[:-1]} == {True, False}
    for r in records[:-1]:
        task = r["task"]
        for name in ("S2L2A", "S1GRD"):
            a = expected.addresses[name]
            at = task["position"]
            if a.shard_of[at] < 0:
                assert name not in task["tensors"]
                continue
            assert task["tensors"][name]["shard"] == a.shard_keys[a.shard_of[at]]
            wanted = [[s, s + n] for s, n in zip(a.starts[at].tolist(), a.lengths[at].tolist(), strict=True)]
            assert task["tensors"][name]["ranges"] == wanted


def test_arrow_is_the_plans_table(service, plan, expected):
    answer = service.get(
        f"/v1/plans/{plan['id']}/tasks", headers={"Accept": "application/vnd.apache.arrow.stream"}
    )
    reader = pa.ipc.open_stream(answer.content)
    words = json.loads(reader.schema.metadata[b"tensorbank.plan"])
    assert words["fingerprint"] == plan["fingerprint"]
    assert [h["bands"] for h in words["handles"]] == [["B08", "B02"], ["vv", "vh"]]
    batches, metadata = [], None
    while True:
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
        batches.append(batch)
    end = json.loads(metadata[b"tensorbank.end"])
    assert end["n_total"] == len(expected)
    found = pa.Table.from_batches(batches)
    assert found.to_pylist() == expected.table.to_pylist()


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/vnd.apache.arrow.stream"])
def test_pages_add_up(service, plan, expected, kind):
    ids, token = [], None
    for _ in range(100):
        query = {"limit": 3, **({"next": token} if token else {})}
        answer = service.get(f"/v1/plans/{plan['id']}/tasks", params=query, headers={"Accept": kind})
        if "arrow" in kind:
            reader = pa.ipc.open_stream(answer.content)
            while True:
                try:
                    batch, metadata = reader.read_next_batch_with_custom_metadata()
                except StopIteration:
                    break
                ids += batch["sample_id"].to_pylist()
            end = json.loads(metadata[b"tensorbank.end"])
        else:
            *tasks, last = records_of(answer)
            ids += [t["task"]["columns"]["sample_id"] for t in tasks]
            end = last["end"]
        token = end["next"]
        if token is None:
            break
    assert ids == expected.table["sample_id"].to_pylist()


def test_tokens_belong_to_a_question(service, plan):
    token = records_of(service.get(f"/v1/plans/{plan['id']}/tasks?limit=1"))[-1]["end"]["next"]
    other = make(service, limit=3)
    for url in (
        f"/v1/plans/{other['id']}/tasks?next={token}",
        f"/v1/plans/{plan['id']}/tasks?next={token[:-2]}xx",
        f"/v1/plans/{plan['id']}/tasks?next=%00",
    ):
        check_problem(service.get(url), 400, "page-token")


def test_tokens_end():
    now = [1000.0]
    pages = PageTokens(b"secret", 2_000, lambda: now[0])
    token = pages.token({"at": 3}, "plan", 1)
    assert pages.place(token, "plan", 1) == {"at": 3}
    with pytest.raises(Problem):
        PageTokens(b"other", 2_000, lambda: now[0]).place(token, "plan", 1)
    now[0] += 3_601
    with pytest.raises(Problem, match="expired"):
        pages.place(token, "plan", 1)


# --------------------------------------------------------------- bytes


def test_the_bytes_through_the_service_are_the_pixels(service, plan, truth, bank):
    schema = bank.table("terramesh").schema
    by_id = {r["sample_id"]: p for r, p in truth}
    records = records_of(service.get(f"/v1/plans/{plan['id']}/tasks?access=proxy"))
    urls = {r["shard"]["id"]: r["shard"]["url"] for r in records if "shard" in r}

    def shard_bytes(shard, start, end):
        answer = service.get(urls[shard], headers={"Range": f"bytes={start}-{end - 1}"})
        assert answer.status_code == 206
        assert answer.headers["content-range"].startswith(f"bytes {start}-{end - 1}/")
        assert int(answer.headers["content-length"]) == end - start
        return answer.content

    tasks = [record for record in records if "task" in record]
    assert len(tasks) == plan["n_samples"] > 0
    for record in tasks:
        tensors = record["task"]["tensors"]
        pixels = by_id[record["task"]["columns"]["sample_id"]]
        found = pixels_of(tensors, shard_bytes, schema["S2L2A"], "S2L2A")
        np.testing.assert_array_equal(found, pixels["S2L2A"][0, [1, 7]], "stored order")


def test_ranges_of_a_shard(service, plan):
    records = records_of(service.get(f"/v1/plans/{plan['id']}/tasks?access=proxy"))
    shard = records[0]["shard"]
    whole = service.get(shard["url"])
    assert (whole.status_code, whole.headers["accept-ranges"]) == (200, "bytes")
    n = len(whole.content)
    for header, part in (
        ("bytes=0-0", slice(0, 1)),
        (f"bytes={n - 3}-", slice(n - 3, n)),
        ("bytes=-5", slice(n - 5, n)),
        (f"bytes=7-{n + 9}", slice(7, n)),
        (f"bytes=-{n + 5}", slice(0, n)),
    ):
        answer = service.get(shard["url"], headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, whole.content[part])
    for header in (
        f"bytes={n}-",
        "bytes=5-4",
        "bytes=-0",
        "bytes=-",
        "bytes=" + "9" * 40 + "-",
    ):
        answer = service.get(shard["url"], headers={"Range": header})
        check_problem(answer, 416, "range")
        assert answer.headers["content-range"] == f"bytes */{n}"
    for header in ("bytes=0-1,3-4", "bytes=0-1, -5", "items=0-1", "seconds=1-2,4"):
        answer = service.get(shard["url"], headers={"Range": header})
        assert (answer.status_code, answer.content) == (200, whole.content)
    for header in ("BYTES=0-2", "bytes=0-" + "9" * 30):
        answer = service.get(shard["url"], headers={"Range": header})
        assert answer.status_code == 206
        assert whole.content.startswith(answer.content)
    head = service.client.head(shard["url"])
    assert (head.status_code, int(head.headers["content-length"]), head.content) == (200, n, b"")


def test_only_the_plans_own_objects_are_read(service, plan):
    for key in (
        "terramesh/index/samples/_delta_log/00000000000000000000.json",
        "terramesh/tensors/x",
        "..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
    ):
        check_problem(service.get(f"/v1/plans/{plan['id']}/shards/{key}"), 404, "unknown-shard")
    body = {"access": "proxy", "shards": ["terramesh/index/samples/_delta_log/00000000000000000000.json"]}
    check_problem(service.post(f"/v1/plans/{plan['id']}/credentials", json=body), 404, "unknown-shard")


def test_credentials_are_pages_of_all_shards(service, plan):
    found = service.post(f"/v1/plans/{plan['id']}/credentials", json={"access": "proxy"})
    assert found.headers["cache-control"] == "no-store"
    assert len(found.json()["shards"]) == plan["n_shards"]
    assert found.json()["next"] is None
    check_problem(
        service.post(f"/v1/plans/{plan['id']}/credentials", json={"access": "url"}), 409, "no-access"
    )


# ---------------------------------------------------------------- zarr


def test_xarray_opens_a_selection(service, plan, truth, expected):
    by_id = {r["sample_id"]: p for r, p in truth}
    ids = expected.table["sample_id"].to_pylist()
    dataset = xarray.open_zarr(
        f"{service.url}/v1/plans/{plan['id']}/zarr", consolidated=True, mask_and_scale=False
    )
    assert dataset.attrs["plan"] == plan["id"]
    assert dataset["S2L2A"].shape[0] == len(ids)
    assert dataset["S2L2A"].attrs["band_names"] == ["B08", "B02"]
    assert dataset["sample_id"].values.tolist() == ids
    assert "sample_id" in dataset.coords
    assert dataset["S2L2A"].coords["S2L2A_band"].values.tolist() == ["B08", "B02"]
    assert int(dataset["sample_id"].sizes["sample"]) == len(ids)
    for at in (0, len(ids) - 1):
        np.testing.assert_array_equal(dataset["S2L2A"][at].values, by_id[ids[at]]["S2L2A"][:, [7, 1]])
    assert {"S1GRD" in by_id[sample] for sample in ids} == {True, False}
    for at, sample in enumerate(ids):
        found = dataset["S1GRD"][at].values
        if "S1GRD" in by_id[sample]:
            np.testing.assert_array_equal(found, by_id[sample]["S1GRD"])
        else:
            assert np.isnan(found).all(), "what a sample lacks is fill"


def test_references_open_in_xarray(service, plan, truth, expected):
    by_id = {r["sample_id"]: p for r, p in truth}
    ids = expected.table["sample_id"].to_pylist()
    dataset = open_references(service.get(f"/v1/plans/{plan['id']}/references.json").json())
    np.testing.assert_array_equal(dataset["S2L2A"][2].values, by_id[ids[2]]["S2L2A"][:, [7, 1]])


@pytest.mark.parametrize(
    "path",
    [
        "",
        "zarr.jso",
        "S2L2A",
        "S2L2A/c",
        "S2L2A/c/0/0/2/0/0",
        "S2L2A/c/99/0/0/0/0",
        "S2L2A/c/0/0/0/0",
        "DEM/zarr.json",
        "S2L2A/c/-1/0/0/0/0",
    ],
)
def test_what_is_no_chunk_is_absent(service, plan, path):
    assert service.get(f"/v1/plans/{plan['id']}/zarr/{path}").status_code == 404


# --------------------------------------------------------- life of a plan


def test_plans_outlive_the_service(bank_folder, tmp_path):
    data = str(tmp_path / "data")
    with serving(str(bank_folder), "--name", "eo", TENSORBANK_DATA_FOLDER=data) as served:
        first = make(served)
        tasks = served.get(f"/v1/plans/{first['id']}/tasks").text
    with serving(str(bank_folder), "--name", "eo", TENSORBANK_DATA_FOLDER=data) as served:
        again = served.get(f"/v1/plans/{first['id']}").json()
        assert {k: v for k, v in again.items() if k != "links"} == {
            k: v for k, v in first.items() if k != "links"
        }
        assert served.get(f"/v1/plans/{first['id']}/tasks").text == tasks


def test_a_plan_that_another_replica_removed_is_made_again(bank_folder, tmp_path):
    """Also one whose file this process has mapped."""
    data = tmp_path / "data"
    with serving(str(bank_folder), "--name", "eo", TENSORBANK_DATA_FOLDER=str(data)) as served:
        first = make(served)
        path = f"/v1/plans/{first['id']}/tasks"
        tasks = served.get(path).text
        files = list(data.rglob(f"{first['id']}.*"))
        assert len(files) >= 2
        for file in files:
            file.unlink()
        check_problem(served.get(path), 410, "gone")
        assert make(served)["id"] == first["id"]
        assert served.get(path).text == tasks
        for file in data.rglob(f"{first['id']}.*"):
            file.unlink()
        assert make(served)["state"] == "completed", "whoever asks for it anew need not look first"
        assert served.get(path).text == tasks


def test_a_cancelled_plan_is_gone_when_nobody_needs_it(service):
    made = make(service, filter="lon > -1000")
    assert service.client.delete(f"/v1/plans/{made['id']}").status_code == 204
    check_problem(service.get(f"/v1/plans/{made['id']}/tasks"), 410, "cancelled")
    assert service.get(f"/v1/plans/{made['id']}").json()["state"] == "cancelled"
    assert make(service, filter="lon > -1000")["state"] == "completed", "it can be asked for again"


def test_a_slow_plan_is_waited_for_elsewhere(bank_folder):
    with serving(str(bank_folder), "--name", "eo", TENSORBANK_LIMITS__SYNC_S="0.000001") as served:
        answer = served.post("/v1/banks/eo/plans", json=QUERY)
        assert answer.status_code == 202
        assert answer.json()["state"] == "submitted"
        assert answer.headers["retry-after"] == "1"
        where = answer.headers["location"]
        check_problem(served.get(f"{where}/tasks"), 409, "not-ready")
        wait_until(lambda: served.get(where).json()["state"] != "submitted", "the plan is not made")
        assert served.get(where).json()["state"] == "completed"


def test_a_plan_that_takes_too_long_is_ended(bank_folder):
    with serving(
        str(bank_folder),
        "--name",
        "eo",
        TENSORBANK_LIMITS__PLAN_S="0.001",
        TENSORBANK_LIMITS__QUERY_S="0.001",
    ) as served:
        check_problem(served.post("/v1/banks/eo/plans", json=QUERY), 504, "time-limit")
        deadline = time.monotonic() + 60
        while (answer := served.get("/v1/banks/eo/tables/terramesh/size")).status_code == 503:
            assert time.monotonic() < deadline, "the worker that was ended is not replaced"
        check_problem(answer, 504, "time-limit")
        assert served.get("/v1/banks/eo/tables/terramesh/schema").status_code == 200
        assert 'tensorbank_query_worker_restarts_total{reason="late"}' in served.get("/metrics").text


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid-request"),
        ({"table": "terramesh", "x": 1}, 422, "invalid-request"),
        ({"table": "nope"}, 404, "unknown-table"),
        ({"table": "terramesh; DROP"}, 404, "unknown-table"),
        ({"table": "terramesh", "snapshot": 9}, 404, "unknown-snapshot"),
        ({"table": "terramesh", "modalities": ["NOPE"]}, 404, "unknown-modality"),
        ({"table": "terramesh", "modalities": ["DEM"], "bands": {"S2L2A": ["B02"]}}, 422, "invalid-request"),
        ({"table": "terramesh", "bands": {"S2L2A": ["B77"]}}, 404, "unknown-band"),
        ({"table": "terramesh", "bands": {"S2L2A": []}}, 400, "invalid-input"),
        ({"table": "terramesh", "columns": ["footprint"]}, 422, "invalid-request"),
        ({"table": "terramesh", "columns": ["1; SELECT 1"]}, 422, "invalid-request"),
        ({"table": "terramesh", "filter": "x ="}, 400, "filter"),
        ({"table": "terramesh", "filter": {"op": "getenv", "args": []}}, 400, "filter"),
        ({"table": "terramesh", "filter": [1]}, 422, "invalid-request"),
        ({"table": "terramesh", "limit": 0}, 422, "invalid-request"),
    ],
)
def test_bad_plans_are_refused(service, body, status, code):
    check_problem(service.post("/v1/banks/eo/plans", json=body), status, code)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[" * 60_000, b'{"table": NaN}', b"\xff\xfe", b'{"a":' * 9_000]
)
def test_bodies_that_are_no_json_are_refused(service, content):
    answer = service.post("/v1/banks/eo/plans", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_empty_selection_is_a_plan_without_tasks(service):
    made = make(service, filter="lon > 500")
    assert made["n_samples"] == 0
    (end,) = records_of(service.get(f"/v1/plans/{made['id']}/tasks"))
    assert end["end"]["n_total"] == 0
    arrow = service.get(
        f"/v1/plans/{made['id']}/tasks", headers={"Accept": "application/vnd.apache.arrow.stream"}
    )
    assert pa.ipc.open_stream(arrow.content).read_all().num_rows == 0
