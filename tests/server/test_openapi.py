"""The committed description is that of the service, and nothing that it allows makes the service fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from openapi_schema_validator import OAS31Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from support.server_process import serving

COMMITTED = Path(__file__).resolve().parents[2] / "server" / "openapi.json"


SCHEMA = schemathesis.openapi.from_path(COMMITTED)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = [(path, method) for path, item in SCHEMA.raw_schema["paths"].items() for method in item]


def test_the_committed_description_is_that_of_the_code(service):
    made = subprocess.run(
        [sys.executable, "-m", "tensorbank_server"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert made.stdout == COMMITTED.read_text(), "run: python -m tensorbank_server > server/openapi.json"
    assert service.get("/openapi.json").json() == json.loads(made.stdout)


def test_every_operation_has_a_name_and_tells_its_errors():
    document = json.loads(COMMITTED.read_text())
    OAS31Validator.check_schema(document["components"]["schemas"]["Problem"])
    operations = [(path, op) for path, item in document["paths"].items() for op in item.values()]
    names = [op["operationId"] for _, op in operations]
    assert len(set(names)) == len(names) > 30
    for path, op in operations:
        assert op["description"], path
        if path not in ("/healthz", "/readyz"):
            assert {"401", "404", "422", "429", "500", "503"} <= set(op["responses"]), path


@pytest.fixture(scope="module")
def unlimited(bank_folder):
    """A service that takes many questions, and names of what it has."""
    limits = {f"TENSORBANK_LIMITS__{n}_PER_MINUTE": "1000000" for n in ("REQUESTS", "QUERIES")}
    with serving(str(bank_folder), "--name", "eo", TENSORBANK_N_WORKERS="1", **limits) as served:
        body = {"table": "terramesh", "modalities": ["DEM", "LULC"]}
        plan = served.post("/v1/banks/eo/plans", json=body).json()["id"]
        (sample, *_) = served.get("/v1/banks/eo/tables/terramesh/first-rows").json()["rows"]
        names = {
            "bank": "eo",
            "table": "terramesh",
            "collection": "eo.terramesh",
            "plan": plan,
            "modality": "DEM",
        }
        served.extra["names"] = names | {"sample_id": sample["row"]["sample_id"], "version": 1}
        yield served


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=str)
def test_nothing_makes_the_service_fail(unlimited, path, method):
    """Whatever it is sent, of things that are there or not, it answers as it documents."""
    statuses = Counter()

    @hypothesis.given(case=SCHEMA[path][method].as_strategy(), real=st.booleans())
    @hypothesis.settings(max_examples=30, suppress_health_check=list(hypothesis.HealthCheck))
    def check(case: schemathesis.Case, real: bool) -> None:
        if real:
            case.path_parameters.update(
                {k: v for k, v in unlimited.extra["names"].items() if f"{{{k}}}" in path}
            )
            case.query.pop("snapshot", None)
            if isinstance(case.body, dict) and "table" in case.body:
                case.body = {k: v for k, v in case.body.items() if k != "snapshot"} | {"table": "terramesh"}
        if method == "delete":
            case.path_parameters["plan"] = "0" * 32
        statuses[case.call_and_validate(base_url=unlimited.url, checks=CHECKS).status_code] += 1

    check()
    assert not statuses.keys() & {401, 429, 503}, "these hide what was to be seen"
