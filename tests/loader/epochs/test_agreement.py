"""Ranks of one process group that would stream different epochs: all of them are told, and by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.handmade import HANDLES, make
from tensorbank_loader.epochs.agreement import differences

N_RANKS = 3
SCRIPT = """
import json, logging, sys
from datetime import timedelta
import torch.distributed, torch.utils.data
from tensorbank import InvalidInputError, Plan
from tensorbank_loader import DataLoader, StreamingDataset, World
from tensorbank_loader.epochs import agreement

rank, place, plan, other = int(sys.argv[1]), *sys.argv[2:]
torch.distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=3, timeout=timedelta(seconds=60))
plan, other = Plan.load(plan), Plan.load(other)
told = []

def first(loader):
    try:
        told.append(len(next(iter(loader))["sample_id"]))
    except InvalidInputError as error:
        told.append([error.kind, str(error)])
    getattr(loader, "close", lambda: None)()

first(DataLoader(plan, batch_size=2, seed=1))
first(DataLoader(plan, batch_size=2, seed=7 if rank == 1 else 1))
first(DataLoader(plan, batch_size=2 + (rank == 2), seed=1))
first(DataLoader(other if rank == 2 else plan, batch_size=2, seed=1))
resumed = DataLoader(plan, batch_size=2, seed=1)
if rank:
    one = DataLoader(plan, global_batch_size=6, seed=1, world=World(subgroup=True))
    next(iter(one))
    resumed.load_state_dict(one.state_dict())
    one.close()
first(resumed)
first(StreamingDataset(plan, global_batch_size=6, seed=rank))
in_workers = StreamingDataset(plan, global_batch_size=6, seed=rank)
first(torch.utils.data.DataLoader(in_workers, batch_size=None, num_workers=1, multiprocessing_context="forkserver"))
first(DataLoader(plan, batch_size=2, seed=rank, world=World(subgroup=True)))
agreement.require_agreement.__kwdefaults__["wait_s"] = 0.5
logging.basicConfig(level=logging.WARNING)
if rank != 1:
    first(DataLoader(plan, batch_size=2, seed=1))
torch.distributed.barrier()
print(json.dumps(told))
torch.distributed.destroy_process_group()
"""


@pytest.mark.timeout(150)
def test_ranks_that_would_stream_different_epochs_are_all_told_which_do(tmp_path: Path):
    plans = [make(tmp_path / str(n), n, handles=HANDLES[:1]).plan for n in (24, 25)]
    paths = [str(plan.save(tmp_path / f"{n}.arrow")) for n, plan in enumerate(plans)]
    place = (tmp_path / "meeting").as_uri()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), place, *paths],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(N_RANKS)
    ]
    outs = [rank.communicate(timeout=120) for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), outs
    told = [json.loads(out.splitlines()[-1]) for out, _ in outs]
    by_loader = list(zip(*told, strict=False))
    assert by_loader[0] == (2, 2, 2)
    named = [
        ("rank 1 has seed 7, not 1",),
        ("rank 2 has ", "global_batch_size 9, not 6"),
        ("rank 2 has ", "fingerprint"),
        ("rank 1 has ", "rank 2 has ", "position 1, not 0"),
        ("rank 1 has seed 1, not 0", "rank 2 has seed 2, not 0"),
        ("rank 1 has seed 1, not 0", "rank 2 has seed 2, not 0"),
    ]
    for words, answers in zip(named, by_loader[1:7], strict=True):
        (answer,) = {tuple(answer) for answer in answers}  # all ranks get the same sentence
        assert answer[0] == "world"
        assert all(word in answer[1] for word in words), answer
    assert by_loader[7] == (2, 2, 2), "each reads everything, as it is meant"
    assert told[0][8] == told[2][8] == 2, "one that is missing holds nobody up"
    assert "not all of them have begun" in outs[0][1]


def test_a_sentence_names_few_ranks_and_counts_the_rest():
    ranks = [{"seed": 1, "n": 2}] * 5 + [{"seed": 2, "n": 2}] * 7
    said = differences(ranks)
    assert [f"rank {n} has seed 2, not 1" in said for n in range(4, 11)] == [False, *[True] * 4, False, False]
    assert "so do 3 ranks more" in said
    assert differences(ranks[:5]) == ""
