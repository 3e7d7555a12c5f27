"""Write the page on trust: order, resumption, faults, content, and the runs that failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pages.markdown import last_line, table
from peers import PEERS
from peers.trials import FAULTS

__all__ = ["failures", "trust_tables", "versions"]


def trust_tables(found: Mapping[str, Any]) -> list[str]:
    """Return the tables of consumers that work, order, resumption, faults and content."""
    runs: Sequence[Mapping[str, Any]] = found["runs"]
    parts: list[str] = []
    by_part: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        by_part[run["key"]["part"]].append(run)
    if by_part["steps"]:
        busy: dict[tuple[str, str, int], list[float]] = defaultdict(list)
        for run in by_part["steps"]:
            key = run["key"]
            busy[key["peer"], key["track"], key["latency_ms"]].append(run["utilisation"])
        rows = [[PEERS[p].name, t, str(ms), f"{median(v):.0%}"] for (p, t, ms), v in sorted(busy.items())]
        parts += [
            "#### Share of time that a consumer of 100 ms a batch works",
            table(["", "track", "ms", "Q0"], rows),
        ]
    if by_part["orders"]:
        rows = []
        for run in by_part["orders"]:
            n = min(run["n_batches"].values())
            equal = ", ".join(f"{count} of {n} with {k}" for k, count in run["equal_batches"].items())
            rows.append(
                [
                    PEERS[run["key"]["peer"]].name,
                    run["key"]["track"],
                    "yes" if run["repeats"] else "no",
                    equal,
                ]
            )
        head = ["", "track", "a second run repeats the first", "batches equal to those of one worker"]
        parts += ["#### Order", table(head, rows)]
    if by_part["resume"]:
        rows = [
            [
                PEERS[run["key"]["peer"]].name,
                run["key"]["track"],
                str(run["lost"]),
                str(run["repeated"]),
                "yes" if run["same_batches"] else "no",
            ]
            for run in by_part["resume"]
        ]
        head = ["", "track", "lost", "twice", "same batches"]
        parts += [
            "#### Resumed in mid-epoch by a new process, with another number of workers",
            table(head, rows),
        ]
    parts += _faults(by_part["faults"], [f["key"] for f in found["failed"]])
    wrong = [run for run in by_part["content"] if any(run["content"].values())]
    total = len(by_part["content"])
    if total:
        text = f"{total - len(wrong)} of {total} runs without faults delivered every item once, equal to the export byte by byte."
        parts.append(text + "".join(f" {_who(run)}: {_content(run['content'])}." for run in wrong))
    return parts


def _faults(runs: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]]) -> list[str]:
    if not runs:
        return []
    cells: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for run in runs:
        key = run["key"]
        hit = sum(run["faults"].values())
        text = f"{run['seconds']:.1f} s"
        if key["fault"] != "none":
            text += f", {hit} hit" if hit else ", not hit"
        if any(run["content"].values()):
            text += f", **{_content(run['content'])}**"
        cells[key["peer"], key["track"]][key["fault"]] = text
    for key in failed:
        if key["part"] == "faults":
            cells[key["peer"], key["track"]][key["fault"]] = "failed"
    asked = [f for f in FAULTS if any(f in c for c in cells.values())]
    rows = [
        [PEERS[p].name, t, *(c.get(f, "-") for f in asked)]
        for (p, t), c in sorted(cells.items(), key=lambda cell: [*PEERS].index(cell[0][0]))
    ]
    head = ["", "track", *asked]
    return [
        "#### Faults: seconds of Q0, every byte checked; `failed` is in the list below, `-` was not run",
        table(head, rows),
    ]


def failures(found: Mapping[str, Any]) -> list[str]:
    """List the runs that failed, with their errors."""
    lines = []
    for peer, tracks in found["peers"].items():
        for track, report in tracks.items():
            if "error" in report:
                lines.append(
                    f"* {PEERS[peer].name}, {track}, could not be prepared: `{last_line(report['error'])}`"
                )
    for failed in found["failed"]:
        what = ", ".join(str(v) for k, v in failed["key"].items() if k != "peer")
        name = PEERS[failed["key"]["peer"]].name
        lines.append(f"* {name}, {what}: {failed['kind']}: `{last_line(failed['error'])}`")
    return ["#### What did not run", "\n".join(lines)] if lines else []


def versions(found: Mapping[str, Any]) -> list[str]:
    """List the versions installed for each peer."""
    names: dict[str, str] = {}
    for run in found["runs"]:
        if "versions" in run:
            installed = (f"{name} {version}" for name, version in run["versions"].items())
            names[PEERS[run["key"]["peer"]].name] = ", ".join(installed)
    return [table(["", "versions"], [[k, v] for k, v in names.items()])] if names else []


def _who(run: Mapping[str, Any]) -> str:
    key = run["key"]
    return f"{PEERS[key['peer']].name} in {key['workload']}, {key['track']}"


def _content(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
