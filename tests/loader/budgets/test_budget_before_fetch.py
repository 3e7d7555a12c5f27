"""Budgets in a loader: what a sample does not use is not requested, the rest is right, and hardware changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader

import tensorbank as tb
from support.handmade import HANDLES, make
from tensorbank import InvalidInputError
from tensorbank.plans import StoreAddress
from tensorbank.testing import FaultServer
from tensorbank_loader import DataLoader, ModalityTokens, StreamingDataset, TokenBudget, World

N = 61
CHOSEN = (HANDLES[0], HANDLES[2], HANDLES[4], HANDLES[5])  # S2, series, LULC, QA
BUDGET = TokenBudget(
    (
        ModalityTokens("S2", 30, input_alphas=(0.1, 0.0), target_alphas=(0.0, 0.0)),
        ModalityTokens("series", 30, input_alphas=(0.1, 1.0), target_alphas=(0.1, 1.0)),
        ModalityTokens("LULC", 30, input_alphas=(0.0, 1.0), target_alphas=(0.1, 0.1)),
    ),
    n_input=16,
    n_target=10,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    return make(tmp_path_factory.mktemp("part"), N, handles=CHOSEN)


def by_id(batches: list[dict]) -> dict[str, dict]:
    """Return what each sample was handed out with."""
    found: dict[str, dict] = {}
    for batch in batches:
        for i, name in enumerate(batch["sample_id"]):
            assert name not in found, f"{name} comes twice"
            of_sample: dict = {"draw_key": int(batch["draw_key"][i])}
            for what in ("input_tokens", "target_tokens", "mask"):
                of_sample[what] = {k: v[i].tolist() for k, v in batch[what].items()}
            for handle in CHOSEN:
                of_sample[handle.name] = batch[handle.name][i].numpy().tobytes()
            found[name] = of_sample
    return found


@pytest.fixture(scope="module")
def alone(made) -> list[dict[str, dict]]:
    """Return what one process is handed out, in two epochs."""
    with DataLoader(made.plan, global_batch_size=8, seed=5, budget=BUDGET, world=World()) as loader:
        return [by_id(list(loader)) for _ in range(2)]


def test_what_is_used_is_right_and_what_is_not_is_masked(made, alone):
    ids = made.plan.table["sample_id"].to_pylist()
    n_left_out = 0
    for epoch in alone:
        assert set(epoch) == set(ids)
        for position, name in enumerate(ids):
            sample = epoch[name]
            for handle in CHOSEN:
                truth = made.truth[handle.name][position]
                there = bool(made.plan.addresses[handle.name].shard_of[position] >= 0)
                used = there
                if handle.name in BUDGET.names:
                    n_tokens = sample["input_tokens"][handle.name] + sample["target_tokens"][handle.name]
                    assert there or not n_tokens, "no tokens of what is not there"
                    used = n_tokens > 0
                    assert sample["mask"][handle.name] == used
                    n_left_out += there and not used
                expected = truth if used else np.full_like(truth, handle.modality.fill_value)
                assert sample[handle.name] == expected.tobytes()
    assert n_left_out > N / 2, "budgets leave something out"


def test_what_is_not_used_is_not_requested(made):
    with FaultServer(made.folder) as server:
        plan = replace(made.plan, origin=StoreAddress(server.url, server.storage))
        asked = []
        for budget in (None, BUDGET):
            with DataLoader(plan, batch_size=8, shuffle=False, budget=budget, lease=False) as loader:
                batches = list(loader)
                asked.append(loader.stats().bytes_asked)
    used = 0
    for batch in batches:
        for handle in CHOSEN:
            a = made.plan.addresses[handle.name]
            ids = made.plan.table["sample_id"].to_pylist()
            for i, name in enumerate(batch["sample_id"]):
                if handle.name == "QA" or batch["mask"][handle.name][i]:
                    used += int(a.lengths[ids.index(name)].sum())
    assert used <= asked[1] < 0.9 * asked[0]


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_ranks_draw_what_one_process_draws(made, alone, n_ranks):
    found: dict[str, dict] = {}
    for rank in range(n_ranks):
        loader = DataLoader(made.plan, global_batch_size=8, seed=5, budget=BUDGET, world=World(rank, n_ranks))
        with loader:
            found |= by_id(list(loader))
    assert found == alone[0]
    assert alone[0] != alone[1], "another epoch draws anew"


def test_workers_draw_what_one_process_draws(made, alone):
    dataset = StreamingDataset(made.plan, global_batch_size=8, seed=5, budget=BUDGET, world=World())
    loader = TorchDataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="forkserver")
    assert by_id(list(loader)) == alone[0]


def test_a_resumed_run_draws_what_it_would_have_drawn(made, alone):
    with DataLoader(made.plan, global_batch_size=8, seed=5, budget=BUDGET, world=World()) as loader:
        batches = iter(loader)
        had = [next(batches) for _ in range(3)]
        state = json.loads(json.dumps(loader.state_dict()))
    with DataLoader(made.plan, global_batch_size=8, seed=5, budget=BUDGET, world=World()) as loader:
        loader.load_state_dict(state)
        assert by_id([*had, *loader]) == alone[0]


def test_a_state_of_another_budget_is_refused(made):
    other = TokenBudget(BUDGET.modalities, n_input=12, n_target=10)
    for first, second in ((BUDGET, other), (None, BUDGET), (BUDGET, None)):
        state = DataLoader(made.plan, batch_size=8, budget=first).state_dict()
        loader = DataLoader(made.plan, batch_size=8, budget=second)
        with pytest.raises(InvalidInputError, match="this state has budget") as caught:
            loader.load_state_dict(state)
        assert caught.value.kind == "other-state"


def test_a_plan_that_lacks_a_modality_is_refused(made):
    budget = TokenBudget((*BUDGET.modalities, ModalityTokens("DEM", 30, (1.0, 1.0), (1.0, 1.0))), 16, 10)
    with pytest.raises(InvalidInputError, match="tokens of DEM, and the plan selects S2, series, LULC, QA"):
        DataLoader(made.plan, batch_size=8, budget=budget)
    with pytest.raises(InvalidInputError, match="give TokenBudget"):
        DataLoader(made.plan, batch_size=8, budget=128)


def test_a_mix_draws_by_each_of_its_sources(made, tmp_path):
    again = make(tmp_path, 20, handles=CHOSEN)
    n_samples = n_whole = 0
    mixed = tb.mix([(made.plan, 1.0), (again.plan, 1.0)], seed=3, homogeneous=True)
    with DataLoader(mixed, global_batch_size=8, budget=BUDGET, world=World()) as loader:
        for batch in loader:
            counts = torch.stack(list(batch["input_tokens"].values())).sum(0)
            n_samples += len(counts)
            n_whole += int((counts == 16).sum())
    assert n_samples >= N + 20
    assert n_whole >= 0.9 * n_samples, "a sample without the modalities of its draw has none"
