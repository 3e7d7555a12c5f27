"""The units of systemd agree with the settings beside them, and keep out what they can."""

from __future__ import annotations

import re

from support.deploy_files import DEPLOY
from support.units import Unit
from tensorbank_server.listening import END_S
from tensorbank_server.settings import load_settings

SYSTEMD = DEPLOY / "systemd"
SERVICES = ("tensorbank-ingest.service", "tensorbank-service.service", "tensorbank-store.service")
FENCES = {
    "NoNewPrivileges": "true",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "PrivateTmp": "true",
    "PrivateDevices": "true",
    "RestrictNamespaces": "true",
    "SystemCallArchitectures": "native",
}


def values(name: str) -> dict[str, str]:
    lines = (SYSTEMD / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_service_has_the_fences():
    assert sorted(p.name for p in SYSTEMD.glob("*.service")) == sorted(SERVICES)
    for name in SERVICES:
        unit = Unit.read(SYSTEMD / name)
        assert {fence: unit.one(fence) for fence in FENCES} == FENCES, name
        assert unit.one("User") == unit.one("Group") == "tensorbank"
        assert unit.one("ReadWritePaths") == unit.one("WorkingDirectory"), "it writes its own folder only"
        assert unit.one("SystemCallFilter").split()[0] == "@system-service"


def test_the_service_has_time_to_end():
    settings = load_settings(SYSTEMD / "server.toml")
    unit = Unit.read(SYSTEMD / "tensorbank-service.service")
    assert float(unit.one("TimeoutStopSec")) > settings.drain_s + settings.finish_s + END_S
    assert unit.one("RestartPreventExitStatus") == "2", "a wrong setting is told once"


def test_the_service_writes_where_its_unit_lets_it():
    settings = load_settings(SYSTEMD / "server.toml")
    folder = Unit.read(SYSTEMD / "tensorbank-service.service").one("ReadWritePaths")
    for path in (settings.keys_file, settings.data_folder, settings.audit_file):
        assert path.is_relative_to(folder), path


def test_addresses_agree():
    bank = load_settings(SYSTEMD / "server.toml").banks["eo"]
    store, ingest = values("store.env"), values("ingest.env")
    assert bank.endpoint == ingest["AWS_ENDPOINT_URL_S3"] == f"http://127.0.0.1:{store['S3_PORT']}"
    assert bank.url == ingest["BANK"] == f"s3://{store['BUCKET']}"
    ports = [int(value) for name, value in store.items() if name.endswith("_PORT")]
    service = int(re.search(r"--port (\d+)", values("service.env")["SERVE_OPTIONS"])[1])
    taken = [*ports, *(port + 10_000 for port in ports), service, 8080]
    assert len(ports) == 4
    assert len(set(taken)) == len(taken), "8080 is the front's"


def test_what_a_command_names_is_defined():
    checked = 0
    for name in SERVICES:
        unit = Unit.read(SYSTEMD / name)
        files = [f.rpartition("/")[2] for f in unit.all("EnvironmentFile") if not f.endswith("keys.env")]
        known = {key for file in files for key in values(file)}
        used = set(
            re.findall(r"\$\{?([A-Z_0-9]+)", " ".join(unit.all("ExecStart") + unit.all("ExecStartPost")))
        )
        assert used
        assert used <= known, name
        checked += 1
    assert checked == 3
