"""A query planned once for all ranks of a process group.

Rank 0 plans, and writes the plan to a file of its node. The ranks beside it map that file; on each other node one rank fetches
its bytes through the store of the process group, and its neighbours map what it wrote. So a group of any size asks the bank, or
the service, once, all ranks stream one snapshot, and the memory of a node holds the plan once. Credentials are not handed over:
each rank reads with its own.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch.distributed

from tensorbank.errors import FormatError, StorageError
from tensorbank.plans import Plan
from tensorbank.queries import Answers
from tensorbank_loader.epochs import World, is_one_node, store_of_group
from tensorbank_loader.sharing.node_folder import NodeFolder, in_memory
from tensorbank_loader.sharing.turn import Turn

__all__ = ["shared_plan"]

_log = logging.getLogger(__name__)
MAX_HELD = 16
"""The most plans that are kept for ranks that have not come; a rank that comes later yet plans for itself."""
_held: list[Turn] = []
"""The turns whose files this process keeps for ranks that may still come, even if it needs them no more itself."""


def shared_plan(
    query: Answers, *, by_date: bool = False, world: World | None = None, folder: NodeFolder | None = None
) -> Plan:
    """Plan a query once for all ranks of the process group, each of which calls this.

    Without a process group, or with one rank, it is ``query.plan()``. ``query.dataloader()`` calls it. A rank that nobody plans
    for, as rank 0 has not asked the same within a minute, plans for itself, with a warning.

    Parameters
    ----------
    query
        Query or selection, the same on all ranks.
    by_date
        Address each date of a sample alone, as in :meth:`Query.plan`.
    world
        Rank that the plan is for. One of a subgroup plans for itself.
    folder
        Folder in which processes of this node share plans; None: one below that of temporary files.

    Raises
    ------
    TensorBankError
        What rank 0 met while it planned, on all ranks; or rank 0 is gone (``kind`` is ``world``).
    """
    store = None if world is not None and world.subgroup else store_of_group()
    if store is None:
        return query.plan(by_date=by_date)
    rank, n_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    turn = Turn(store, f"{query.question}\n{by_date}", rank, n_ranks)
    folder = NodeFolder.of_node() if folder is None else folder
    if rank == 0:
        return _planned(query, turn, folder, by_date=by_date)
    said = turn.heard()
    plan = None if said is None else _had(said, turn, folder)
    if plan is not None:
        return query.adopted(plan)  # with this rank's keys
    why = "has not asked for this plan" if said is None else "could not hand its plan over"
    _log.warning("rank %d plans for itself, since rank 0 %s: %r", rank, why, query)
    return query.plan(by_date=by_date)


def _planned(query: Answers, turn: Turn, folder: NodeFolder, *, by_date: bool) -> Plan:
    """Plan for all ranks."""
    path = None
    _held[:] = [one for one in _held if not one.is_over][1 - MAX_HELD :]
    with turn.planning():
        plan = query.plan(by_date=by_date)
        name = f"{plan.fingerprint}-{uuid.uuid4().hex}"
        try:
            plan = query.adopted(folder.put(name, plan))
            path = folder.path(name)
            folder.hold(name, turn)
            _held.append(turn)
        except (StorageError, OSError) as error:
            _log.warning("rank 0 cannot hand its plan over, each rank plans for itself: %s", error)
        n_bytes = turn.offer(name, path, as_pieces=not is_one_node(os.environ))
    turn.finish(n_bytes)
    return plan


def _had(said: Mapping[str, Any], turn: Turn, folder: NodeFolder) -> Plan | None:
    """Return what rank 0 has planned; None if it cannot be had."""
    name, n_bytes = said["name"], said["n_bytes"]
    fetch = partial(turn.fetch, n_bytes)
    try:
        return None if name is None else folder.get(name, fetch)
    except (StorageError, OSError, FormatError) as error:
        _log.warning("the plan of rank 0 cannot be shared in %s: %s", folder.folder, error)
        return in_memory(fetch)
    finally:
        turn.finish(n_bytes)
