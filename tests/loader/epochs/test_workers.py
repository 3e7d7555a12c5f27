"""StreamingDataset in the worker processes of torch's DataLoader and of torchdata's."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch.utils.data

from support.handmade import Handmade, make
from tensorbank import InvalidInputError
from tensorbank.reading.sample_reader import SampleReader
from tensorbank_loader import StreamingDataset, World

N = 70
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more workers than cores
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), N)


def in_workers(dataset: StreamingDataset, n_workers: int, **options: object) -> torch.utils.data.DataLoader:
    context = options.pop("multiprocessing_context", "forkserver")
    return torch.utils.data.DataLoader(
        dataset, num_workers=n_workers, multiprocessing_context=context, timeout=60, **options
    )


def ids(batch: dict) -> list[str]:
    return list(batch["sample_id"])


def test_workers_hand_out_the_order_of_one_process_and_go_on_in_it(made):
    def make_one() -> StreamingDataset:
        return StreamingDataset(made.plan, global_batch_size=9, seed=2, world=World())

    alone = list(make_one())
    loader = in_workers(make_one(), 3, batch_size=None)
    assert len(loader) == len(alone)
    for batch, expected in zip(loader, alone, strict=True):
        assert ids(batch) == ids(expected)
        for handle in made.plan.handles:
            np.testing.assert_array_equal(batch[handle.name].numpy(), expected[handle.name].numpy())

    left = make_one()
    batches = iter(left)
    for _ in range(4):  # 4 is no multiple of the number of workers
        next(batches)
    resumed = make_one()
    resumed.load_state_dict(left.state_dict())
    assert [ids(b) for b in in_workers(resumed, 3, batch_size=None)] == [ids(b) for b in alone[4:]]


def test_single_samples_are_collated_by_torch(made):
    columns = [c for c in made.plan.table.column_names if c != "maybe"]  # torch collates no None
    plan = dataclasses.replace(made.plan, table=made.plan.table.select(columns))
    dataset = StreamingDataset(plan, seed=2, world=World())
    alone = [sample["sample_id"] for sample in dataset]
    dataset.set_epoch(0)
    batches = list(in_workers(dataset, 2, batch_size=32))
    assert sorted(i for b in batches for i in ids(b)) == sorted(alone)
    assert ids(batches[0]) == alone[:32]
    assert batches[0]["S2"].shape == (32, 4, 12, 10)
    assert batches[0]["mask"]["LULC"].shape == (32,)
    assert len(dataset) == N


@pytest.mark.parametrize("used", [True, False], ids=["used", "fresh"])
def test_a_fork_is_refused_and_does_not_hang(made, used):
    reader = SampleReader.of(made.plan)
    if used:
        reader.read([0])
    dataset = StreamingDataset(made.plan, global_batch_size=9, world=World())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
        loader = in_workers(dataset, 1, batch_size=None, multiprocessing_context="fork")
        with pytest.raises(InvalidInputError, match="forkserver"):
            next(iter(loader))
    reader.close()


def test_epochs_follow_each_other_in_workers_that_stay_and_in_new_ones_by_set_epoch(made):
    alone = StreamingDataset(made.plan, global_batch_size=9, seed=2, world=World())
    first, second = ([ids(b) for b in alone] for _ in range(2))
    dataset = StreamingDataset(made.plan, global_batch_size=9, seed=2, world=World())
    stay = in_workers(dataset, 2, batch_size=None, persistent_workers=True, multiprocessing_context="spawn")
    assert [[ids(b) for b in stay] for _ in range(2)] == [first, second]
    del stay
    new = in_workers(dataset, 2, batch_size=None)
    for epoch, expected in ((1, second), (0, first)):
        dataset.set_epoch(epoch)
        assert [ids(b) for b in new] == expected


def test_workers_and_their_memory_are_gone_with_the_loader(made):
    before, others = set(Path("/dev/shm").iterdir()), set(multiprocessing.active_children())
    loader = in_workers(StreamingDataset(made.plan, global_batch_size=9, world=World()), 2, batch_size=None)
    batches = iter(loader)
    next(batches)
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    del batches, loader
    gc.collect()
    for worker in workers:  # torch terminates those that are slow to end, and does not wait for that
        worker.join(60)
    assert not any(worker.is_alive() for worker in workers)
    pids = {str(worker.pid) for worker in workers}
    left = {p.name for p in set(Path("/dev/shm").iterdir()) - before}
    assert not [name for name in left if pids & set(name.replace("-", "_").split("_"))]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
def test_torchdata_saves_and_restores_in_the_middle_of_an_epoch(made):
    from torchdata import stateful_dataloader as stateful

    def loader() -> torch.utils.data.DataLoader:
        return stateful.StatefulDataLoader(
            StreamingDataset(made.plan, global_batch_size=9, seed=2, world=World()),
            batch_size=None,
            num_workers=2,
            multiprocessing_context="forkserver",
        )

    first = loader()
    batches = iter(first)
    for _ in range(3):
        next(batches)
    state = first.state_dict()
    rest = [ids(b) for b in batches]
    second = loader()
    second.load_state_dict(state)
    assert [ids(b) for b in second] == rest
    assert len(rest) == len(StreamingDataset(made.plan, global_batch_size=9, world=World())) - 3


def test_the_number_of_batches_is_right_or_refused(made):
    singles = StreamingDataset(made.plan, seed=2, world=World())
    assert len(singles) == N
    alone = torch.utils.data.DataLoader(singles, batch_size=32)
    assert len(alone) == len(list(alone)) == 3
    loader = in_workers(StreamingDataset(made.plan, seed=2, world=World()), 2, batch_size=24)
    with pytest.raises(TypeError, match="each worker's last one may be short"):
        len(loader)
    # reads of 32 samples in turn: 38 for one worker, 32 for the other
    assert sorted(len(ids(b)) for b in loader) == [8, 14, 24, 24]
    batches = StreamingDataset(made.plan, global_batch_size=9, world=World())
    assert len(in_workers(batches, 3, batch_size=None)) == 8
