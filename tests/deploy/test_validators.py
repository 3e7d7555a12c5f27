"""Every file below ``deploy`` is valid by a tool of its kind, and the tool notices a planted mistake."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from support.deploy_files import DEPLOY, NotValidError, files, validator_of

PLANTED = [
    ("Dockerfile", "USER 10001:10001", "USER root"),
    ("Dockerfile", "FROM ${PYTHON_IMAGE} AS store", "FROM ${PYTHON_IMAGE} AS service"),
    ("Dockerfile.dockerignore", "\n*\n", "\n"),
    ("compose.yaml", "mem_limit:", "memory_limit:"),
    ("nginx.conf", "send_timeout 30s;", "send_time 30s;"),
    ("nginx.conf", "server_tokens off;", "server_tokens off"),
    ("server.toml", "metrics_port", "metric_port"),
    ("server.toml", "requests_per_minute = 30000", 'requests_per_minute = "many"'),
    ("kubernetes/base/service.yaml", "containerPort:", "containersPort:"),
    ("kubernetes/base/service.yaml", "apiVersion: apps/v1", "apiVersion: extensions/v1beta1"),
    ("kubernetes/base/scaling.yaml", "minReplicas: 2", "minReplicas: two"),
    ("kubernetes/base/server.toml", "n_replicas", "replicas"),
    ("kubernetes/dask/dask.yaml", "replicas: 4", "replica: 4"),
    ("kubernetes/ingest/ingest.yaml", "completionMode:", "completionsMode:"),
    ("kubernetes/base/kustomization.yaml", "- ingress.yaml", "- ingres.yaml"),
    ("kubernetes/overlays/production/kustomization.yaml", "/spec/storageClassName", "/spec/a/b"),
    ("kubernetes/overlays/trial/kustomization.yaml", "../../base", "../base"),
    ("kubernetes/ingest/ingest.env", "TASKS=16", "TASKS 16"),
    ("prometheus/prometheus.yaml", "dns_sd_configs", "dns_configs"),
    ("prometheus/rules.yaml", "tensorbank:errors:ratio5m > 0.02", "tensorbank:errors:ratio5m >> 0.02"),
    ("prometheus/rules_test.yaml", "value: 10}", "value: 11}"),
    ("grafana/service.json", "sum by (code) (", "sum by (code (("),
    ("grafana/service.json", '"title": "Banks",', ""),
    ("systemd/tensorbank-service.service", "Type=exec", "Type=execute"),
    ("systemd/tensorbank-service.service", "NoNewPrivileges=true", "NoNewPrivilege=true"),
    ("systemd/tensorbank-service.service", "SystemCallFilter=@system-service", "SystemCallFilter=@service"),
    ("systemd/tensorbank-store.service", "SystemCallFilter=@system-service", ""),
    ("systemd/tensorbank-ingest.timer", "OnCalendar=*-*-* 02:00:00", "OnCalendar=nightly"),
    ("systemd/store.env", "BUCKET=eo-bank", "BUCKET eo-bank"),
    ("systemd/server.toml", "signing_key_file", "signing_file"),
    ("slurm/train.sbatch", '"$SLURM_JOB_NODELIST"', "$SLURM_JOB_NODELIST"),
    ("slurm/submit_ingest.sh", '"$@"', "$@"),
    ("make_secrets.py", "import json\n", ""),
    ("training/train.py", "import torch\n", ""),
]
"""Mistakes: a file, what stands there, and what is written in its place."""


def test_every_file_is_known():
    found = files()
    assert len(found) > 30
    assert [path for path in found if validator_of(path) is None] == [], "write a line in VALIDATORS"


@pytest.mark.parametrize("path", files())
def test_every_file_is_valid(path):
    validator = validator_of(path)
    assert validator is not None
    assert validator(DEPLOY / path) is None


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("planted") / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("secrets", "__pycache__"))
    return folder


@pytest.mark.parametrize(("path", "right", "wrong"), PLANTED)
def test_a_planted_mistake_is_noticed(copied, path, right, wrong):
    text = (DEPLOY / path).read_text()
    assert right in text
    validator = validator_of(path)
    assert validator is not None
    (copied / path).write_text(text.replace(right, wrong))
    try:
        with pytest.raises(NotValidError):
            validator(copied / path)
    finally:
        (copied / path).write_text(text)


def test_every_kind_of_file_has_a_planted_mistake():
    planted = {validator_of(path) for path, _, _ in PLANTED}
    unplanted = {v.__name__ for v in map(validator_of, files()) if v not in planted and v is not None}
    assert unplanted == {"by_make_docs", "guide"}, "these are checked by tests of their own"


def test_an_unknown_file_would_be_noticed():
    assert validator_of("kubernetes/base/notes.txt") is None
    assert validator_of("terraform/main.tf") is None


def test_no_secret_stands_in_a_file():
    texts = {path: (DEPLOY / path).read_text() for path in files() if not path.startswith("docs/")}
    assert len(texts) > 20
    pattern = re.compile(
        r"(?i)(secret_?key|password)\s*[=:]\s*[\"']?[A-Za-z0-9/+]{16,}|tb_live_[0-9a-f]{12}_"
    )
    assert [path for path, text in texts.items() if pattern.search(text)] == []
