"""The checkpoint harness: stop at every step, go on at every step, compare the tails."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Protocol


class Resumable(Protocol):
    def __iter__(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def assert_resumable(
    make: Callable[[], Resumable],
    seen_of: Callable[[Any], Any],
    *,
    others: Sequence[Callable[[], list[Resumable]]] = (),
) -> int:
    """Check that states after every step of an epoch restore its rest, and the whole next epoch,
    with which the last one's goes on.

    Parameters
    ----------
    make
        A fresh loader in its first epoch.
    seen_of
        What to compare of an item; of ``others``, lists that are added up.
    others
        Worlds of another size: each makes the loaders of all of its ranks. Their items, rank after rank, must add up to
        what one loader sees.

    Returns
    -------
    Number of steps.
    """
    loader = make()
    states, steps = [json.dumps(loader.state_dict())], []
    for item in loader:
        states.append(json.dumps(loader.state_dict()))
        steps.append(seen_of(item))
    following = [seen_of(item) for item in loader]
    assert following != steps, "the second epoch repeats the first"
    for done, state in enumerate(states):
        assert len(state) < 1024
        again = make()
        again.load_state_dict(json.loads(state))
        assert json.dumps(again.state_dict()) == state
        rest = steps[done:]
        if rest:
            assert [seen_of(item) for item in again] == rest, f"after {done} steps"
        assert [seen_of(item) for item in again] == following, f"after {done} steps, in the next epoch"
        for world in others:
            ranks = world()
            for rank in ranks:
                rank.load_state_dict(json.loads(state))
            tails = [[seen_of(item) for item in rank] for rank in ranks]
            together = [
                list(chain(*(t[i] for t in tails if i < len(t)))) for i in range(max(map(len, tails)))
            ]
            assert together == (rest or following), f"after {done} steps, with {len(ranks)} ranks"
    return len(steps)
