"""Run peers: prepare their data, serve it, measure a process, and say what it delivered."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np

from peers import PEERS
from peers.contract import Export, Request, Workload, fingerprint, places
from peers.environments import python_of
from peers.processes import Sampler
from peers.server import BUCKET
from peers.workloads import ideal_bytes
from tensorbank.testing.fault_server import Faults

__all__ = ["ROOT", "ObjectServer", "PeerError", "Stage", "environment", "score"]

ROOT = Path(__file__).resolve().parents[1]
PREPARE_S = 3600.0
N_GROUPS = 6
"""The number of runs of neighbours that a shuffled batch should be spread over."""


class PeerError(Exception):
    """A peer's process failed; the text is the end of what it said."""


class ObjectServer:
    """The server in a process of its own, on cores of its own. A context manager."""

    def __init__(self, folder: Path, cores: Sequence[int]) -> None:
        self._folder, self._cores = folder, cores
        self.endpoint = ""

    def __enter__(self) -> ObjectServer:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "peers.server", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        os.sched_setaffinity(self._process.pid, self._cores)
        if self._process.stdout is None:
            raise RuntimeError("the server has no output to read its port from")
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def set(self, faults: Faults) -> None:
        self._ask("faults", faults.to_json().encode())

    def reset(self) -> None:
        self._ask("reset", b"")

    def log(self) -> dict[str, Any]:
        """Return the record of what was asked since the last reset."""
        found: dict[str, Any] = self._ask("log", None)
        return found

    def _ask(self, what: str, body: bytes | None) -> Any:
        with urllib.request.urlopen(f"{self.endpoint}/-/{what}", data=body, timeout=30) as answer:
            return json.load(answer)


@dataclass(frozen=True)
class Stage:
    """The folders and processors of a benchmark.

    Parameters
    ----------
    export
        Folder of the exported samples.
    stored
        Folder that is served; each peer's data of each track lies in one below.
    cache
        Folder of environments, and of what peers cache while they run.
    client_cores, server_cores
        Disjoint where the machine has two.
    limit_s
        Seconds after which a peer's process is killed: it hangs. Writing a format may take as long as it
        takes.
    """

    export: Path
    stored: Path
    cache: Path
    client_cores: Sequence[int]
    server_cores: Sequence[int]
    limit_s: float = 600.0
    install: bool = True

    def request(self, peer: str, track: str, work: Workload, endpoint: str = "", **more: Any) -> Request:
        return Request(
            peer=peer,
            export=str(self.export),
            folder=str(self.stored / peer / track),
            cache=str(self.cache / peer / f"run-{os.getpid()}"),  # another benchmark may run beside this one
            endpoint=endpoint,
            bucket=BUCKET,
            prefix=f"{peer}/{track}",
            track=track,
            workload=work,
            **more,
        )

    def prepare(self, peer: str, track: str, work: Workload) -> dict[str, Any]:
        """Write a peer's data of a track unless it is there; what writing took."""
        folder = self.stored / peer / track
        report = self.stored / f"{peer}.{track}.json"
        if not report.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            answer, _ = self._run("prepare", self.request(peer, track, work))
            report.write_text(json.dumps(answer))
        found: dict[str, Any] = json.loads(report.read_text())
        return found

    def measure(self, request: Request, server: ObjectServer) -> dict[str, Any]:
        """Measure one run from a cold cache: what it took, and whether it delivered what was asked for.

        Raises
        ------
        PeerError, subprocess.TimeoutExpired
            The process failed or hung.
        """
        server.reset()
        answer, sampler = self._run("stream", request)
        log = server.log()
        export = _export(str(self.export))
        epochs = answer["epochs"]
        ideal = ideal_bytes(request.workload, export, request.track) * len(epochs)
        batches = [batch for epoch in epochs for batch in epoch["batches"]]
        arrivals = np.array([at for epoch in epochs for at in epoch["arrivals"]])
        delivers = PEERS[request.peer].delivers
        # The ceiling has no items, only bytes: it counts as having brought what they are good for.
        n = len(places(request.workload, len(export)))
        if delivers:
            n = sum(map(len, epochs[0]["batches"]))
        gaps = np.diff(arrivals)
        began, ended = answer["opened"], epochs[0]["ended"]
        cpu_s = answer["cpu_s"] + sampler.cpu_s(answer["opened"], answer["ended"])
        decoded = sum(e["delivered_bytes"] for e in answer["epochs"])
        return {
            "peer": request.peer,
            "workload": request.workload.name,
            "track": request.track,
            "options": dict(request.options),
            "n_workers": request.n_workers,
            "versions": answer["versions"],
            "n_samples": n,
            "n_batches": len(batches),
            "n_epochs": len(epochs),
            "import_s": answer["import_s"],
            "seconds": ended - began,
            "samples_s": n / (ended - began),
            "steady_samples_s": steady_rate(epochs, n),
            "first_batch_s": float(arrivals[0] - began) if len(arrivals) else None,
            "gap_ms": {
                "p50": float(np.quantile(gaps, 0.5)) * 1e3,
                "p99": float(np.quantile(gaps, 0.99)) * 1e3,
                "max": float(gaps.max()) * 1e3,
            }
            if len(gaps)
            else None,
            "utilisation": request.step_s * len(batches) / (ended - began) if request.step_s else None,
            "fetched_bytes": log["body_bytes"],
            "ideal_bytes": ideal,
            "bytes_to_ideal": log["body_bytes"] / ideal if ideal else None,
            "requests": {method: n / len(epochs) for method, n in log["methods"].items()},
            "statuses": log["statuses"],
            "faults": log["faults"],
            "median_get_bytes": log["median_body_bytes"],
            "cpu_s": cpu_s,
            "cpu_s_per_gb": cpu_s / (decoded / 1e9) if decoded else cpu_s / (ideal / 1e9) if ideal else None,
            "server_cpu_s": log["cpu_s"],
            "peak_pss_bytes": sampler.peak_pss_bytes(),
            "n_processes": max((r.n_processes for r in sampler.readings), default=0),
            "shuffle_score": score(batches, export.ids, request.batch_size),
            "content": content(answer["epochs"], expected(request, str(self.export))) if delivers else {},
            "batches": batches,
            "state": answer["state"],
        }

    def _run(self, action: str, request: Request) -> tuple[dict[str, Any], Sampler]:
        python = python_of(request.peer, self.cache, install=self.install)
        with _empty_folder(Path(request.cache)) as cache, _short_folder() as temporary:
            process = subprocess.Popen(
                [str(python), "-P", "-m", "peers.host", action],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=cache,
                env=environment(TMPDIR=temporary),
                start_new_session=True,
            )
            os.sched_setaffinity(process.pid, self.client_cores)
            with Sampler(process.pid) as sampler:
                try:
                    limit_s = self.limit_s if action == "stream" else PREPARE_S
                    said, trouble = process.communicate(request.to_json(), timeout=limit_s)
                finally:
                    _end(process)
        if process.returncode:
            raise PeerError(trouble.strip()[-2000:] or f"exit status {process.returncode}")
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
        return answer, sampler


