"""The process of one peer: ``python -P -m peers.host prepare|stream`` with a request as JSON on standard input.

The last line of standard output is the answer as JSON. Times are of the system-wide monotonic clock, so that the harness can
match them with what it samples from outside.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peers.contract import Export, Request, fingerprint

PR_SET_CHILD_SUBREAPER = 36


def prepare(request: Request) -> dict[str, Any]:
    """Write the peer's format."""
    peer = importlib.import_module(f"peers.{request.peer}")
    started = time.monotonic()
    peer.prepare(Export(request.export), Path(request.folder), request.track)
    sizes = [p.stat().st_size for p in Path(request.folder).rglob("*") if p.is_file()]
    return {"seconds": time.monotonic() - started, "stored_bytes": sum(sizes), "n_objects": len(sizes)}


def stream(request: Request) -> dict[str, Any]:
    """Stream some epochs."""
    started = time.monotonic()
    peer = importlib.import_module(f"peers.{request.peer}")
    opened, began_cpu_s = time.monotonic(), time.process_time()
    loader = peer.Loader(request)
    epochs = []
    state = None
    try:
        while not epochs or time.monotonic() - opened < request.at_least_s:
            epochs.append(_epoch(loader, request))
            if request.stop_after and hasattr(loader, "state_dict"):
                state = loader.state_dict()
    finally:
        ended, cpu_s = time.monotonic(), time.process_time() - began_cpu_s
        loader.close()
    return {
        "versions": {name: importlib.metadata.version(name) for name in peer.DISTRIBUTIONS},
        "import_s": opened - started,
        "opened": opened,
        "ended": ended,
        "cpu_s": cpu_s,
        "epochs": epochs,
        "state": state,
    }


def _epoch(loader: Any, request: Request) -> dict[str, Any]:
    began = time.monotonic()
    arrivals, batches, prints = [], [], {}
    n_bytes = 0
    for ids, tensors in loader.epoch():
        arrivals.append(time.monotonic())
        ids = [i if isinstance(i, str) else str(i) for i in ids]
        batches.append(ids)
        arrays = {name: np.asarray(t) for name, t in tensors.items()}
        n_bytes += sum(a.nbytes for a in arrays.values())
        for i, item in enumerate(ids):
            seen = {name: fingerprint(a[i], full=request.verify) for name, a in arrays.items()}
            prints.setdefault(item, []).append(seen)
        if request.step_s:
            time.sleep(request.step_s)
        if len(batches) == request.stop_after:
            break
    return {
        "began": began,
        "ended": time.monotonic(),
        "arrivals": arrivals,
        "batches": batches,
        "prints": prints,
        "delivered_bytes": n_bytes,
    }


ACTIONS: Mapping[str, Any] = {"prepare": prepare, "stream": stream}


def main() -> int:
    """Run one action."""
    # Daemons that a peer starts stay below this process, where the harness counts their time and memory.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    request = Request.from_json(sys.stdin.read())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error
    answers.write(json.dumps(ACTIONS[sys.argv[1]](request)) + "\n")
    answers.flush()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # threads of clients that never end must not hold the harness up
