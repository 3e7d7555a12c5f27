"""Questions of trust: the same order on other hardware, nothing lost by a restart, nothing wrong under faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from peers.contract import Request
from peers.stage import ObjectServer, Stage
from tensorbank.testing.fault_server import Faults

__all__ = ["FAULTS", "fault_named", "order_of", "resumed"]

FAULTS = ("none", "503 10%", "503 60%", "cut 10%", "cut 34%", "flipped", "slow 5%", "slow 20%")
"""The faults to try; shares are of bodies. Readers of single objects draw more of them than
readers of chunks, so there are two shares of most."""
SLOW_S = 15.0
SEED = 7


def fault_named(name: str) -> Faults:
    """Return the server's faults by name; every 20th body has a flipped bit, but only once per object,
    so that asking again helps.
    """
    kind, _, share = name.partition(" ")
    part = float(share.rstrip("%")) / 100 if share else 0.05
    if kind == "none":
        return Faults()
    if kind == "503":
        return Faults(unavailable=part, seed=SEED)
    if kind == "cut":
        return Faults(cut=part, seed=SEED)
    if kind == "flipped":
        return Faults(flipped=part, once=True, seed=SEED)
    if kind == "slow":
        return Faults(slow=part, slow_s=SLOW_S, seed=SEED)
    raise ValueError(f"no fault {name!r}; there are {', '.join(FAULTS)}")


def order_of(requests: Sequence[Request], stage: Stage, server: ObjectServer) -> dict[str, Any]:
    """Count the batches that hold the same samples as with the first number of workers,
    and tell whether a second run repeats the first.
    """
    server.set(Faults())
    first = _batches(stage.measure(requests[0], server))
    again = _batches(stage.measure(requests[0], server))
    others = {r.n_workers: _batches(stage.measure(r, server)) for r in requests[1:]}
    return {
        "n_batches": {str(requests[0].n_workers): len(first), **{str(n): len(b) for n, b in others.items()}},
        "repeats": first == again,
        "equal_batches": {
            str(n): sum(a == b for a, b in zip(first, found, strict=False)) for n, found in others.items()
        },
    }


def resumed(request: Request, stage: Stage, server: ObjectServer) -> dict[str, Any]:
    """Stop in the middle of an epoch, go on in a new process with another number of workers, count what came."""
    server.set(Faults())
    whole = stage.measure(request, server)
    half = max(1, whole["n_batches"] // 2)
    before = stage.measure(replace(request, stop_after=half), server)
    more = replace(request, state=before["state"], n_workers=3)
    after = stage.measure(more, server)
    came = Counter(name for run in (before, after) for batch in run["batches"] for name in batch)
    wanted = {name for batch in whole["batches"] for name in batch}
    return {
        "n_samples": len(wanted),
        "lost": sum(name not in came for name in wanted),
        "repeated": sum(n - 1 for n in came.values()),
        "same_batches": _batches(before) + _batches(after) == _batches(whole),
        "first_batch_s": after["first_batch_s"],
    }


def _batches(run: dict[str, Any]) -> list[list[str]]:
    """Return each batch's samples, in no order: how a batch is laid out is nobody's promise."""
    return [sorted(batch) for batch in run["batches"]]
