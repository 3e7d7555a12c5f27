"""Repeats of timed runs as one: what tables, picture and headline are made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

__all__ = ["CEILING", "OURS", "TRACKS", "WORKLOADS", "Key", "medians", "track_of"]

OURS = "tensorbank"
CEILING = "ceiling"
TRACKS = ("raw", "zstd", "fast")
WORKLOADS = {
    "Q0": "everything, shuffled",
    "Q1": "a tenth of the samples, by cloud cover",
    "Q2": "of these, two of seven modalities",
    "Q3": "of these, three of twelve bands of one of them",
    "Q4": "64 random ids",
    "Q5": "tiles of one land cover, two modalities",
}

Key = tuple[str, str, str, int]
"""The key of a run: peer, track, workload, latency in ms."""


def medians(runs: Iterable[Mapping[str, Any]]) -> dict[Key, dict[str, Any]]:
    """Merge the repeats of timed runs into one: medians, and the range of rates."""
    groups: dict[Key, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        key = run["key"]
        if key["part"] == "speed":
            groups[key["peer"], key["track"], key["workload"], key["latency_ms"]].append(run)
    return {key: _median(group) for key, group in groups.items()}


def track_of(speed: Mapping[Key, object], peer: str, name: str) -> str | None:
    """Return the track by which a peer is judged on a workload: the last of those that it was measured on."""
    return next((t for t in reversed(TRACKS) if any(k[:3] == (peer, t, name) for k in speed)), None)


def _median(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def middle(name: str) -> float | None:
        values = [run[name] for run in group if run[name] is not None]
        return median(values) if values else None

    names = (
        "samples_s",
        "steady_samples_s",
        "first_batch_s",
        "bytes_to_ideal",
        "median_get_bytes",
        "n_batches",
        "n_epochs",
    )
    more = ("cpu_s_per_gb", "server_cpu_s", "peak_pss_bytes")
    rates = sorted(run["samples_s"] for run in group)
    gaps = [run["gap_ms"] for run in group if run["gap_ms"]]
    scores = [run["shuffle_score"] for run in group if run["shuffle_score"]]
    return {
        **{name: middle(name) for name in (*names, *more)},
        "range": (rates[0], rates[-1]),
        "n_runs": len(group),
        "n_requests": median(sum(run["requests"].values()) for run in group),
        "gap_ms": {q: median(g[q] for g in gaps) for q in ("p50", "p99", "max")} if gaps else None,
        "mixed": median(s["measured"] / s["uniform"] for s in scores) if scores else None,
    }
