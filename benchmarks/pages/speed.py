"""Write the page on speed: a table per workload, the peers ahead of us, options that were tried,
and the README's headline.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pages.markdown import number, table
from pages.summary import CEILING, OURS, TRACKS, WORKLOADS, Key, medians, track_of
from peers import PEERS

__all__ = ["behind", "best_options", "headline", "speed_tables"]

STEADY_BATCHES = 30
"""The number of batches below which an epoch says nothing of a steady state:
most were read ahead when the first came."""


def speed_tables(speed: Mapping[Key, Mapping[str, Any]], remarks: Mapping[str, str]) -> list[str]:
    """Return a table a workload and track, and below it who is ahead of us and why."""
    parts = []
    for name, words in WORKLOADS.items():
        for track in TRACKS:
            latencies = sorted({k[3] for k in speed if k[1:3] == (track, name)})
            if not latencies:
                continue
            parts.append(f"#### {name}, {track}: {words}")
            rows = []
            for peer in (p for p in PEERS if any(k[:3] == (p, track, name) for k in speed)):
                cells = [_rate(speed, peer, track, name, ms) for ms in latencies]
                rows.append([PEERS[peer].name, *cells, *_costs(speed, peer, track, name, latencies[0])])
            head = [
                "",
                *(f"samples/s, {ms} ms" for ms in latencies),
                "steady, samples/s",
                "first batch, s",
                "bytes / ideal",
                "requests",
                "median GET, kB",
                "CPU-s/GB",
                "memory, MB",
                "gap p50 / p99 / max, ms",
                "mixed",
            ]
            parts.append(table(head, rows))
            lost = behind(speed, track, name)
            if lost:
                parts.append(f"Not first: {'; '.join(lost)}. {remarks.get(name, 'Why is not known yet.')}")
    return parts


def _rate(speed: Mapping[Key, Mapping[str, Any]], peer: str, track: str, name: str, ms: int) -> str:
    found = speed.get((peer, track, name, ms))
    if found is None:
        return "-"
    text = f"{found['samples_s']:.1f}"
    if found["n_runs"] > 1:
        text += f" [{found['range'][0]:.1f} .. {found['range'][1]:.1f}]"
    ours, top = speed.get((OURS, track, name, ms)), speed.get((CEILING, track, name, ms))
    if ours is not None:
        text += f", {found['samples_s'] / ours['samples_s']:.2f} x"
    if top is not None:
        text += f", ceiling {found['samples_s'] / top['samples_s']:.0%}"
    return text


def _costs(speed: Mapping[Key, Mapping[str, Any]], peer: str, track: str, name: str, ms: int) -> list[str]:
    found = speed.get((peer, track, name, ms))
    if found is None:
        return ["-"] * 9
    gaps = found["gap_ms"]
    return [
        _steady(speed, peer, track, name, ms),
        number(found["first_batch_s"], ".2f"),
        number(found["bytes_to_ideal"], ".2f"),
        number(found["n_requests"], ",.0f"),
        number(found["median_get_bytes"], ",.0f", 1e3),
        number(found["cpu_s_per_gb"], ".1f"),
        number(found["peak_pss_bytes"], ",.0f", 1e6),
        " / ".join(f"{gaps[q]:.0f}" for q in ("p50", "p99", "max")) if gaps else "-",
        number(found["mixed"], ".0%"),
    ]


def _steady(speed: Mapping[Key, Mapping[str, Any]], peer: str, track: str, name: str, ms: int) -> str:
    found, ours = speed[peer, track, name, ms], speed.get((OURS, track, name, ms))
    if found["steady_samples_s"] is None or not _is_steady(found):
        return "-"
    text = f"{found['steady_samples_s']:.1f}"
    if ours is not None and ours["steady_samples_s"] and _is_steady(ours):
        text += f", {found['steady_samples_s'] / ours['steady_samples_s']:.2f} x"
    return text


def _is_steady(found: Mapping[str, Any]) -> bool:
    return bool(found["n_epochs"] > 1 or found["n_batches"] >= STEADY_BATCHES)


def behind(speed: Mapping[Key, Mapping[str, Any]], track: str, name: str) -> list[str]:
    """List the peers that deliver more samples a second than we do, with the ratio."""
    found = []
    for (peer, t, n, ms), other in sorted(speed.items()):
        ours = speed.get((OURS, track, name, ms))
        if (t, n) == (track, name) and ours is not None and PEERS[peer].delivers:
            ratio = other["samples_s"] / ours["samples_s"]
            if ratio > 1:
                found.append(f"{PEERS[peer].name} {ratio:.2f} x at {ms} ms")
    return found


def best_options(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the best of the options that were tried beside each one's defaults."""
    tried: dict[Key, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        key = run["key"]
        if key["part"] in ("speed", "grid"):
            label = json.dumps(key.get("options", {})) if key.get("options") else "defaults"
            tried[key["peer"], key["track"], key["workload"], key["latency_ms"]][label].append(run)
    rows = []
    for (peer, track, name, ms), options in sorted(
        tried.items(), key=lambda r: (r[0][1:], [*PEERS].index(r[0][0]))
    ):
        if len(options) < 2 or "defaults" not in options:
            continue
        rates = {label: median(run["samples_s"] for run in group) for label, group in options.items()}
        best = max(rates, key=lambda label: rates[label])
        scores = [run["shuffle_score"] for run in options[best] if run["shuffle_score"]]
        mixed = median(s["measured"] / s["uniform"] for s in scores) if scores else None
        about = [PEERS[peer].name, f"{name}, {track}, {ms} ms", f"`{best}`" if best != "defaults" else best]
        rows.append(
            [*about, f"{rates[best]:.1f}", f"{rates[best] / rates['defaults']:.2f}", number(mixed, ".0%")]
        )
    head = ["", "", "best of its grid", "samples/s", "to its defaults", "mixed"]
    return ["#### Tuned", table(head, rows)] if rows else []


def headline(found: Mapping[str, Any]) -> str:
    """Return the table for the README: per workload, our rate beside the best of the others and the ceiling.

    Ours is that of the default codec profile if it was measured, and the others' that of the best of their codecs.
    """
    speed = medians(found["runs"]) if found else {}
    rows, added = [], ""
    for name, words in WORKLOADS.items():
        track = track_of(speed, OURS, name)
        if track in (None, "raw"):
            continue
        latencies = [
            ms
            for ms in sorted({k[3] for k in speed if k[:3] == (OURS, track, name)})
            if (CEILING, track, name, ms) in speed and _others(speed, name, ms, "samples_s")
        ]
        if not latencies:
            continue
        added = " / ".join(map(str, latencies)) if len(latencies) > 1 else added
        ours = [speed[OURS, track, name, ms] for ms in latencies]
        shares = [
            found["samples_s"] / speed[CEILING, track, name, ms]["samples_s"]
            for found, ms in zip(ours, latencies, strict=True)
        ]
        rows.append(
            [
                f"{name}: {words}",
                f"{ours[0]['samples_s']:.0f}",
                *(
                    _lead(ours, [_others(speed, name, ms, rate) for ms in latencies], rate)
                    for rate in ("samples_s", "steady_samples_s")
                ),
                " / ".join(f"{share:.0%}" for share in shares),
            ]
        )
    if not rows:
        return ""
    head = [
        "",
        "samples/s",
        "to the best of the others",
        "steady, to the best of the others",
        "of the ceiling",
    ]
    return f"Where three figures stand, the server adds {added} ms to each answer.\n\n" + table(head, rows)


def _others(speed: Mapping[Key, Mapping[str, Any]], name: str, ms: int, rate: str) -> dict[str, float]:
    """Return the rates of the other peers that deliver a workload, each with the best of its compressed tracks."""
    rates: dict[str, float] = {}
    for (peer, track, of, latency), found in speed.items():
        if (of, latency) != (name, ms) or track == "raw" or peer == OURS or not PEERS[peer].delivers:
            continue
        if found[rate] and (rate == "samples_s" or _is_steady(found)):
            rates[peer] = max(found[rate], rates.get(peer, 0.0))
    return rates


def _lead(ours: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, float]], rate: str) -> str:
    """Return the text of the ratios of our rate to the best of the others', and of who they are, by latency."""
    ratios, names = [], []
    for found, rates in zip(ours, others, strict=True):
        if rates and found[rate]:
            best = max(rates, key=lambda peer: rates[peer])
            ratios.append(f"{found[rate] / rates[best]:.1f}")
            names.append(PEERS[best].name)
    return f"{' / '.join(ratios)} x {', '.join(dict.fromkeys(names))}" if ratios else "-"
