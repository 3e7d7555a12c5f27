"""Plans that workers map instead of having each a copy."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tensorbank import Plan
from tensorbank.plans import PlanSource, StoreAddress
from tensorbank.plans.shared_table import MIN_BYTES

N = 200_000


def large() -> Plan:
    source = PlanSource("SELECT 1", {}, 1)
    return Plan("0" * 32, source, (), pa.table({"number": np.arange(N)}), StoreAddress("file:///nowhere"))


def look(plan: Plan, queue: multiprocessing.Queue) -> None:
    column = plan.table["number"].chunk(0)
    text = Path("/proc/self/maps").read_text()
    address = column.buffers()[1].address
    backed = any(
        "memfd:tensorbank-plan" in line
        for line in text.splitlines()
        if int(line.split("-")[0], 16) <= address < int(line.split("-")[1].split()[0], 16)
    )
    queue.put((plan.fingerprint, len(plan), int(np.sum(column.to_numpy())), backed, plan.origin))


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    def mine() -> list[str]:
        links = [str(p.readlink()) for p in Path("/proc/self/fd").iterdir() if p.is_symlink()]
        return [link for link in links if "tensorbank-plan" in link]

    yield
    gc.collect()
    assert not mine()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_map_one_table(method):
    plan = large()
    assert plan.table.nbytes >= MIN_BYTES
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=look, args=(plan, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        for _ in workers:
            fingerprint, n, total, backed, _ = queue.get(timeout=60)
            assert (fingerprint, n, total, backed) == (plan.fingerprint, N, N * (N - 1) // 2, True)
    finally:
        for worker in workers:
            worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0]


def test_a_pickle_that_no_process_waits_for_holds_the_table():
    plan = large()
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan


def test_small_tables_are_sent():
    plan = large()
    small = replace(plan, table=plan.table.slice(0, 10).combine_chunks())
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(
        target=look, args=(replace(small, table=pa.table({"number": np.arange(10)})), queue)
    )
    worker.start()
    assert queue.get(timeout=60)[2:4] == (45, False)
    worker.join(60)
