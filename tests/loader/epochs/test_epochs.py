"""An ``iter()`` gives the epoch of the table of events in the loader's guide, row by row,
for each way to iterate."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from itertools import islice

import pytest
import torch.utils.data

from support.handmade import HANDLES, Handmade, make
from tensorbank import InvalidInputError
from tensorbank_loader import DataLoader, StreamingDataset, World

N = 15  # 8 batches of 2
Batch = list[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), N, handles=HANDLES[:1])


def native(made: Handmade, **options: object) -> DataLoader:
    return DataLoader(made.plan, batch_size=2, seed=4, world=World(), **options)


def dataset(made: Handmade, **options: object) -> StreamingDataset:
    return StreamingDataset(made.plan, global_batch_size=2, seed=4, world=World(), **options)


def samples(made: Handmade, **options: object) -> StreamingDataset:
    return StreamingDataset(made.plan, seed=4, world=World(), **options)


def ids(batch: dict) -> Batch:
    found = batch["sample_id"]
    return [found] if isinstance(found, str) else list(found)


@pytest.fixture(params=[native, dataset, samples], ids=["loader", "batches", "samples"])
def maker(request: pytest.FixtureRequest, made: Handmade) -> Iterator[Callable[..., object]]:
    opened = []

    def make_one(**options: object) -> object:
        opened.append(request.param(made, **options))
        return opened[-1]

    yield make_one
    for one in opened:
        if isinstance(one, DataLoader):
            one.close()


@pytest.fixture
def truth(maker: Callable[..., object]) -> list[list[Batch]]:
    """Return the epochs 0 to 3, each asked for by its number."""
    one = maker()
    found = []
    for epoch in range(4):
        one.set_epoch(epoch)
        found.append([ids(b) for b in one])
    assert len({json.dumps(epoch) for epoch in found}) == 4
    assert all(len({name for batch in epoch for name in batch}) == N for epoch in found)
    return found


def some(one: object, n: int) -> list[Batch]:
    """The first batches, of an iterator that is then let go."""
    return [ids(b) for b in islice(iter(one), n)]


def whole(one: object) -> list[Batch]:
    return [ids(b) for b in one]


def test_epochs_count_up_by_themselves(maker, truth):
    one = maker()
    assert [whole(one) for _ in range(4)] == truth


def test_an_epoch_whose_last_batch_was_had_is_over_though_nobody_asked_for_more(maker, truth):
    one = maker()
    assert some(one, len(truth[0])) == truth[0]
    assert whole(one) == truth[1]


def test_an_epoch_that_was_left_begins_anew(maker, truth):
    one = maker()
    assert some(one, 3) == truth[0][:3]
    assert some(one, 1) == truth[0][:1]
    assert whole(one) == truth[0]
    assert some(one, 2) == truth[1][:2]
    assert whole(one) == truth[1]


def test_an_epoch_that_was_left_goes_on_where_that_was_asked_for(maker, truth):
    one = maker(on_iter="continue")
    assert some(one, 3) == truth[0][:3]
    assert whole(one) == truth[0][3:]
    assert whole(one) == truth[1]


def test_an_iterator_that_was_asked_for_nothing_leaves_no_trace(maker, truth):
    one = maker()
    iter(one)
    state = json.dumps(one.state_dict())
    assert whole(one) == truth[0]
    again = maker()
    again.load_state_dict(json.loads(state))
    iter(again)
    assert whole(again) == truth[0]


@pytest.mark.parametrize("done", [0, 1, 5, -1, None], ids=["before", "first", "inside", "last", "after"])
def test_a_state_goes_on_from_its_place_and_then_with_the_next_epochs(maker, truth, done):
    n = len(truth[1]) if done is None else done % len(truth[1])
    one = maker()
    one.set_epoch(1)
    some(one, n)
    state = json.loads(json.dumps(one.state_dict()))
    for other in (maker(), maker(on_iter="continue"), one):
        other.load_state_dict(state)
        rest = truth[1][n:] or truth[2]
        assert whole(other) == rest
        assert whole(other) == (truth[2] if truth[1][n:] else truth[3])


@pytest.mark.parametrize("done", [0, 3, None])
def test_the_epoch_of_a_state_set_again_keeps_its_place(maker, truth, done):
    n = len(truth[1]) if done is None else done
    one = maker()
    one.set_epoch(1)
    some(one, n)
    state = one.state_dict()
    other = maker()
    other.load_state_dict(state)
    other.set_epoch(state["epoch"])
    had = truth[1][:n] + whole(other)
    assert had == truth[1] + ([] if truth[1][n:] else truth[2])
    other.set_epoch(0)
    assert whole(other) == truth[0]


def test_another_epoch_than_that_of_a_state_begins_at_its_start(maker, truth):
    one = maker()
    some(one, 3)
    other = maker()
    other.load_state_dict(one.state_dict())
    other.set_epoch(2)
    assert whole(other) == truth[2]
    other.load_state_dict(one.state_dict())
    other.set_epoch(1)
    other.set_epoch(0)
    assert whole(other) == truth[0], "an epoch that was left for another has lost its place"


def test_an_epoch_set_again_begins_anew(maker, truth):
    one = maker()
    for _ in range(2):
        one.set_epoch(1)
        assert some(one, 3) == truth[1][:3]
    one.set_epoch(1)
    assert whole(one) == truth[1]


def test_the_rest_of_a_resumed_epoch_is_lost_when_it_is_left_again(maker, truth):
    one = maker()
    some(one, 3)
    other = maker()
    other.load_state_dict(one.state_dict())
    assert some(other, 2) == truth[0][3:5]
    assert whole(other) == truth[0]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("done", [0, 3])
def test_a_copy_goes_on_where_the_original_stands(maker, truth, copied, done):
    one = maker()
    batches = iter(one)
    had = [ids(b) for b in islice(batches, done)]
    other = copied(one)
    assert whole(other) == truth[0][done:]
    assert whole(other) == truth[1]
    assert had + [ids(b) for b in batches] == truth[0], "the original runs on"
    if isinstance(other, DataLoader):
        other.close()


def test_of_two_iterators_the_newer_one_says_where_a_dataset_stands(made):
    one = dataset(made)
    older, newer = iter(one), iter(one)
    for _ in range(4):
        next(older)
    for _ in range(2):
        next(newer)
    next(older)
    assert one.state_dict()["position"] == 2


@pytest.mark.parametrize(
    "left_by",
    [iter, lambda loader: loader.set_epoch(1), lambda loader: loader.load_state_dict(loader.state_dict())],
    ids=["iter", "set_epoch", "load_state_dict"],
)
def test_an_epoch_that_was_left_for_another_does_not_seem_to_end(made, left_by):
    with native(made) as loader:
        older = iter(loader)
        next(older)
        left_by(loader)
        with pytest.raises(InvalidInputError) as caught:
            next(older)
        assert caught.value.kind == "given-up"


def test_an_epoch_that_was_had_stays_over_when_the_next_begins(made):
    with native(made) as loader:
        older = iter(loader)
        assert len(list(older)) == 8
        next(iter(loader))
        assert next(older, None) is None


def test_a_choice_of_what_iter_does_is_checked(maker):
    with pytest.raises(InvalidInputError, match="'restart' or 'continue'"):
        maker(on_iter="resume")


# ---------------------------------------------------- torch's workers


def in_workers(one: StreamingDataset, **options: object) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(
        one, batch_size=None, num_workers=2, multiprocessing_context="forkserver", timeout=100, **options
    )


@pytest.fixture(scope="module")
def epochs(made: Handmade) -> list[list[Batch]]:
    one = dataset(made)
    return [whole(one) for _ in range(6)]


pytestmark = [
    pytest.mark.timeout(200),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


@pytest.mark.parametrize("persistent", [False, True], ids=["fresh", "persistent"])
def test_workers_count_epochs_up_and_agree_on_them(made, epochs, persistent):
    """Complete, left after one batch and after most, chosen, resumed, and chosen while the same workers stay."""
    one = dataset(made)
    loader = in_workers(one, persistent_workers=persistent)
    assert whole(loader) == epochs[0]
    assert some(loader, 1) == epochs[1][:1]
    assert some(loader, 6) == epochs[2][:6]
    assert whole(loader) == epochs[3]
    assert one.state_dict()["epoch"] == 4
    one.set_epoch(1)
    assert whole(loader) == epochs[1]
    state = dataset(made)
    state.set_epoch(3)
    some(state, 3)
    one.load_state_dict(state.state_dict())
    one.set_epoch(3)
    assert whole(loader) == epochs[3][3:]
    assert whole(loader) == epochs[4]


def test_iterators_of_workers_that_run_at_once_are_epochs_of_their_own(made, epochs):
    loader = in_workers(dataset(made))
    pairs = list(zip(loader, loader, strict=True))
    found = [[ids(pair[i]) for pair in pairs] for i in range(2)]
    assert sorted(found) == sorted(epochs[:2])


def test_workers_of_a_program_that_seeds_torch_anew_still_see_the_next_epoch(made, epochs):
    loader = in_workers(dataset(made))
    for epoch in range(2):
        torch.manual_seed(0)
        assert whole(loader) == epochs[epoch]


def test_workers_go_on_from_the_main_process_and_back(made, epochs):
    one = dataset(made)
    assert whole(one) == epochs[0]
    assert whole(in_workers(one)) == epochs[1]
    assert whole(one) == epochs[2]
    assert whole(in_workers(one)) == epochs[3]
