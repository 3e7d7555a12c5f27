"""One rank of a group that shares a plan, as a program; prints what it had as JSON.

python sharing_rank.py MODE,MODE,... BANK MEETING_PLACE RANK N_RANKS
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed

import tensorbank as tb
from support.handmade import HANDLES, make
from support.streamed_bank import add_part
from tensorbank.planning import Planner
from tensorbank_loader import World, shared_plan
from tensorbank_loader.sharing import turn

SQL = "SELECT sample_id, S2, S1 FROM t"
N_BIG = 1_000_000


def share(bank: tb.Bank, rank: int) -> dict[str, Any]:
    """Stream an epoch of one query, and of another."""
    with counted() as plannings, bank.sql(SQL).dataloader(batch_size=2, seed=3) as loader:
        ids = [name for batch in loader for name in batch["sample_id"]]
        maps = Path("/proc/self/maps").read_text().splitlines()
        selection = bank.query("t").select("sample_id", "S2").dataloader(batch_size=2)
        return {
            "n_planned": len(plannings),
            "ids": ids,
            "fingerprints": [loader.plan.fingerprint, selection.plan.fingerprint],
            "files": sorted({line.split()[-1] for line in maps if line.endswith(".plan")}),
            "key": loader.plan.origin.options.access_key,
        }


def fail(bank: tb.Bank, rank: int) -> dict[str, Any]:
    """Ask for what is not there."""
    return refused(lambda: bank.sql("SELECT S2 FROM nowhere").dataloader(batch_size=2))


def die(bank: tb.Bank, rank: int) -> dict[str, Any]:
    """Wait for a rank 0 that ends in the middle of planning."""
    turn.GONE_S = 1.0
    if rank == 0:
        Planner.plan = lambda *_, **__: os._exit(9)
    return refused(lambda: bank.sql(SQL).dataloader(batch_size=2))


def interrupt(bank: tb.Bank, rank: int) -> dict[str, Any]:
    """Let rank 0 be interrupted while it plans."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    real = Planner.plan
    if rank == 0:
        Planner.plan = interrupted
    try:
        return refused(lambda: bank.sql(SQL).dataloader(batch_size=2))
    except KeyboardInterrupt:
        return {"kind": "interrupted", "message": ""}
    finally:
        Planner.plan = real


def absent(bank: tb.Bank, rank: int) -> dict[str, Any]:
    """Share nothing: rank 0 asks something else, and a rank of a subgroup for itself."""
    began_s, turn.BEGIN_S = turn.BEGIN_S, 0.5
    with counted() as plannings:
        bank.sql(f"SELECT S2, {min(rank, 1)} AS mine FROM t").dataloader(batch_size=2)
        bank.sql(SQL).dataloader(batch_size=2, world=World(subgroup=True))
    turn.BEGIN_S = began_s
    return {"n_planned": len(plannings)}


def late(bank: tb.Bank, rank: int) -> dict[str, Any]:
    """Ask after the table has changed."""
    sql = "SELECT sample_id, S2 FROM t WHERE sample_id <> ''"
    with counted() as plannings:
        if rank == 0:
            loader = bank.sql(sql).dataloader(batch_size=2)
            add_part(bank, "t", "part-9", 8)
        torch.distributed.barrier()
        if rank:
            loader = bank.sql(sql).dataloader(batch_size=2)
    had = sum(len(batch["sample_id"]) for batch in loader)
    loader.close()
    return {"n_planned": len(plannings), "had": had, "newest": len(bank.sql(sql))}


def large(bank: tb.Bank, rank: int) -> dict[str, Any]:
    """Share a plan of many megabytes, and tell what of it is this process's own memory."""
    query = Large(bank.url)
    before = private_bytes()
    plan = shared_plan(query)
    total = sum(
        int(a.starts.sum() + a.lengths.sum()) for a in plan.addresses.values()
    )  # every page is touched
    torch.distributed.barrier()
    grown = private_bytes() - before
    torch.distributed.barrier()
    return {"n_planned": query.n_planned, "total": total, "bytes": plan.table.nbytes, "grown": grown}


class Large:
    """A query of a large answer, as far as sharing goes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.question = "a large one"
        self.n_planned = 0

    def plan(self, *, by_date: bool = False) -> tb.Plan:
        self.n_planned += 1
        one = make(Path(self.url.removeprefix("file://")) / "large", 23, handles=HANDLES[:2]).plan
        return one.take(np.arange(N_BIG, dtype=np.int64) % 23)

    def adopted(self, plan: tb.Plan) -> tb.Plan:
        return plan


def private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(
        1024 * int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))
    )


@contextmanager
def counted() -> Iterator[list[str]]:
    """Collect the statements that are planned in the block."""
    plannings: list[str] = []
    real = Planner.plan

    def plan(planner: Planner, sql: str, **options: Any) -> tb.Plan:
        plannings.append(sql)
        return real(planner, sql, **options)

    Planner.plan = plan
    try:
        yield plannings
    finally:
        Planner.plan = real


def refused(ask: Any) -> dict[str, Any]:
    try:
        ask()
    except tb.TensorBankError as error:
        return {"class": type(error).__name__, "kind": error.kind, "message": str(error)}
    return {"kind": None}


MODES = {f.__name__: f for f in (share, fail, die, interrupt, absent, late, large)}


def main() -> None:
    modes, url, place, rank, n_ranks = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    turn.BEAT_S, turn.PIECE_BYTES = 0.1, 2000
    torch.distributed.init_process_group(
        "gloo",
        init_method=place,
        rank=int(rank),
        world_size=int(n_ranks),
        timeout=timedelta(seconds=60),
    )
    bank = tb.open(url)
    told = {mode: MODES[mode](bank, int(rank)) for mode in modes.split(",")}
    print(json.dumps(told))
    if "die" not in told:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
