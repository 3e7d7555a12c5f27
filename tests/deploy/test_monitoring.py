"""Alerts and dashboard ask for metrics that a running service has, and each alert has a test and a chapter of the runbook."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from support.deploy_files import DEPLOY, documents
from support.ports import free_port
from support.server_process import serving

METRIC = re.compile(r"(?<![\w:$])([a-z_]+(?::[a-z_0-9]+)*)(?=[{\[]|\s*[)=><])")
LABELS = re.compile(r"\{[^}]*\}|by \([^)]*\)")


@pytest.fixture(scope="module")
def exported(bank_folder) -> set[str]:
    """Return the names of all series that a running service exports, or will when it counts the first."""
    with serving(str(bank_folder), "--name", "eo") as served:
        text = served.get("/metrics").text
    assert 'tensorbank_bank_up{bank="eo"} 1.0' in text
    assert "tensorbank_data_folder_up 1.0" in text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert len(kinds) > 12
    ends = {"histogram": ("_bucket", "_count", "_sum")}
    return {name + end for name, kind in kinds.items() for end in ends.get(kind, ("",))}


@pytest.fixture(scope="module")
def rules() -> list[dict]:
    (document,) = documents((DEPLOY / "prometheus" / "rules.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def named(query: str) -> set[str]:
    return set(METRIC.findall(LABELS.sub(lambda found: "{}" if found[0][0] == "{" else "", query)))


def test_names_are_found_in_queries():
    query = 'sum by (bank) (rate(a_total{job="b", code=~"c|d"}[5m])) / (x:y:rate5m > 0)'
    assert named(query) == {"a_total", "x:y:rate5m"}


def test_rules_ask_for_what_there_is(exported, rules):
    recorded = {rule["record"] for rule in rules if "record" in rule}
    asked = set().union(*(named(rule["expr"]) for rule in rules))
    assert len(asked) > 6
    assert asked - recorded - {"up"} <= exported


def test_the_dashboard_shows_what_there_is(exported):
    panels = json.loads((DEPLOY / "grafana" / "service.json").read_text())["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in named(target["expr"])}
    assert asked - {"up"} <= exported
    own = {name for name in exported if name.startswith("tensorbank_") and not name.endswith("_created")}
    shown = {re.sub("_(bucket|count|sum)$", "", name) for name in asked}
    unshown = {re.sub("_(bucket|count|sum)$", "", name) for name in own} - shown
    assert unshown == set(), "every metric of the service has a panel"


def test_every_alert_fires_in_a_test_and_stands_in_the_runbook(rules):
    (tests,) = documents((DEPLOY / "prometheus" / "rules_test.yaml").read_text())
    fired = {
        case["alertname"] for test in tests["tests"] for case in test["alert_rule_test"] if case["exp_alerts"]
    }
    alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
    assert len(alerts) > 5
    assert fired == set(alerts)
    chapters = set(re.findall(r"^## (\w+)$", (DEPLOY / "RUNBOOK.md").read_text(), re.MULTILINE))
    for name, rule in alerts.items():
        assert name in chapters
        assert rule["annotations"]["runbook"] == f"RUNBOOK.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_reasons_and_codes_of_alerts_are_those_of_the_service(rules):
    (overloaded,) = [rule["expr"] for rule in rules if rule.get("alert") == "TensorBankOverloaded"]
    codes = re.search(r'code=~"([^"]+)"', overloaded)
    assert codes is not None
    source = "".join(p.read_text() for p in (DEPLOY.parent / "server" / "tensorbank_server").rglob("*.py"))
    for code in codes[1].split("|"):
        assert f'"{code}"' in source
    assert '"recycled"' in source


def test_metrics_are_found_at_the_port_that_is_collected(bank_folder):
    (config,) = documents((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    for settings in ("server.toml", "kubernetes/base/server.toml"):
        assert f"metrics_port = {found['port']}" in (DEPLOY / settings).read_text()
    port = free_port()
    with serving(str(bank_folder), "--name", "eo", TENSORBANK_METRICS_PORT=str(port)):
        assert "tensorbank_build_info" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
