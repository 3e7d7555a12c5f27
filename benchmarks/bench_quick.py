"""TensorBank's rates as shares of the ceiling, in under three minutes, beside the accepted ones.

    make bench-quick
    python benchmarks/bench_quick.py [--accept]

64 made-up samples; both read in turn, medians of three. Ratios survive a change of machine better than rates; noise of a fifth is
usual, so nothing fails: a comparison is printed. ``--accept`` makes these values the ones to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import median

from bench_peers import ROOT, make_export
from rich.console import Console
from rich.table import Table

from peers.contract import Export
from peers.stage import ObjectServer, Stage
from peers.workloads import workload
from tensorbank.testing.fault_server import Faults

ACCEPTED = ROOT / "benchmarks" / "results" / "quick.json"
N_SAMPLES = 64
N_REPEATS = 3
QUESTIONS = (("Q0", 0), ("Q0", 10), ("Q2", 10), ("Q3", 0), ("Q5", 0))
"""The questions: workload, and ms that the server adds."""
AT_LEAST_S = 2.5
"""The least seconds of a run; its epochs after the first count."""
PAIR = ("ceiling", "tensorbank")
NOISE = 0.2


def measure(stage: Stage) -> dict[str, dict[str, float]]:
    """Measure by question: share of the ceiling's rate, bytes to ideal, CPU seconds a GB of tensors."""
    export = Export(stage.export)
    found: dict[str, dict[str, float]] = {}
    for peer in PAIR:
        stage.prepare(peer, "zstd", workload("Q0", export))
    with ObjectServer(stage.stored, stage.server_cores) as server:
        for name, latency in QUESTIONS:
            server.set(Faults(latency_ms=latency))
            shares, runs = [], []
            for _ in range(N_REPEATS):
                top, ours = (
                    stage.measure(
                        stage.request(
                            p, "zstd", workload(name, export), server.endpoint, at_least_s=AT_LEAST_S
                        ),
                        server,
                    )
                    for p in PAIR
                )
                rates = [r["steady_samples_s"] or r["samples_s"] for r in (ours, top)]
                shares.append(rates[0] / rates[1])
                runs.append(ours)
                if any(ours["content"].values()):
                    raise SystemExit(f"{name}: delivered content is wrong: {ours['content']}")
            found[f"{name}, {latency} ms"] = {
                "of the ceiling": median(shares),
                "bytes / ideal": median(r["bytes_to_ideal"] for r in runs),
                "CPU-s/GB": median(r["cpu_s_per_gb"] for r in runs),
            }
    return found


def compared(found: dict[str, dict[str, float]], accepted: dict[str, dict[str, float]]) -> Table:
    """Return a table of both results, with their ratio where it is beyond the usual noise."""
    table = Table("", "figure", "accepted", "now", "ratio")
    for question, figures in found.items():
        for figure, now in figures.items():
            before = accepted.get(question, {}).get(figure)
            ratio = now / before if before else None
            mark = "" if ratio is None or abs(ratio - 1) <= NOISE else " !"
            table.add_row(
                question,
                figure,
                "-" if before is None else f"{before:.3f}",
                f"{now:.3f}",
                "-" if ratio is None else f"{ratio:.2f}{mark}",
            )
    return table


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accept", action="store_true")
    parser.add_argument("--bank", help="folder or URL of a bank to export samples from; made-up ones without")
    parser.add_argument("--data", type=Path, default=ROOT / ".cache" / "peers-data")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "peers")
    args = parser.parse_args()
    args.samples, args.source = N_SAMPLES, None
    data = args.data / f"quick-{N_SAMPLES}"
    data.mkdir(parents=True, exist_ok=True)
    make_export(args, data / "export")
    (data / "stored").mkdir(exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    client, serving = (cores[:1], cores[1:2]) if len(cores) > 1 else (cores, cores)
    found = measure(Stage(data / "export", data / "stored", args.cache, client, serving))
    accepted = json.loads(ACCEPTED.read_text()) if ACCEPTED.is_file() else {}
    Console().print(compared(found, accepted))
    if args.accept:
        ACCEPTED.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
