"""The callers of plans: who may read and end one, and what the audit log says of it."""

from __future__ import annotations

import json

import httpx
import pytest

from support.server_process import serving
from support.service import QUERY, check_problem, make
from tensorbank_server.access.keys import KeyFile


def test_a_plan_is_for_those_who_may_read_its_bank(bank_folder, tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    texts = {
        "planner": keys.create("planner", ["read", "plan"])[1],
        "reader": keys.create("reader", ["read"])[1],
        "other": keys.create("other", ["read", "plan", "proxy"], banks=["elsewhere"])[1],
    }
    options = ("--name", "eo", "--keys", str(keys.path))
    audit = tmp_path / "audit.jsonl"
    with serving(
        str(bank_folder), *options, key=texts["planner"], TENSORBANK_AUDIT_FILE=str(audit)
    ) as served:
        made = make(served)

        def as_(who, method, path, **more: object):
            return httpx.request(
                method, f"{served.url}{path}", headers={"Authorization": f"Bearer {texts[who]}"}, **more
            )

        check_problem(as_("reader", "POST", "/v1/banks/eo/plans", json=QUERY), 403, "scope")
        check_problem(as_("reader", "GET", f"/v1/plans/{made['id']}"), 403, "scope")
        hidden, absent = (as_("other", "GET", f"/v1/plans/{i}").json() for i in (made["id"], "0" * 32))
        hidden.pop("instance"), absent.pop("instance")
        assert hidden == absent
        check_problem(served.get(f"/v1/plans/{made['id']}/zarr/zarr.json"), 403, "scope")
        check_problem(served.get(f"/v1/plans/{made['id']}/tasks?access=proxy"), 403, "scope")
        written = [json.loads(line) for line in audit.read_text().splitlines()]
        assert [(w["action"], w["plan"], w["n_samples"]) for w in written] == [
            ("plan", made["id"], made["n_samples"])
        ]


@pytest.mark.thorough
def test_a_plan_is_ended_by_those_who_asked_for_it(bank_folder, tmp_path):
    """Before a restart and after it, and by whoever has the scope `admin`."""
    keys = KeyFile(tmp_path / "keys.json")
    scopes = {"ann": ["plan"], "ben": ["plan"], "eve": ["plan"], "root": ["plan", "admin"]}
    heads = {n: {"Authorization": f"Bearer {keys.create(n, ['read', *s])[1]}"} for n, s in scopes.items()}
    options = (str(bank_folder), "--name", "eo", "--keys", str(keys.path))
    settings = {"TENSORBANK_DATA_FOLDER": str(tmp_path / "data")}

    def ends(served, who, made):
        return served.client.delete(f"/v1/plans/{made['id']}", headers=heads[who])

    def state(served, made):
        return served.get(f"/v1/plans/{made['id']}", headers=heads["eve"]).json().get("state")

    with serving(*options, ready=False, **settings) as served:
        plans = [make(served, heads["ann"], limit=n) for n in (1, 2, 3)]
        assert make(served, heads["ben"], limit=1)["id"] == plans[0]["id"]
        check_problem(ends(served, "eve", plans[0]), 403, "not-owner")
        assert ends(served, "ann", plans[0]).status_code == 204
        assert state(served, plans[0]) == "completed", "ben needs it still"
    with serving(*options, ready=False, **settings) as served:
        for plan in plans:
            check_problem(ends(served, "eve", plan), 403, "not-owner")
        check_problem(ends(served, "ann", plans[0]), 403, "not-owner")
        assert [state(served, plan) for plan in plans] == ["completed"] * 3
        assert ends(served, "ben", plans[0]).status_code == 204
        assert ends(served, "ann", plans[1]).status_code == 204
        assert ends(served, "root", plans[2]).status_code == 204
        assert [state(served, plan) for plan in plans] == ["cancelled"] * 3
    with serving(*options, ready=False, **settings) as served:
        assert [state(served, plan) for plan in plans] == [None] * 3
        assert not list((tmp_path / "data" / "plans").iterdir())


def test_everything_that_was_read_is_in_the_audit_log(bank_folder, tmp_path, bank):
    audit = tmp_path / "audit.jsonl"
    sample_id = (
        bank.sql("SELECT sample_id FROM terramesh WHERE DEM IS NOT NULL").arrow()["sample_id"][0].as_py()
    )
    table = "/v1/banks/eo/tables/terramesh"
    options = ("--name", "eo", "--trusted-proxies", "127.0.0.1")
    with serving(str(bank_folder), *options, TENSORBANK_AUDIT_FILE=str(audit)) as served:
        made = make(served)
        plan = f"/v1/plans/{made['id']}"
        audit.write_text("")
        wanted = {
            f"{table}/samples/{sample_id}": ("read", "getSample"),
            f"{table}/samples/{sample_id}/DEM.npy": ("read", "getTensor"),
            f"{table}/samples/{sample_id}/tensors.npz": ("read", "getTensors"),
            f"{table}/samples/{sample_id}/preview.png": ("read", "getPreview"),
            f"{table}/samples/{sample_id}/zarr/DEM/c/0/0/0/0": ("read", "getSampleZarr"),
            f"{table}/rows": ("read", "getRows"),
            "/stac/search": ("read", "searchItems"),
            f"{plan}/tasks": ("read", "getTasks"),
            f"{plan}/tasks?access=proxy": ("credentials", None),
            f"{plan}/references.json": ("credentials", None),
            f"{plan}/zarr/S2L2A/c/0/0/0/0/0": ("read", "getPlanZarr"),
        }
        for address in wanted:
            answer = served.get(address, headers={"X-Forwarded-For": "203.0.113.7", "X-Request-Id": "a.1"})
            assert answer.status_code == 200, (address, answer.text)
        assert served.get(f"{table}/samples/nobody").status_code == 404
        etag = served.get(f"{table}/rows").headers["etag"]
        assert served.get(f"{table}/rows", headers={"If-None-Match": etag}).status_code == 304
    lines_ = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(w["action"], w.get("operation")) for w in lines_] == [*wanted.values(), ("read", "getRows")]
    for line in lines_[:-1]:
        assert (line["client"], line["request_id"], line["status"]) == ("203.0.113.7", "a.1", 200)
        assert line["principal"] == "ip:203.0.113.7"
        assert line.get("sample_id") in (sample_id, None)
    assert {w["plan"] for w in lines_ if "plan" in w} == {made["id"]}


def test_an_address_is_believed_from_trusted_proxies_only(bank_folder, tmp_path):
    audit = tmp_path / "audit.jsonl"
    with serving(str(bank_folder), "--name", "eo", TENSORBANK_AUDIT_FILE=str(audit)) as served:
        served.get("/v1/banks/eo/tables/terramesh/rows", headers={"X-Forwarded-For": "203.0.113.7"})
    (line,) = map(json.loads, audit.read_text().splitlines())
    assert line["client"] == "127.0.0.1"
