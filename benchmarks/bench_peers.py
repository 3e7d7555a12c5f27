"""TensorBank beside the other systems of the field, on the same samples from the same server.

    make bench-peers [BANK=FOLDER] [SAMPLES=512]
    python benchmarks/bench_peers.py [--bank FOLDER] [--samples 512] [--peers litdata,mosaic] [--parts speed,faults] [--out FILE]

Each peer runs in an environment of its own (``benchmarks/peers/requirements``), writes the samples in its own format, and reads
them back over HTTP from one server. Client and server have a core each. Every byte that a peer delivers is compared with the
export in a run that is not timed; timed runs compare some. What is in the output file already is not run again, so an interrupted
benchmark goes on where it stopped. A peer that fails is listed with its error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peers import PEERS
from peers.contract import Export, Request
from peers.environments import InstallError
from peers.export import export
from peers.stage import ObjectServer, PeerError, Stage
from peers.trials import FAULTS, fault_named, order_of, resumed
from peers.workloads import NAMES, workload
from tensorbank.testing.fault_server import Faults

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("content", "speed", "grid", "steps", "orders", "resume", "faults")
TRACKS = ("raw", "zstd", "fast")
"""The ways to compress: not, by zstd level 3, and by LZ4 where a format has a choice of codecs."""
WORKERS = (1, 2, 4)
AT_LEAST_S = 5.0
"""The least seconds of a timed run, whose later epochs show the steady rate."""
STEP_S = 0.1
"""Seconds of one step of the track on which the consumer works:
long enough that every loader could keep up with it."""
FAULT_WORKLOAD = "Q0"
GRID_WORKLOADS = ("Q0", "Q5")
"""The workloads of the grid, with large and small items: what suits one may not suit the other."""


@dataclass(frozen=True)
class Plan:
    """The peers, parts and workloads to run."""

    peers: Sequence[str]
    parts: Sequence[str]
    workloads: Sequence[str]
    tracks: Sequence[str]
    latencies_ms: Sequence[int]
    n_repeats: int
    faults: Sequence[str] = FAULTS


class Record:
    """The output file, rewritten after each run."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        if self.found and self.found["data"] != about["data"]:
            raise SystemExit(f"{path} is of other data, {self.found['data']}; name another file with --out")
        self.found = {**about, "peers": {}, "runs": [], "failed": [], **self.found}

    def has(self, key: Mapping[str, Any]) -> bool:
        return any(r["key"] == key for r in (*self.found["runs"], *self.found["failed"]))

    def add(self, key: Mapping[str, Any], run: Callable[[], dict[str, Any]]) -> None:
        """Run unless it is there; keep what came of it."""
        if self.has(key):
            return
        label = " ".join(f"{v}" for v in key.values())
        try:
            result = run()
        except (PeerError, InstallError, subprocess.TimeoutExpired) as error:
            self.found["failed"].append(
                {"key": dict(key), "kind": type(error).__name__, "error": told(error)}
            )
            print(f"{label}: {type(error).__name__}: {str(error)[-300:]}", flush=True)
        else:
            self.found["runs"].append({"key": dict(key), **result})
            print(f"{label}: {summary(result)}", flush=True)
        self.save()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.found, indent=1) + "\n")
        partial.replace(self.path)


def told(error: Exception) -> str:
    """Return the text of an error, without folders of this machine."""
    text = str(error).replace(f"{ROOT}/", "").replace(f"{Path.home()}/", "~/")
    return text.replace(f"{sys.base_prefix}/", "")


def summary(result: Mapping[str, Any]) -> str:
    """Summarize one run in a line."""
    if "samples_s" not in result:
        return json.dumps(result)
    faulty = {k: n for k, n in result["content"].items() if n}
    return (
        f"{result['samples_s']:.1f} samples/s, first batch {result['first_batch_s'] or 0:.2f} s, "
        f"{result['bytes_to_ideal']:.2f} of the ideal bytes, {result['cpu_s_per_gb']:.1f} CPU-s/GB"
        + (f", CONTENT {faulty}" if faulty else "")
    )


