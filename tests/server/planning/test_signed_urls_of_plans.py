"""Plans of a bank in a store that signs URLs: bytes without the service, and no secret of it."""

from __future__ import annotations

import json
import urllib.request

import httpx
import numpy as np
import pytest

import tensorbank as tb
from support.plan_client import open_references, pixels_of, records_of
from support.server_process import serving
from support.service import check_problem, make
from support.waiting import wait_until
from tensorbank_indexer import IngestOptions, ingest, open_source


@pytest.fixture(scope="module")
def settings_on_s3(archive, s3_server):
    """A copy of the table in SeaweedFS: its URL, and settings of a service."""
    url = f"{s3_server.url}/served"
    keys = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    bank = tb.create(url, endpoint=s3_server.endpoint, region=s3_server.region, **keys)
    ingest(open_source(str(archive[0])), bank, "terramesh", IngestOptions(n_workers=1, samples_per_shard=8))
    return url, {
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_REGION": s3_server.region,
    }


@pytest.fixture(scope="module")
def on_s3(settings_on_s3, s3_server):
    """The table in SeaweedFS, served."""
    url, settings = settings_on_s3
    with serving(url, "--name", "eo", **settings) as served:
        served.extra["secret"] = s3_server.secret_key
        yield served


def test_signed_urls_open_the_plans_bytes(on_s3, truth, bank):
    by_id = {r["sample_id"]: p for r, p in truth}
    plan = make(on_s3)
    assert plan["access"] == ["url", "proxy"]
    records = records_of(on_s3.get(f"/v1/plans/{plan['id']}/tasks?access=url"))
    urls = {r["shard"]["id"]: r["shard"]["url"] for r in records if "shard" in r}
    assert len(urls) == plan["n_shards"]

    def shard_bytes(shard, start, end):
        asked = urllib.request.Request(urls[shard], headers={"Range": f"bytes={start}-{end - 1}"})
        with urllib.request.urlopen(asked) as answer:
            assert answer.status == 206
            return answer.read()

    task = next(r["task"] for r in records if "task" in r)
    found = pixels_of(task["tensors"], shard_bytes, bank.table("terramesh").schema["S2L2A"], "S2L2A")
    np.testing.assert_array_equal(found, by_id[task["columns"]["sample_id"]]["S2L2A"][0, [1, 7]])
    shard = task["tensors"]["S2L2A"]["shard"]
    fresh = on_s3.post(
        f"/v1/plans/{plan['id']}/credentials", json={"access": "url", "shards": [shard]}
    ).json()
    assert set(fresh["shards"]) == {shard}
    urls |= fresh["shards"]
    assert len(shard_bytes(shard, 0, 1)) == 1
    assert on_s3.get(f"/v1/plans/{plan['id']}").json() == plan, "the plan stays what it is"


def test_signed_urls_end(settings_on_s3):
    url, settings = settings_on_s3
    with serving(url, "--name", "eo", **settings, TENSORBANK_URL_LIFETIME_S="1") as served:
        plan = make(served)
        given = served.post(f"/v1/plans/{plan['id']}/credentials", json={"access": "url"}).json()
        shard, signed = next(iter(given["shards"].items()))
        first_byte = {"Range": "bytes=0-0"}
        wait_until(lambda: httpx.get(signed, headers=first_byte).status_code == 403, "the URL never ends")
        fresh = served.post(
            f"/v1/plans/{plan['id']}/credentials", json={"access": "url", "shards": [shard]}
        ).json()
        assert fresh["shards"][shard] != signed


def test_references_of_signed_urls_open_in_xarray(on_s3, truth, bank):
    by_id = {r["sample_id"]: p for r, p in truth}
    plan = make(on_s3)
    ids = [
        r["task"]["columns"]["sample_id"] for r in records_of(on_s3.get(f"/v1/plans/{plan['id']}/tasks"))[:-1]
    ]
    document = on_s3.get(f"/v1/plans/{plan['id']}/references.json").json()
    assert "X-Amz-Signature" in json.dumps(document)
    dataset = open_references(document)
    np.testing.assert_array_equal(dataset["S2L2A"][0].values, by_id[ids[0]]["S2L2A"][:, [7, 1]])


def test_no_secret_leaves_the_service(on_s3):
    plan = make(on_s3)
    on_s3.get(f"/v1/plans/{plan['id']}/tasks?access=url")
    for text in (
        on_s3.log.read_text(),
        on_s3.get("/metrics").text,
        on_s3.get("/v1/config").text,
        json.dumps(plan),
    ):
        assert on_s3.extra["secret"] not in text
        assert "X-Amz-Signature" not in text
    tasks = on_s3.get(f"/v1/plans/{plan['id']}/tasks?access=url").text
    assert on_s3.extra["secret"] not in tasks


def test_urls_are_signed_for_the_name_that_clients_use(on_s3, s3_server, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(
        f"""
        [banks.eo]
        url = "{s3_server.url}/served"
        endpoint = "{s3_server.endpoint}"
        public_endpoint = "https://s3.example.org"
        access_key = "{s3_server.access_key}"
        secret_key_file = "{tmp_path / "secret"}"
        region = "{s3_server.region}"
        """
    )
    (tmp_path / "secret").write_text(s3_server.secret_key + "\n")
    with serving("--settings", str(file)) as served:
        plan = make(served)
        found = served.post(f"/v1/plans/{plan['id']}/credentials", json={"access": "url"}).json()
        assert all(u.startswith("https://s3.example.org/") for u in found["shards"].values())
        assert s3_server.secret_key not in served.log.read_text()


def test_a_store_that_is_gone_is_said_so(tmp_path):
    with serving(
        "s3://nobody/here",
        "--name",
        "eo",
        AWS_ENDPOINT_URL="http://127.0.0.1:9",
        AWS_ACCESS_KEY_ID="x",
        AWS_SECRET_ACCESS_KEY="y",
        ready=False,
    ) as served:
        answer = served.get("/readyz")
        assert (answer.status_code, answer.json()["broken_banks"]) == (503, 1)
        assert served.get("/healthz").status_code == 200
        found = check_problem(served.get("/v1/banks/eo"), 503, "bank-unavailable")
        assert "127.0.0.1:9" not in json.dumps(found)
        assert "retry-after" in served.get("/v1/banks/eo").headers
