"""The store in which the ranks of a process group tell each other things, without collectives: one that began with the group.

The store of ``torch.distributed`` is that, unless torchrun's agent holds it: such a store outlives the ranks, and after a
restart still has what their predecessors said. There rank 0 opens a store of its own, which ends with its process, and leaves
its port in the agent's. What predecessors left there leads to one that is gone.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from datetime import timedelta
from typing import Any

import torch.distributed

__all__ = ["store_of_group"]

WAIT_S = 60.0
"""The most seconds that a rank waits for the store of rank 0."""
CONNECT_S = 5.0
POLL_S = 0.1
TIMEOUT = timedelta(seconds=60)
_KEY = "tensorbank/store"
_TCPStore: Any = getattr(torch.distributed, "TCPStore", None)  # a torch without its distributed part has none
_log = logging.getLogger(__name__)
_known: list[tuple[Any, Any]] = []
"""The store of the process group, and the one that stands in for it; at most one pair."""


def store_of_group() -> Any:
    """Return the store of the process group of ``torch.distributed``.

    None if there is no group, it has one rank, or, with a warning, if rank 0 has not opened a store within a minute.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return None
    store = distributed.distributed_c10d._get_default_store()
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return store
    if not (_known and _known[0][0] is store):
        host = os.environ["MASTER_ADDR"]  # torchrun's agent is where rank 0 is
        own = _opened(store, host) if distributed.get_rank() == 0 else _found(store, host)
        if own is None:
            _log.warning(
                "rank 0 has opened no store on %s within %g s, so ranks share no plan and are not compared",
                host,
                WAIT_S,
            )
            return None
        _known[:] = [(store, own)]
    return _known[0][1]


def _opened(store: Any, host: str) -> Any:
    """Open a store, and tell the other ranks."""
    own = _TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
    mark = uuid.uuid4().hex
    own.set(_KEY, mark)
    store.set(_KEY, f"{own.port} {mark}")
    return own


def _found(store: Any, host: str) -> Any:
    """Wait for the store of rank 0; None if it does not come."""
    until_s = time.monotonic() + WAIT_S
    gone = None
    while time.monotonic() < until_s:
        said = store.get(_KEY).decode() if store.check([_KEY]) else None
        if said != gone:
            port, mark = str(said).split()
            own = _connected(host, int(port), mark)
            if own is not None:
                return own
            gone = said
        time.sleep(POLL_S)
    return None


def _connected(host: str, port: int, mark: str) -> Any:
    """Return the store at a port; None if there is none, or another one."""
    try:
        socket.create_connection(
            (host, port), CONNECT_S
        ).close()  # torch would try, and complain, until its timeout
        own = _TCPStore(
            host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=CONNECT_S)
        )
        if own.check([_KEY]) and own.get(_KEY).decode() == mark:
            own.set_timeout(TIMEOUT)
            return own
    except (OSError, RuntimeError):  # torch's DistStoreError and DistNetworkError are the latter
        pass
    return None
