"""Access ``dir``: keys of a store's own STS that read the folders of a plan, in SeaweedFS, which enforces session policies."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorbank as tb
from support.server_process import serving
from tensorbank.errors import StorageError
from tensorbank.storage.address import StorageOptions
from tensorbank.storage.store import Store
from tensorbank_demo.s3.server import S3Server
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_server.access.folder_keys import MAX_POLICY_CHARS, assume, folders_of, read_policy


@pytest.fixture(scope="module")
def server():
    with S3Server.start(with_role=True) as running:
        yield running


@pytest.fixture(scope="module")
def bank(archive, server):
    keys = {"access_key": server.access_key, "secret_key": server.secret_key}
    made = tb.create(f"{server.url}/bank", endpoint=server.endpoint, region=server.region, **keys)
    for table in ("terramesh", "other"):
        ingest(open_source(str(archive[0])), made, table, IngestOptions(n_workers=1, samples_per_shard=8))
    return made


@pytest.fixture(scope="module")
def service(bank, server, tmp_path_factory):
    audit = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    settings = {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "TENSORBANK_BANKS__EO__URL": bank.url,
        "TENSORBANK_BANKS__EO__ENDPOINT": server.endpoint,
        "TENSORBANK_BANKS__EO__REGION": server.region,
        "TENSORBANK_BANKS__EO__STS_ROLE": server.role,
        "TENSORBANK_AUDIT_FILE": str(audit),
    }
    with serving(**settings) as running:
        running.extra["audit"] = audit
        yield running


def test_a_plan_is_streamed_by_keys_of_its_folders(service, bank):
    remote = tb.open(service.url, access="dir").query("terramesh").select("sample_id", "DEM").plan()
    direct = bank.query("terramesh").select("sample_id", "DEM").plan()
    assert remote.fingerprint == direct.fingerprint
    with (
        remote.dataloader(batch_size=7, seed=1) as served,
        direct.dataloader(batch_size=7, seed=1) as stored,
    ):
        for mine, theirs in zip(served, stored, strict=True):
            assert mine["sample_id"] == theirs["sample_id"]
            assert (mine["DEM"].numpy() == theirs["DEM"].numpy()).all()
    lines = [json.loads(line) for line in service.extra["audit"].read_text().splitlines()]
    granted = [line for line in lines if line["action"] == "credentials"]
    assert granted
    assert {line["access"] for line in granted} == {"dir"}


def test_keys_open_the_plan_and_nothing_else(service, bank):
    plan = tb.open(service.url, access="dir").query("terramesh").select("DEM").plan()
    shard = plan.addresses["DEM"].shard_keys[0]
    other = bank.query("other").select("DEM").plan().addresses["DEM"].shard_keys[0]
    store = plan.origin.open()
    assert len(store.get_range(shard, 0, 16)) == 16
    beside = bank.catalog.store.objects("terramesh/index")[0].key
    for key in (other, beside):
        assert len(bank.catalog.store.get_range(key, 0, 4)) == 4
        with pytest.raises(StorageError, match="refused"):
            store.get_range(key, 0, 4)
    with pytest.raises(StorageError, match="refused"):
        store.put("terramesh/tensors/new", b"x")
    with pytest.raises(StorageError, match="refused"):
        store.delete(shard)
    with pytest.raises(StorageError, match="refused"):
        store.objects()
    again = pickle.loads(pickle.dumps(store))
    assert bytes(again.get_range(shard, 0, 16)) == bytes(store.get_range(shard, 0, 16))


def test_the_answer_is_not_kept_and_says_when_the_keys_end(service, bank, server):
    plan = service.post("/v1/banks/eo/plans", json={"table": "terramesh", "modalities": ["DEM"]}).json()
    assert plan["access"] == ["url", "dir", "proxy"]
    answer = service.post(f"/v1/plans/{plan['id']}/credentials", json={"access": "dir"})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert found["url"] == bank.url
    assert found["server_time"] < found["expires"]
    assert found["keys"]["access_key"] != server.access_key
    lines = service.get(f"/v1/plans/{plan['id']}/tasks", params={"access": "dir"}).text.splitlines()
    urls = [json.loads(line)["shard"]["url"] for line in lines if line.startswith('{"shard"')]
    assert len(urls) == plan["n_shards"]
    assert all(url.startswith(f"{bank.url}/terramesh/tensors/") for url in urls)
    for secret in ("secret_key", "session_token"):
        assert found["keys"][secret] not in service.log.read_text()
        assert found["keys"][secret] not in service.extra["audit"].read_text()


def test_a_role_that_is_not_there_is_an_error_without_names(bank, server):
    settings = {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "TENSORBANK_BANKS__EO__URL": bank.url,
        "TENSORBANK_BANKS__EO__ENDPOINT": server.endpoint,
        "TENSORBANK_BANKS__EO__REGION": server.region,
        "TENSORBANK_BANKS__EO__STS_ROLE": "arn:aws:iam::role/Nobody",
    }
    with serving(**settings) as running:
        plan = running.post("/v1/banks/eo/plans", json={"table": "terramesh"}).json()
        answer = running.post(f"/v1/plans/{plan['id']}/credentials", json={"access": "dir"})
        assert answer.status_code == 503
        assert answer.json()["code"] == "storage"
        assert "Nobody" not in answer.text
        urls = running.post(f"/v1/plans/{plan['id']}/credentials", json={"access": "url"})
        assert urls.status_code == 200


def test_keys_last_as_long_as_sts_allows(server):
    options = StorageOptions(server.endpoint, server.access_key, server.secret_key, region=server.region)
    made = assume(options, server.role, server.endpoint, read_policy(server.url, ["a/tensors/b"]), "me", 1.0)
    with pytest.raises(StorageError, match="refused"):
        Store(
            server.url,
            StorageOptions(
                server.endpoint, made.access_key, made.secret_key, made.session_token, server.region
            ),
        ).get("c")
    assert made.secret_key not in repr(made)
    assert made.session_token not in repr(made)


@given(st.sets(st.from_regex(r"[a-z]{1,20}/tensors/[a-z0-9-]{1,40}/[A-Z]{1,9}/c/[0-9]{1,4}", fullmatch=True)))
def test_a_policy_names_every_shard_and_fits(keys):
    policy = json.loads(read_policy("s3://bucket/some/bank", folders_of(keys)))
    (statement,) = policy["Statement"]
    assert statement["Action"] == ["s3:GetObject"]
    allowed = [r.removesuffix("*") for r in statement["Resource"]]
    for key in keys:
        arn = f"arn:aws:s3:::bucket/some/bank/{key}"
        assert any(arn.startswith(prefix) for prefix in allowed)
    tables = {key.split("/")[0] for key in keys}
    assert all(
        prefix.removeprefix("arn:aws:s3:::bucket/some/bank/").split("/")[0] in tables for prefix in allowed
    )


def test_a_policy_of_many_parts_names_the_folder_above():
    folders = [f"terramesh/tensors/part-{i:05d}" for i in range(500)]
    policy = read_policy("s3://bucket/bank", folders)
    assert len(policy) <= MAX_POLICY_CHARS
    assert json.loads(policy)["Statement"][0]["Resource"] == ["arn:aws:s3:::bucket/bank/terramesh/tensors/*"]


def test_a_policy_takes_no_character_of_a_prefix_for_a_pattern():
    """``#`` ends nothing, and ``*`` and ``?`` open no other prefix."""
    (statement,) = json.loads(read_policy("s3://bucket/exp#2/a*b?$", ["t/tensors/p"]))["Statement"]
    assert statement["Resource"] == ["arn:aws:s3:::bucket/exp#2/a${*}b${?}${$}/t/tensors/p/*"]
    (statement,) = json.loads(read_policy("s3://bucket", ["t/tensors/p"]))["Statement"]
    assert statement["Resource"] == ["arn:aws:s3:::bucket/t/tensors/p/*"]
