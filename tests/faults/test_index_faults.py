"""Plans over a server that misbehaves: the few requests before the first batch are as impatient as those of the batches."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

import tensorbank as tb
from support.handmade_index import make_table
from support.ranged import small_pieces
from tensorbank.testing import Faults, FaultServer

LATE_S = 15


def test_an_index_that_is_late_is_asked_for_again(tmp_path):
    """Each object of the index is held back once; waiting for the log and then for the files would take half a minute."""
    made = tb.create(tmp_path / "bank")
    make_table(made, "a", n=6, prefix="p")
    with FaultServer(tmp_path / "bank") as server:
        server.set(Faults(slow=1.0, slow_s=LATE_S, once=True, only=r"^a/index/"))
        bank = tb.open(
            server.url,
            endpoint=server.storage.endpoint,
            access_key="any",
            secret_key="any",
            cache=tmp_path / "cache",
        )
        started = time.monotonic()
        plan = bank.sql("SELECT S2L2A FROM a").plan()
        assert time.monotonic() - started < LATE_S
        assert len(plan) == 12
        assert server.stats()["counts"]["slow"] > 4


def test_a_busy_store_opens_a_table_all_the_same(tmp_path):
    """Three requests in five are refused; a table takes some that all have to succeed."""
    made = tb.create(tmp_path / "bank")
    make_table(made, "a", n=6, prefix="p")
    with FaultServer(tmp_path / "bank") as server:
        for seed in range(3):
            server.set(Faults(unavailable=0.6, seed=seed))
            bank = tb.open(
                server.url,
                endpoint=server.storage.endpoint,
                access_key="any",
                secret_key="any",
                cache=tmp_path / f"cache{seed}",
            )
            assert len(bank.sql("SELECT S2L2A FROM a").plan()) == 12
            assert server.stats()["counts"]["unavailable"] > 0


@pytest.mark.parametrize(
    "faults",
    [
        Faults(unavailable=0.4),
        Faults(reset=0.1, cut=0.1),
        Faults(flipped=0.25),
        Faults(throttled=0.2, cut=0.1, flipped=0.1),
    ],
    ids=["busy", "broken off", "flipped", "all of it"],
)
def test_what_is_read_by_ranges_is_right_or_an_error(tmp_path, faults):
    sql = "SELECT sample_id, cloud_cover, S2L2A FROM a WHERE NDVI.mean > 0.1 ORDER BY ALL"
    right = n_faults = 0
    with small_pieces():
        made = tb.create(tmp_path / "bank")
        make_table(made, "a", n=150, prefix="p")
        expected = made.sql(sql).arrow()
        with FaultServer(tmp_path / "bank") as server:
            keys = {"endpoint": server.storage.endpoint, "access_key": "any", "secret_key": "any"}
            for seed in range(6):
                server.set(replace(faults, seed=seed, only=r"\.parquet$"))
                bank = tb.open(server.url, cache=tmp_path / f"cache{seed}", **keys)
                try:
                    found = bank.sql(sql).arrow()
                except (tb.IntegrityError, tb.StorageError):  # wrong bytes, or none, several times in a row
                    continue
                finally:
                    counts = server.stats()["counts"]
                    n_faults += sum(
                        counts.get(kind, 0)
                        for kind in ("unavailable", "throttled", "reset", "cut", "flipped")
                    )
                assert found.equals(expected)
                right += 1
                assert list((tmp_path / f"cache{seed}").glob("*/pieces/a/index/samples/*.parquet"))
    assert right >= 3
    assert n_faults > 0
