"""The agreement of ranks: all of one process group stream the same epochs, or none of them begins.

Ranks with another plan, seed or batch size would repeat some samples, leave others out, and hang at the end of the shorter
epoch. Each rank says what it streams in the store of the process group, which was there before any of its collectives; rank 0
compares, and says what it found. No collective runs, so a rank that never comes holds nobody up for longer than :data:`WAIT_S`.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch.distributed

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_loader.epochs.group_store import store_of_group
from tensorbank_loader.epochs.world import World

__all__ = ["WAIT_S", "differences", "require_agreement"]

WAIT_S = 60.0
"""The most seconds that a rank waits for the others to begin; then all go on, with a warning: one may look at a batch alone."""
N_NAMED = 4
"""The number of ranks that an error names."""
_OWN = frozenset({"source", "digest", "n_workers"})
"""The fields of a state that do not decide which samples come."""

_log = logging.getLogger(__name__)
_turns = itertools.count()


def require_agreement(state: Mapping[str, Any], world: World, *, wait_s: float = WAIT_S) -> None:
    """Compare what the ranks of the process group are about to stream; nothing where there is no group, or it has one rank.

    Every rank that shares an epoch calls this as often as all others.

    Parameters
    ----------
    state
        Saved state at which this rank begins.

    Raises
    ------
    InvalidInputError
        Ranks would stream different epochs; the kind is ``world``. All ranks get the same sentence.
    """
    store = _store_of_group(world)
    if store is None:
        return
    turn = f"tensorbank/agreement/{next(_turns)}"
    limit = timedelta(seconds=wait_s)
    told = {name: value for name, value in state.items() if name not in _OWN}
    store.set(f"{turn}/{world.rank}", json.dumps(told))
    verdict = f"{turn}/verdict"
    try:
        if world.rank == 0:
            names = [f"{turn}/{rank}" for rank in range(world.n_ranks)]
            store.wait(names, limit)
            said = differences([json.loads(text) for text in store.multi_get(names)])
            store.set(verdict, said)
        else:
            store.wait([verdict], limit)
            said = store.get(verdict).decode()
    except RuntimeError as error:  # torch's DistStoreError and DistNetworkError among them
        _log.warning(
            "rank %d cannot tell whether all %d ranks stream the same: not all of them have begun after %g s (%s)",
            world.rank,
            world.n_ranks,
            wait_s,
            str(error).partition("\n")[0],
        )
        if world.rank == 0:
            with suppress(RuntimeError):
                store.set(verdict, "")
        return
    if said:
        raise InvalidInputError(said, kind=ErrorKind.WORLD)


def differences(told: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence about the ranks that stream something else than rank 0, empty if there is none. Pure."""
    first = told[0]
    others = {
        rank: [name for name in sorted({*first, *mine}) if first.get(name) != mine.get(name)]
        for rank, mine in enumerate(told)
    }
    wrong = [rank for rank, names in others.items() if names]
    if not wrong:
        return ""
    said = []
    for rank in wrong[:N_NAMED]:
        pairs = (f"{name} {told[rank].get(name)!r}, not {first.get(name)!r}" for name in others[rank])
        said.append(f"rank {rank} has {' and '.join(pairs)}")
    more = f"; so do {len(wrong) - N_NAMED} ranks more" if len(wrong) > N_NAMED else ""
    return (
        f"ranks would stream different batches, compared with rank 0: {'; '.join(said)}{more}. Give all ranks the same plan "
        "(by shared_plan, or saved once and loaded by each of them), the same seed, sizes and options, and the same state to go "
        "on from"
    )


def _store_of_group(world: World) -> Any:
    """Return the store of the process group whose ranks are those of a world, None if there is no such group."""
    store = None if world.subgroup else store_of_group()
    return None if store is None or torch.distributed.get_world_size() != world.n_ranks else store
