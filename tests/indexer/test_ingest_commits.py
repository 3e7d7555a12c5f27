"""The cost of the commit of one more part, however many there are."""

from __future__ import annotations

from collections import Counter

import pytest

import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank.storage.object_client import ObjectClient
from tensorbank_indexer import IngestOptions, ingest

OPTIONS = IngestOptions(n_workers=1, samples_per_shard=2, n_tiles=2)
KINDS = ("get", "get_range", "put", "create", "delete", "info", "objects", "folders")


@pytest.fixture
def asked(monkeypatch):
    """The requests since the last look, by kind, and the objects that lists named."""
    counts: Counter[str] = Counter()

    def counting(kind, method):
        def ask(client, *given: object):
            counts[kind] += 1
            answer = method(client, *given)
            if kind == "objects":
                counts["listed"] += len(answer)
            return answer

        return ask

    for kind in KINDS:
        monkeypatch.setattr(ObjectClient, kind, counting(kind, getattr(ObjectClient, kind)))
    return counts


def test_the_sixtieth_part_takes_as_many_requests_as_the_second(asked, tmp_path):
    bank = tb.create(tmp_path / "bank", cache=tmp_path / "cache")
    costs = []
    for number in range(60):
        asked.clear()
        ingest(TinySource(1, number), bank, "t", OPTIONS)
        costs.append(dict(asked))
    assert bank.table("t").snapshot().n_samples == 60
    listed = [cost.pop("listed", 0) for cost in costs]
    assert listed[0] > 0, "lists are counted"
    assert costs[58] == costs[1], "another number of requests"
    assert listed[58] <= 3 * costs[58].get("objects", 0), "a list that grows with the table"