def steady_rate(epochs: Sequence[dict[str, Any]], n: int) -> float | None:
    """Return the items per second after the start:
    of the epochs behind the first, or of a single one behind its first batch.

    ``n`` items an epoch; None where one batch is all, and where a single epoch took longer to begin than for all the rest:
    what was gathered meanwhile comes at once then.
    """
    if len(epochs) > 1:
        return n * (len(epochs) - 1) / (epochs[-1]["ended"] - epochs[0]["ended"])
    arrivals, sizes = epochs[0]["arrivals"], [len(b) for b in epochs[0]["batches"]]
    if len(arrivals) < 2 or arrivals[0] - epochs[0]["began"] > arrivals[-1] - arrivals[0]:
        return None
    rate: float = n * (1 - sizes[0] / sum(sizes)) / (arrivals[-1] - arrivals[0])
    return rate


@contextlib.contextmanager
def _empty_folder(path: Path) -> Iterator[Path]:
    """Return a folder that is gone afterwards: what one peer leaves would fill the disk of the next."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _short_folder() -> TemporaryDirectory[str]:
    """Return a folder for sockets: names of those have at most 107 bytes, which a folder of the cache may exceed."""
    return TemporaryDirectory(prefix="peer-", dir="/tmp", ignore_cleanup_errors=True)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of a peer's session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()  # one that hung has them open still


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a peer: little of this process's, one thread per library, and any keys."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")}
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    keys = {
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return {**kept, **single, **keys, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


@lru_cache(maxsize=4)
def _export(folder: str) -> Export:
    return Export(folder)


_EXPECTED: dict[tuple[str, str, bool], dict[str, dict[str, int]]] = {}


def expected(request: Request, folder: str) -> dict[str, dict[str, int]]:
    """Return the fingerprints of what a workload has to deliver, by item and modality;
    kept, since it takes as long as reading.
    """
    key = (folder, request.workload.name, request.verify)
    if key not in _EXPECTED:
        _EXPECTED[key] = {
            item: {m: fingerprint(p, full=request.verify) for m, p in pixels.items()}
            for item, pixels in _export(folder).items(request.workload)
        }
    return _EXPECTED[key]


def content(epochs: Sequence[dict[str, Any]], wanted: dict[str, dict[str, int]]) -> dict[str, int]:
    """Count the items that are wrong, lost, delivered twice or not asked for, over all epochs.
    Without pixels only ids are looked at.
    """
    found: Counter[str] = Counter(wrong=0, lost=0, repeated=0, unasked=0)
    for epoch in epochs:
        prints = epoch["prints"]
        for item, seen in prints.items():
            found["repeated"] += len(seen) - 1
            if item not in wanted:
                found["unasked"] += 1
            else:
                found["wrong"] += sum(bool(one) and one != wanted[item] for one in seen)
        found["lost"] += sum(item not in prints for item in wanted)
    return dict(found)


def score(batches: Sequence[Sequence[str]], ids: Sequence[str], batch_size: int) -> dict[str, float] | None:
    """Return how well batches are mixed: distinct groups among six runs of neighbours in a full batch,
    and what chance would give.
    """
    full = [b for b in batches if len(b) == batch_size]
    if not full:
        return None
    group = {name: i * N_GROUPS // len(ids) for i, name in enumerate(ids)}
    # An id that was damaged on its way belongs to no group; ``content`` counts it.
    distinct = [len({group.get(item.split("/")[0]) for item in batch} - {None}) for batch in full]
    chance = N_GROUPS * (1 - (1 - 1 / N_GROUPS) ** batch_size)
    return {"measured": float(np.mean(distinct)), "uniform": chance}


def with_options(request: Request, **changed: Any) -> Request:
    return replace(request, **changed)
