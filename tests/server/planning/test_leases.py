"""A service protects the snapshots of the plans that it hands out, while callers may still read them."""

from __future__ import annotations

import pytest

import tensorbank as tb
from support.handmade_index import make_table
from support.server_process import serving
from support.waiting import wait_until
from tensorbank.retention import list_leases
from tensorbank_server.settings import BankSettings, load_settings


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    make_table(bank, "terramesh", parts=2, n=3)
    return bank


def ask(service, **more: object):
    body = {"table": "terramesh", "modalities": ["S2L2A"], **more}
    assert service.post("/v1/banks/eo/plans", json=body).status_code in (200, 201, 202)


def leases(bank):
    return list_leases(bank.catalog.store, "terramesh")[0]


def test_a_plan_is_protected_until_the_service_ends(bank):
    with serving(bank.url, "--name", "eo") as service:
        assert service.get("/v1/banks/eo/tables/terramesh").status_code == 200
        assert leases(bank) == [], "who only looks reads nothing that maintenance removes"
        ask(service, snapshot=1)
        wait_until(lambda: leases(bank), "no lease was taken")
        found = leases(bank)
        assert [lease.versions for lease in found] == [(1,)]
        assert found[0].table_id == bank.catalog.files("terramesh", "samples").table_id
        ask(service)
        wait_until(lambda: leases(bank)[0].versions == (1, 2), "the second snapshot is not protected")
    assert leases(bank) == []


def test_a_setting_turns_leases_off(monkeypatch):
    assert BankSettings(url="s3://b/eo").leases
    assert not BankSettings(url="s3://b/eo", leases=False).leases
    monkeypatch.setenv("TENSORBANK_LEASES", "off")
    assert (
        load_settings(None, banks={"eo": {"url": "s3://b/eo", "leases": False}}).banks["eo"].leases is False
    )
