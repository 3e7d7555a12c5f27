"""Measure what codec chains and profiles take and cost, modality by modality, and the samples/s that follow.

    make bench-codec PATCHES=FOLDER
    python benchmarks/bench_codec.py [FOLDER] [--rounds 7] [--only blocks|pairs] [--smoke]

FOLDER holds real samples, laid out by their archives: ``terramesh_examples/<modality>/*.tif``, ``ssl4eo_s12_v11_s2l2a/*.tif``,
``copernicus_fm_s2toa/*.tif``, ``majortom_core_s2l2a/.../B01.tif``. Without it, made-up samples of the demo are measured, and the
results say so; they shrink better than nature. pcodec and the reader zarrs are tried where they are installed
(``pip install pcodec zarrs``).

A block is one band of one patch, 264 x 264 px where the patch has so many. Stored bytes are exact. Seconds are CPU time of one
thread, the least of some rounds in which all chains take their turn; read their ratios. Then made-up samples are ingested and
streamed under two profiles, in turn: CPU time of the whole process, medians. The results are kept in ``results/codec.json``, from
which ``results_page.py`` writes the tables of the README.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from codec.chains import TODAY, chains_for, profiles_for
from codec.clock import Cost, measure, mixed
from codec.pairs import ingest_and_stream
from codec.patches import (
    MAJORTOM_SHARE,
    MIXES,
    SIDE,
    TERRAMESH_DTYPES,
    Group,
    made_up_groups,
    real_groups,
)
from codec.readers import opened_by_readers
from tensorbank.reading import DEFAULT_PROFILE, PROFILES

RESULTS = Path(__file__).parent / "results" / "codec.json"
N_PAIRED, N_PAIRED_ROUNDS = 32, 3
CORES = (4, 8, 16, 32)
NETWORKS_GBPS = (1, 10, 25, 100, 400)
Costs = Mapping[str, Mapping[str, Cost]]


def mixes(costs: Costs) -> dict[str, dict[str, dict[str, Cost]]]:
    """Return, for each kind of sample and profile, the cost by modality and as a whole (``""``)."""
    kinds = {
        name: of for name, of in MIXES.items() if all(g in costs for groups in of.values() for g, _ in groups)
    }
    found = {
        name: {profile: _sample(costs, of, profile) for profile in PROFILES} for name, of in kinds.items()
    }
    if len(found) == len(MIXES):
        shares = {"Major-TOM sample": MAJORTOM_SHARE, "SSL4EO-S12 sample": 1 - MAJORTOM_SHARE}
        found["TerraMesh"] = {
            profile: {
                part: mixed([(found[kind][profile][part], share) for kind, share in shares.items()])
                for part in found["Major-TOM sample"][profile]
            }
            for profile in PROFILES
        }
    return found


def _sample(costs: Costs, kind: Mapping[str, Sequence[tuple[str, int]]], profile: str) -> dict[str, Cost]:
    by_modality = {
        name: mixed([(costs[group][profile], share) for group, share in groups])
        for name, groups in kind.items()
    }
    return {**by_modality, "": mixed([(cost, sample_bytes(name)) for name, cost in by_modality.items()])}


def sample_bytes(modality: str) -> int:
    """Return the decoded bytes of a modality of one sample."""
    n_bands = {"S2L2A": 12, "S2L1C": 13, "S2RGB": 3, "S1RTC": 2}.get(modality, 1)
    return n_bands * SIDE * SIDE * np.dtype(TERRAMESH_DTYPES[modality]).itemsize


def rates(of_profile: Mapping[str, Mapping[str, Cost]]) -> list[dict[str, Any]]:
    """Return the samples/s that cores and a network allow, by profile: the lesser of what is read and what is decoded."""
    total = sum(sample_bytes(name) for name in TERRAMESH_DTYPES)

    def rate(cost: Cost, cores: int, gbps: int) -> float:
        return min(gbps * 1e9 / 8 / (cost.stored * total), cores / (cost.decode_s_per_gb * total / 1e9))

    return [
        {
            "cores": cores,
            "network_gbps": gbps,
            **{profile: rate(parts[""], cores, gbps) for profile, parts in of_profile.items()},
        }
        for cores in CORES
        for gbps in NETWORKS_GBPS
    ]


def found_on(groups: Sequence[Group], n_rounds: int) -> dict[str, dict[str, Cost]]:
    """Measure all chains and profiles on all groups."""
    console = Console(stderr=True)
    costs = {}
    for group in groups:
        console.print(f"{group.name}: {len(group.blocks)} blocks, {group.raw_bytes / 1e6:.1f} MB")
        chains = [*chains_for(group.modality), *profiles_for(group.modality)]
        costs[group.name] = measure(group, chains, n_rounds)
    return costs


def results(groups: Sequence[Group], n_rounds: int, origin: str) -> dict[str, Any]:
    """Measure, and return all that is kept."""
    costs = found_on(groups, n_rounds)
    samples = mixes(costs)
    first = "TerraMesh" if "TerraMesh" in samples else "Major-TOM sample"
    with tempfile.TemporaryDirectory() as folder:
        readers = opened_by_readers({g.name: g for g in groups if g.name in TERRAMESH_DTYPES}, Path(folder))
    return {
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "numcodecs": version("numcodecs"),
        },
        "origin": origin,
        "rounds": n_rounds,
        "today": TODAY,
        "groups": {
            g.name: {
                "modality": g.modality.name,
                "dtype": g.modality.dtype,
                "blocks": len(g.blocks),
                "shape": [g.modality.height, g.modality.width],
                "chains": {name: asdict(cost) for name, cost in costs[g.name].items()},
            }
            for g in groups
        },
        "samples": {
            kind: {
                profile: {part: asdict(cost) for part, cost in parts.items()} for profile, parts in of.items()
            }
            for kind, of in samples.items()
        },
        "rates_of": first,
        "rates": rates(samples[first]),
        "readers": readers,
    }


def shown(found: Mapping[str, Any]) -> None:
    """Print a table for each group, and one for the samples."""
    console = Console()
    console.print(f"{found['origin']}; {found['machine']}")
    for name, group in found["groups"].items():
        _show(console, f"{name} ({group['dtype']}, {group['blocks']} blocks)", group["chains"])
    for kind, of in found["samples"].items():
        _show(console, kind, {profile: parts[""] for profile, parts in of.items()})
    console.print(found.get("pairs", {}))


def _show(console: Console, title: str, costs: Mapping[str, Mapping[str, float]]) -> None:
    table = Table("chain", "raw / stored", "encode, s/GB", "decode, s/GB", "bytes", "decodes", title=title)
    today = costs[TODAY]
    for chain, cost in costs.items():
        table.add_row(
            chain,
            f"{1 / cost['stored']:.2f}",
            f"{cost['encode_s_per_gb']:.2f}",
            f"{cost['decode_s_per_gb']:.3f}",
            f"{cost['stored'] / today['stored']:.3f} x",
            f"{today['decode_s_per_gb'] / cost['decode_s_per_gb']:.2f} x",
        )
    console.print(table)


def blocks(folder: Path | None, n_rounds: int) -> dict[str, Any]:
    """Measure blocks of a folder of real samples, or made-up ones."""
    if folder is not None:
        return results(real_groups(folder), n_rounds, "patches of real archives")
    print("no folder of real samples is given; made-up ones are measured", file=sys.stderr)
    return results(made_up_groups(12), n_rounds, "made-up samples of the demo")


def pairs(n_samples: int, n_rounds: int) -> dict[str, Any]:
    """Measure ingest and streaming under the default and the one before it."""
    return {
        "samples": n_samples,
        "profiles": ingest_and_stream((DEFAULT_PROFILE, TODAY), n_samples, n_rounds),
    }


def main() -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", help="folder of real samples; made-up ones if not given"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--smoke", action="store_true", help="one round, two made-up samples; nothing is kept"
    )
    parser.add_argument(
        "--only", choices=("blocks", "pairs"), help="measure this, and keep the rest as it is"
    )
    args = parser.parse_args()
    if args.smoke:
        shown({**results(made_up_groups(2), 1, "two made-up samples"), "pairs": pairs(2, 1)})
        return 0
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if args.only != "pairs":
        found |= blocks(args.folder, args.rounds)
    if args.only != "blocks":
        found["pairs"] = pairs(N_PAIRED, N_PAIRED_ROUNDS)
    shown(found)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
