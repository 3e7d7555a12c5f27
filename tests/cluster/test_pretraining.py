"""Pretraining on several ranks: they train as one does, and go on after a kill with others."""

from __future__ import annotations

import json
import multiprocessing
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from support.handmade import make
from support.pretraining_run import (
    PIXELS,
    RECIPE,
    SIZE,
    TOKENS,
    N,
    made,
    numbers,
    rank,
    rank_told,
    run_of,
    seen,
)
from tensorbank_pretraining import MaskedModel
from tensorbank_pretraining.checkpoints import Checkpoints
from tensorbank_pretraining.training import train

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("pretraining")
    plan = made(folder / "bank").plan
    plan.save(folder / "plan.arrow")
    return plan, folder / "plan.arrow"


@pytest.fixture(scope="module")
def alone(plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one rank that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    train(run_of(plan[0], folder))
    return folder


@contextmanager
def processes(
    n: int, work: Callable[..., None], plans: object, folder: Path, *more: object
) -> Iterator[list]:
    """Ranks in processes of their own, killed at the end of the block if they still run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "tensorbank_pretraining.training"])
    started = [context.Process(target=work, args=(k, n, plans, folder, port, *more)) for k in range(n)]
    for process in started:
        process.start()
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.join()


def ranks(n: int, plan: Path, folder: Path, **more: object) -> AbstractContextManager[list]:
    """Ranks of one plan."""
    return processes(n, rank, plan, folder, dict(more))


def finished(n: int, plan: Path, folder: Path, **more: object) -> None:
    """Run some ranks to their end."""
    with ranks(n, plan, folder, **more) as started:
        for process in started:
            process.join(200)
        assert [process.exitcode for process in started] == [0] * n


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_ranks_train_as_one_and_go_on_after_a_kill_with_others(plan, alone, tmp_path, parallel):
    with ranks(2, plan[1], tmp_path, parallel=parallel, step_s=0.2) as started:
        ends_s = time.monotonic() + 200
        while not (tmp_path / "losses.csv").exists() or len(numbers(tmp_path)) < 6:
            assert all(process.is_alive() for process in started)
            assert time.monotonic() < ends_s
            time.sleep(0.05)
        started[0].kill()
    assert started[0].exitcode == -signal.SIGKILL
    assert len(numbers(tmp_path)) < RECIPE.n_steps
    finished(3, plan[1], tmp_path, parallel=parallel)
    assert seen(tmp_path) == seen(alone)
    np.testing.assert_allclose(numbers(tmp_path), numbers(alone), rtol=1e-4)
    one, other = (_weights(folder, plan[0]) for folder in (alone, tmp_path))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=1e-4, msg=name)


def test_a_rank_with_another_plan_stops_all_of_them(plan, tmp_path):
    other = make(tmp_path / "bank", N - 1, handles=(PIXELS, TOKENS)).plan.save(tmp_path / "other.arrow")
    with processes(2, rank_told, [plan[1], other], tmp_path) as started:
        for process in started:
            process.join(200)
        assert [process.exitcode for process in started] == [0, 0]
    told = [(tmp_path / f"told-{number}").read_text() for number in range(2)]
    assert told[0] == told[1]
    assert told[0].startswith("world: ranks would stream different batches")
    assert "rank 1 has fingerprint" in told[0]


def _weights(folder: Path, plan) -> dict[str, torch.Tensor]:
    """Return the weights of the last checkpoint, as one process loads them."""
    place = Checkpoints(folder).newest()
    assert place is not None
    assert place.name == f"step-{RECIPE.n_steps:08d}"
    model = MaskedModel(RECIPE, SIZE)
    optimizer = torch.optim.AdamW(model.parameters())
    average = {n: p.detach().clone() for n, p in model.named_parameters()}
    identity = json.loads((place / "run.json").read_text())["recipe"]
    Checkpoints(folder).load(place, model, optimizer, average, identity)
    return {n: p.detach() for n, p in model.named_parameters()}
