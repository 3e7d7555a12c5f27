"""Calibrations: files that come back, files that are none, and a measurement of this machine."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from support.handmade import make
from tensorbank import FormatError, InvalidInputError
from tensorbank.plans import StoreAddress
from tensorbank.testing import Faults, FaultServer
from tensorbank_simulation import DEFAULT_CALIBRATION, Calibration, Latency, with_store

MEASURED = replace(
    DEFAULT_CALIBRATION, latency=Latency.of([0.01, 0.02, 0.05]), connection_bytes_s=5e7, bandwidth_bytes_s=1e9
)


@pytest.mark.parametrize("known", [DEFAULT_CALIBRATION, MEASURED])
def test_a_calibration_comes_back_from_its_file(known, tmp_path):
    path = tmp_path / "machine.json"
    path.write_text(known.to_json())
    assert Calibration.load(path) == known
    assert "Infinity" not in known.to_json(), "which JSON does not have"


def broken(**changed: Any):
    return json.dumps({**json.loads(MEASURED.to_json()), **changed})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no calibration"),
        ("[]", "no calibration"),
        ("{}", "format"),
        (broken(format="another"), "another format"),
        (broken(version=2), "its version is 2"),
        (broken(n_cores=0), "n_cores"),
        (broken(read_s=-1), "read_s"),
        (broken(decode_s_per_gb={"S2": "fast"}), "S2"),
        (broken(latency={"shares": [0, 1]}), "seconds"),
        (broken(more=1), "more"),
    ],
)
def test_a_file_that_is_none_is_refused_and_says_why(text, words):
    with pytest.raises(FormatError, match=words) as found:
        Calibration.from_json(text)
    assert "tensorbank calibrate -o FILE" in str(found.value)


def test_a_modality_that_was_not_measured_decodes_like_the_default_profile():
    known = replace(DEFAULT_CALIBRATION, decode_s_per_gb={"balanced": 0.5, "S2L2A": 0.7})
    assert (known.decode_s("S2L2A"), known.decode_s("S1RTC")) == (0.7, 0.5)


def test_a_store_is_measured_through_its_reader(tmp_path):
    """A server of known latency and bandwidth."""
    made = make(tmp_path, 40)
    faults = Faults(latency_ms=40, bandwidth_bytes_s=2e6)
    with FaultServer(made.folder, faults) as server:
        plan = replace(made.plan, origin=StoreAddress(server.url, server.storage))
        found = with_store(DEFAULT_CALIBRATION, plan, seconds=0.5)
        assert server.stats()["counts"]["requests"] > 64
    assert not found.is_local
    assert found.latency is not None
    assert 0.040 <= found.latency.quantile_s(0.5) < 0.4
    assert 0 < found.bandwidth_bytes_s <= 3e6
    assert found.request_s > 0
    assert {h.name for h in plan.handles} <= set(found.decode_s_per_gb)
    assert found.read_s == DEFAULT_CALIBRATION.read_s, "what hangs on no store stays"


def test_a_disk_has_no_latency(tmp_path):
    made = make(tmp_path, 10)
    found = with_store(MEASURED, made.plan, seconds=0.2, modalities=False)
    assert found.is_local
    assert found.latency == Latency.constant(0.0)
    assert found.decode_s_per_gb == MEASURED.decode_s_per_gb


def test_nothing_selected_is_nothing_to_measure(tmp_path):
    made = make(tmp_path, 4)
    with pytest.raises(InvalidInputError, match="nothing to measure"):
        with_store(DEFAULT_CALIBRATION, made.plan.take(np.arange(0)))


def test_every_cost_is_used_by_forecasts_or_said_to_people():
    """A cost that nobody reads would be measured in vain."""
    from pathlib import Path

    import tensorbank_simulation

    folder = Path(tensorbank_simulation.__file__).parent
    text = "".join((folder / name).read_text() for name in ("forecast.py", "commands.py"))
    unused = [
        f.name
        for f in fields(Calibration)
        if not re.search(rf"\.{f.name}\b", text) and f.name not in ("version", "decode_s_per_gb")
    ]
    assert unused == []