def timed(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run whose rate counts: who loses samples, or brings others, has none.

    Raises
    ------
    PeerError
        It was not what was asked for.
    """
    faulty = [f"{n:,} {kind}" for kind, n in result["content"].items() if n]
    if faulty:
        raise PeerError(
            f"of the samples that were asked for: {', '.join(faulty)}, after {result['seconds']:.1f} s"
        )
    return dict(result)


def prepare(stage: Stage, record: Record, plan: Plan) -> dict[str, set[str]]:
    """Write everybody's data; tracks that worked by peer."""
    work = workload("Q0", Export(stage.export))
    ready: dict[str, set[str]] = {}
    for peer in plan.peers:
        for track in (t for t in plan.tracks if t != "fast" or PEERS[peer].chooses):
            notes = record.found["peers"].setdefault(peer, {})
            try:
                notes[track] = stage.prepare(peer, track, work)
            except (PeerError, InstallError, subprocess.TimeoutExpired) as error:
                notes[track] = {"kind": type(error).__name__, "error": told(error)}
                print(f"{peer} {track}: {error}", flush=True)
            else:
                ready.setdefault(peer, set()).add(track)
                print(f"{peer} {track}: {notes[track]['stored_bytes'] / 1e6:.0f} MB", flush=True)
    record.save()
    return ready


def trials(
    stage: Stage, server: ObjectServer, ready: Mapping[str, set[str]], plan: Plan
) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """Yield all runs, interleaved: a machine that slows down slows everybody."""
    exported = Export(stage.export)
    rng = random.Random(0)

    def request(peer: str, track: str, name: str, **more: Any) -> Request:
        return stage.request(peer, track, workload(name, exported), server.endpoint, **more)

    def run(asked: Request, faults: Faults) -> Callable[[], dict[str, Any]]:
        def measured() -> dict[str, Any]:
            server.set(faults)
            result = stage.measure(asked, server)
            return {k: v for k, v in result.items() if k not in ("batches", "state")}

        return measured

    def rate(asked: Request, faults: Faults) -> Callable[[], dict[str, Any]]:
        return lambda: timed(run(asked, faults)())

    def rounds() -> Iterator[tuple[str, str]]:
        pairs = [(peer, track) for peer in ready for track in ready[peer]]
        rng.shuffle(pairs)
        yield from pairs

    if "content" in plan.parts:
        for name in plan.workloads:
            for peer, track in rounds():
                key = {"part": "content", "peer": peer, "track": track, "workload": name}
                yield key, run(request(peer, track, name, verify=True), Faults())
    for repeat in range(plan.n_repeats):
        for name in plan.workloads:
            for latency in plan.latencies_ms:
                faults = Faults(latency_ms=latency)
                for peer, track in rounds():
                    key = {
                        "peer": peer,
                        "track": track,
                        "workload": name,
                        "latency_ms": latency,
                        "repeat": repeat,
                    }
                    if "speed" in plan.parts:
                        asked = request(peer, track, name, at_least_s=AT_LEAST_S)
                        yield {"part": "speed", **key}, rate(asked, faults)
                    grid = PEERS[peer].grid if "grid" in plan.parts and name in GRID_WORKLOADS else ()
                    for options in grid:
                        asked = request(peer, track, name, options=options)
                        yield {"part": "grid", **key, "options": dict(options)}, rate(asked, faults)
                    if "steps" in plan.parts and name == "Q0":
                        asked = request(peer, track, name, step_s=STEP_S)
                        yield {"part": "steps", **key}, rate(asked, faults)
    readers = [(peer, track) for peer, track in rounds() if PEERS[peer].delivers]
    if "orders" in plan.parts:
        for peer, track in readers:
            key = {"part": "orders", "peer": peer, "track": track}
            asked = [request(peer, track, "Q0", n_workers=n) for n in WORKERS]
            yield key, partial(order_of, asked, stage, server)
    if "resume" in plan.parts:
        for peer, track in readers:
            if PEERS[peer].resumes:
                key = {"part": "resume", "peer": peer, "track": track}
                yield key, partial(resumed, request(peer, track, "Q0"), stage, server)
    if "faults" in plan.parts:
        for fault in plan.faults:
            for peer, track in readers:
                key = {"part": "faults", "peer": peer, "track": track, "fault": fault}
                asked = request(peer, track, FAULT_WORKLOAD, verify=True)
                yield key, run(asked, fault_named(fault))


def about(args: argparse.Namespace, cores: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the facts of a record: machine and data."""
    model = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "machine": {
            "processor": model[0] if model else platform.machine(),
            "cores": list(cores),
            "python": platform.python_version(),
        },
        "data": {"n_samples": args.samples},
    }


def make_export(args: argparse.Namespace, folder: Path) -> None:
    """Export the samples of the named bank, or of one that is made of archives or of made-up ones."""
    if (folder / "manifest.json").is_file():
        return
    if args.bank:
        export(args.bank, folder, args.samples)
        return
    import tensorbank as tb
    from tensorbank_demo.landscape.archive import write_archives
    from tensorbank_indexer import IngestOptions, ingest, open_source

    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        source = args.source
        if not source:
            n = min(args.samples, 256)
            source = str(
                write_archives(Path(temporary) / "archives", n_samples=n, samples_per_tar=64, seed=7).root
            )
        bank = tb.create(f"{temporary}/bank")
        ingest(open_source(source), bank, "terramesh", IngestOptions())
        export(f"{temporary}/bank", folder, args.samples)


def main() -> int:
    """Run what is asked for and not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def words(text: str) -> list[str]:
        return [w for w in text.split(",") if w]

    parser.add_argument("--bank", help="folder or URL of a bank to export samples from")
    parser.add_argument("--source", help="archives to make one of; made-up ones without either")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--peers", type=words, default=list(PEERS))
    parser.add_argument("--parts", type=words, default=list(PARTS))
    parser.add_argument("--workloads", type=words, default=list(NAMES))
    parser.add_argument("--tracks", type=words, default=list(TRACKS))
    parser.add_argument("--latencies", type=words, default=["0", "10", "30"], help="ms added to every answer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--faults", type=words, default=list(FAULTS))
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a run is called hung")
    parser.add_argument(
        "--data", type=Path, default=ROOT / ".cache" / "peers-data", help="of samples and formats"
    )
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "peers", help="of environments")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "peers.json")
    parser.add_argument("--retry", action="store_true", help="run what failed again")
    parser.add_argument("--no-install", dest="install", action="store_false", help="use what is installed")
    args = parser.parse_args()
    unknown = {*args.peers} - {*PEERS} | {*args.parts} - {*PARTS} | {*args.workloads} - {*NAMES}
    unknown |= {*args.faults} - {*FAULTS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    cores = sorted(os.sched_getaffinity(0))
    client, serving = (cores[:1], cores[1:2]) if len(cores) > 1 else (cores, cores)
    os.sched_setaffinity(0, serving)  # the harness shares the server's core, not the client's
    data: Path = args.data / str(args.samples)
    data.mkdir(parents=True, exist_ok=True)
    make_export(args, data / "export")
    (data / "stored").mkdir(exist_ok=True)
    stage = Stage(data / "export", data / "stored", args.cache, client, serving, args.limit, args.install)
    plan = Plan(
        args.peers,
        args.parts,
        args.workloads,
        args.tracks,
        [int(ms) for ms in args.latencies],
        args.repeats,
        args.faults,
    )
    record = Record(args.out, about(args, [client, serving]))
    if args.retry:
        record.found["failed"] = []
    ready = prepare(stage, record, plan)
    with ObjectServer(stage.stored, serving) as server:
        for key, run in trials(stage, server, ready, plan):
            record.add(key, run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
