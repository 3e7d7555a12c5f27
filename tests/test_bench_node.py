"""The benchmark of one node runs, on a bank and on amounts too small to tell anything, and counts what is sent."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

import tensorbank as tb

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    bank, table = importlib.import_module("stream.setup").make_bank(folder, n_samples=12, n_workers=1)
    return tb.open(str(bank)).sql(f"SELECT S1RTC, DEM FROM {table}").plan()


def test_an_epoch_by_the_state_of_the_cache(plan, monkeypatch):
    states = importlib.import_module("node.cache_states")
    monkeypatch.setattr(states, "LATENCIES_MS", (1,))
    found = list(states.measure(plan, "small", n_rounds=1, batch_size=4))
    assert [f.what.rsplit(" ", 1)[1] for f in found] == ["cold", "half", "warm"]
    for figure in found:
        assert np.isfinite([figure.value, figure.ceiling, figure.ratio]).all()
        json.dumps(figure.to_dict())


def test_ranks_that_share_a_cache_are_sent_every_byte_once(plan, monkeypatch):
    ranks = importlib.import_module("node.ranks")
    monkeypatch.setattr(ranks, "N_RANKS", (1, 2))
    monkeypatch.setattr(ranks, "N_EPOCHS", 2)
    together, sent = ranks.shared_cache(plan, n_rounds=1, batch_size=4)
    assert np.isfinite([together.value, together.ceiling, together.ratio]).all()
    assert sent.met
    assert sent.value * 1e6 == pytest.approx(plan.read_bytes, abs=0.5)
