"""A StatefulDataLoader of torchdata over our dataset: states before, at and after each boundary give back every batch, once."""

from __future__ import annotations

import copy
from itertools import islice

import pytest
import torch.utils.data

from support.handmade import HANDLES, Handmade, make
from tensorbank import InvalidInputError
from tensorbank_loader import StreamingDataset, World

N_BATCHES = 7  # an odd number, so that two workers' turns change from epoch to epoch
pytestmark = [
    pytest.mark.timeout(280),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),
    # torch counts batches of the resumed epoch and of the next one together
    pytest.mark.filterwarnings("ignore:Length of IterableDataset:UserWarning"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), 2 * N_BATCHES, handles=HANDLES[:1])


def dataset(made: Handmade) -> StreamingDataset:
    return StreamingDataset(made.plan, global_batch_size=2, seed=4, world=World())


def stateful(
    one: StreamingDataset, n_workers: int, *, persistent: bool = False
) -> torch.utils.data.DataLoader:
    from torchdata.stateful_dataloader import StatefulDataLoader

    context = {"multiprocessing_context": "forkserver"} if n_workers else {}
    return StatefulDataLoader(
        one, batch_size=None, num_workers=n_workers, persistent_workers=persistent, **context
    )


def ids(batch: dict) -> list[str]:
    return list(batch["sample_id"])


@pytest.fixture(scope="module")
def epochs(made: Handmade) -> list[list[list[str]]]:
    one = dataset(made)
    return [[ids(b) for b in one] for _ in range(6)]


CASES = {
    "no workers": (0, False),
    "fresh workers": (2, False),
    "persistent workers": (2, True),
    "more workers than batches": (8, False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_state_of_any_place_gives_back_the_rest_and_whole_epochs_after_it(made, epochs, case):
    """States of the second epoch: before its first batch, after the first, before the last, at the last, after its end."""
    n_workers, persistent = CASES[case]
    loader = stateful(dataset(made), n_workers, persistent=persistent)
    assert [ids(b) for b in loader] == epochs[0]
    states = {}
    batches = iter(loader)
    states[0] = copy.deepcopy(loader.state_dict())
    for n in range(1, N_BATCHES + 1):
        assert ids(next(batches)) == epochs[1][n - 1]
        states[n] = copy.deepcopy(loader.state_dict())
    assert next(batches, None) is None
    states["over"] = copy.deepcopy(loader.state_dict())
    # Workers of one batch each have handed it out before anybody consumed it, so that the epoch after it may come twice.
    places = (0, 1, N_BATCHES - 1, N_BATCHES, "over") if n_workers < N_BATCHES else (1,)
    for place in places:
        resumed = stateful(dataset(made), n_workers, persistent=persistent)
        resumed.load_state_dict(states[place])
        at_end = place in (N_BATCHES, "over")
        expected = epochs[2:5] if at_end else [epochs[1][place:], epochs[2], epochs[3]]
        assert [[ids(b) for b in resumed] for _ in range(3)] == expected, place


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_state_of_a_resumed_run_is_as_good_as_the_first(made, epochs, n_workers):
    """Saved at an epoch's last batch, resumed, saved after one batch, resumed: the turns of workers are kept."""
    loader = stateful(dataset(made), n_workers)
    list(islice(iter(loader), N_BATCHES))
    state = loader.state_dict()
    for had in range(3):
        resumed = stateful(dataset(made), n_workers)
        resumed.load_state_dict(copy.deepcopy(state))
        batches = iter(resumed)
        assert ids(next(batches)) == epochs[1][had]
        state = resumed.state_dict()
    assert [ids(b) for b in batches] == epochs[1][3:]
    assert [ids(b) for b in resumed] == epochs[2]


def test_a_loader_goes_back_to_a_state_of_its_own(made, epochs):
    loader = stateful(dataset(made), 2)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = copy.deepcopy(loader.state_dict())
    for _ in range(2):
        assert [ids(b) for b in batches] == epochs[0][3:]
        loader.load_state_dict(state)
        batches = iter(loader)
    assert [ids(b) for b in batches] == epochs[0][3:]
    assert [ids(b) for b in loader] == epochs[1]


def test_a_state_of_other_workers_is_refused(made):
    loader = stateful(dataset(made), 2)
    next(iter(loader))
    state = copy.deepcopy(loader.state_dict())
    other = stateful(dataset(made), 3)
    other.load_state_dict(state)
    with pytest.raises(InvalidInputError, match="one of 2 workers, and here are 3"):
        iter(other)


def test_single_samples_go_on_in_the_middle_of_an_epoch(made):
    def loader() -> torch.utils.data.DataLoader:
        from torchdata.stateful_dataloader import StatefulDataLoader

        one = StreamingDataset(made.plan, seed=4, world=World())
        return StatefulDataLoader(one, batch_size=4, num_workers=2, multiprocessing_context="forkserver")

    first = loader()
    alone = [ids(b) for _ in range(2) for b in first]
    half = len(alone) // 2
    assert sorted(name for b in alone[:half] for name in b) == sorted(
        made.plan.table["sample_id"].to_pylist()
    )
    for n in range(1, half):
        one = loader()
        list(islice(iter(one), n))
        resumed = loader()
        resumed.load_state_dict(one.state_dict())
        assert [ids(b) for b in resumed] == alone[n:half]
        assert [ids(b) for b in resumed] == alone[half:]
