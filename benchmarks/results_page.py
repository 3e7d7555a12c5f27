"""Writes what was measured against other systems into the pages, so that no figure there is typed by hand.

    python benchmarks/results_page.py [--check]

Takes ``results/peers.json`` and ``results/remarks.json`` (why a workload is lost, by name), and writes the section between the
markers ``<!-- peers -->`` of ``benchmarks/README.md``, the headline between those of ``README.md``, and ``results/peers.png``.
Tables of ``results/stream.json`` and ``results/serve.json`` go between markers of their names.
``--check`` writes nothing and fails if a page differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # wherever it is started from

from peers import PEERS
from peers.trials import FAULTS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
OURS = "tensorbank"
CEILING = "ceiling"
WORKLOADS = {
    "Q0": "everything, shuffled",
    "Q1": "a tenth of the samples, by cloud cover",
    "Q2": "of these, two of seven modalities",
    "Q3": "of these, three of twelve bands of one of them",
    "Q4": "64 random ids",
    "Q5": "tiles of one land cover, two modalities",
}

Key = tuple[str, str, str, int]
"""Peer, track, workload, latency in ms."""


def medians(runs: Iterable[Mapping[str, Any]]) -> dict[Key, dict[str, Any]]:
    """Repeats of timed runs as one: medians, and the range of rates."""
    groups: dict[Key, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        key = run["key"]
        if key["part"] == "speed":
            groups[key["peer"], key["track"], key["workload"], key["latency_ms"]].append(run)
    return {key: _median(group) for key, group in groups.items()}


def _median(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def middle(name: str) -> float | None:
        values = [run[name] for run in group if run[name] is not None]
        return median(values) if values else None

    names = ("samples_s", "steady_samples_s", "first_batch_s", "bytes_to_ideal", "median_get_bytes")
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


def section(found: Mapping[str, Any], remarks: Mapping[str, str]) -> str:
    """All tables, as Markdown."""
    if not found:
        return "Not measured yet: `make bench-peers`."
    speed = medians(found["runs"])
    machine, data = found["machine"], found["data"]
    parts = [
        (
            f"{machine['processor']}, client on core {machine['cores'][0]}, server on {machine['cores'][1]}, "
            f"Python {machine['python']}; {data['n_samples']} samples. `x` is the ratio to TensorBank, `ceiling` the share of "
            "what raw range reads of the same bytes bring; medians, ranges in brackets."
        ),
        *_speed(speed, remarks),
        *_best_options(found["runs"]),
        *_trust(found["runs"]),
        *_failures(found),
        *_versions(found),
    ]
    if speed:
        parts.insert(1, "![samples per second beside the ceiling](results/peers.png)")
    return "\n\n".join(parts)


def _speed(speed: Mapping[Key, Mapping[str, Any]], remarks: Mapping[str, str]) -> list[str]:
    parts = []
    for name, words in WORKLOADS.items():
        for track in ("raw", "zstd"):
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
    text = f"{found['samples_s']:.1f} [{found['range'][0]:.1f}, {found['range'][1]:.1f}]"
    ours, top = speed.get((OURS, track, name, ms)), speed.get((CEILING, track, name, ms))
    if ours is not None:
        text += f", {found['samples_s'] / ours['samples_s']:.2f} x"
    if top is not None:
        text += f", ceiling {found['samples_s'] / top['samples_s']:.0%}"
    return text


def _costs(speed: Mapping[Key, Mapping[str, Any]], peer: str, track: str, name: str, ms: int) -> list[str]:
    found = speed.get((peer, track, name, ms))
    if found is None:
        return ["-"] * 8
    gaps = found["gap_ms"]
    return [
        _number(found["first_batch_s"], ".2f"),
        _number(found["bytes_to_ideal"], ".2f"),
        _number(found["n_requests"], ",.0f"),
        _number(found["median_get_bytes"], ",.0f", 1e3),
        _number(found["cpu_s_per_gb"], ".1f"),
        _number(found["peak_pss_bytes"], ",.0f", 1e6),
        " / ".join(f"{gaps[q]:.0f}" for q in ("p50", "p99", "max")) if gaps else "-",
        _number(found["mixed"], ".0%"),
    ]


def behind(speed: Mapping[Key, Mapping[str, Any]], track: str, name: str) -> list[str]:
    """Where another delivers more samples a second than we do."""
    found = []
    for (peer, t, n, ms), other in sorted(speed.items()):
        ours = speed.get((OURS, track, name, ms))
        if (t, n) == (track, name) and ours is not None and PEERS[peer].delivers:
            ratio = other["samples_s"] / ours["samples_s"]
            if ratio > 1:
                found.append(f"{PEERS[peer].name} {ratio:.2f} x at {ms} ms")
    return found


def _best_options(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    rates: dict[tuple[str, str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        key = run["key"]
        if key["part"] in ("speed", "grid") and key["workload"] == "Q0":
            label = json.dumps(key.get("options", {})) if key.get("options") else "defaults"
            rates[key["peer"], key["track"], key["latency_ms"]][label].append(run["samples_s"])
    rows = []
    for (peer, track, ms), options in sorted(
        rates.items(), key=lambda r: (r[0][1], r[0][2], [*PEERS].index(r[0][0]))
    ):
        if len(options) > 1 and "defaults" in options:
            best = max(options, key=lambda o: median(options[o]))
            ratio = median(options[best]) / median(options["defaults"])
            rows.append(
                [
                    PEERS[peer].name,
                    track,
                    str(ms),
                    f"`{best}`",
                    f"{median(options[best]):.1f}",
                    f"{ratio:.2f}",
                ]
            )
    head = ["", "track", "ms", "best of its grid, Q0", "samples/s", "to its defaults"]
    return ["#### Tuned", table(head, rows)] if rows else []


def _trust(runs: Sequence[Mapping[str, Any]]) -> list[str]:
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
    parts += _faults(by_part["faults"])
    wrong = [run for run in by_part["content"] if any(run["content"].values())]
    total = len(by_part["content"])
    if total:
        text = f"{total - len(wrong)} of {total} runs without faults delivered every item once, equal to the export byte by byte."
        parts.append(text + "".join(f" {_who(run)}: {_content(run['content'])}." for run in wrong))
    return parts


def _faults(runs: Sequence[Mapping[str, Any]]) -> list[str]:
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
    asked = [f for f in FAULTS if any(f in c for c in cells.values())]
    rows = [[PEERS[p].name, t, *(c.get(f, "failed") for f in asked)] for (p, t), c in cells.items()]
    head = ["", "track", *asked]
    return [
        "#### Faults: seconds of Q0, every byte checked; `failed` is in the list below",
        table(head, rows),
    ]


def _failures(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for peer, tracks in found["peers"].items():
        for track, report in tracks.items():
            if "error" in report:
                lines.append(
                    f"* {PEERS[peer].name}, {track}, could not be prepared: `{_last_line(report['error'])}`"
                )
    for failed in found["failed"]:
        what = ", ".join(str(v) for k, v in failed["key"].items() if k != "peer")
        name = PEERS[failed["key"]["peer"]].name
        lines.append(f"* {name}, {what}: {failed['kind']}: `{_last_line(failed['error'])}`")
    return ["#### What did not run", "\n".join(lines)] if lines else []


def _versions(found: Mapping[str, Any]) -> list[str]:
    versions: dict[str, str] = {}
    for run in found["runs"]:
        if "versions" in run:
            names = (f"{name} {version}" for name, version in run["versions"].items())
            versions[PEERS[run["key"]["peer"]].name] = ", ".join(names)
    return [table(["", "versions"], [[k, v] for k, v in versions.items()])] if versions else []


def headline(found: Mapping[str, Any]) -> str:
    """Of the README: per workload, our rate beside the best of the others and the ceiling."""
    speed = medians(found["runs"]) if found else {}
    rows = []
    for (peer, track, name, ms), ours in sorted(speed.items(), key=lambda item: item[0][1:]):
        others = {
            k[0]: v["samples_s"]
            for k, v in speed.items()
            if k[1:] == (track, name, ms) and k[0] != OURS and PEERS[k[0]].delivers
        }
        top = speed.get((CEILING, track, name, ms))
        if peer != OURS or track != "zstd" or not others or top is None:
            continue
        best = max(others, key=lambda k: others[k])
        rows.append(
            [
                f"{name}: {WORKLOADS[name]}",
                str(ms),
                f"{ours['samples_s']:.0f}",
                f"{ours['samples_s'] / others[best]:.1f} x {PEERS[best].name}",
                f"{ours['samples_s'] / top['samples_s']:.0%}",
            ]
        )
    if not rows:
        return ""
    head = ["", "ms added", "samples/s", "to the best of the others", "of the ceiling"]
    return (
        table(head, rows) + "\n\nHow, and who the others are: [benchmarks/README.md](benchmarks/README.md)."
    )


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Rates as shares of the ceiling, a panel a workload."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    speed = medians(found["runs"])
    names = [n for n in WORKLOADS if any(k[2] == n for k in speed)]
    track = "zstd" if any(k[1] == "zstd" for k in speed) else "raw"
    latencies = sorted({k[3] for k in speed})
    shown = [p for p in PEERS if p != CEILING and any(k[0] == p for k in speed)]
    figure, axes = plt.subplots(
        1, len(names), figsize=(2.2 + 2.3 * len(names), 0.9 + 0.38 * len(shown)), sharey=True, squeeze=False
    )
    colours = plt.get_cmap("viridis")(
        [0.15 + 0.6 * i / max(1, len(latencies) - 1) for i in range(len(latencies))]
    )
    height = 0.8 / len(latencies)
    for axis, name in zip(axes[0], names, strict=True):
        for i, ms in enumerate(latencies):
            top = speed.get((CEILING, track, name, ms))
            shares = [
                speed[p, track, name, ms]["samples_s"] / top["samples_s"]
                if top and (p, track, name, ms) in speed
                else 0.0
                for p in shown
            ]
            at = [len(shown) - 1 - j + 0.4 - height * (i + 0.5) for j in range(len(shown))]
            axis.barh(at, shares, height, color=colours[i], label=f"{ms} ms")
        axis.set_title(name)
        axis.set_xscale("log")
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(shown) - 1, -1, -1), [PEERS[p].name for p in shown])
    axes[0][-1].legend(title="added", fontsize=7, title_fontsize=7, loc="lower right")
    figure.supxlabel(f"samples/s as a share of the ceiling, {track}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def streaming(found: Mapping[str, Any]) -> str:
    """Figures of ``bench_stream.py``."""
    rows = []
    for f in found.get("figures", ()):
        about = "" if f["judged"] == "ratio" else f" {f['unit']}"
        ceiling = "" if f["ceiling"] is None else _digits(f["ceiling"])
        ratio = "" if f["ratio"] is None else f"{f['ratio']:.3f}"
        target = "" if f["target"] is None else f"{f['bound']} {f['target']:g}{about}"
        verdict = {True: "met", False: "**missed**", None: ""}[f["met"]]
        what = [
            f["section"],
            f["what"],
            f"{_digits(f['value'])} {f['unit']}",
            ceiling,
            ratio,
            target,
            verdict,
        ]
        rows.append(what)
    rows += [[m["section"], m["what"], m["reason"], "", "", "", ""] for m in found.get("missing", ())]
    return table(["", "", "measured", "ceiling", "ratio", "target", ""], rows) if rows else ""


def serving(found: Mapping[str, Any]) -> str:
    """Figures of ``bench_serve.py``."""
    rows = [
        [t["what"], t["target"], t["measured"], {True: "met", False: "**missed**", None: ""}[t["met"]]]
        for t in found.get("targets", ())
    ]
    return table(["", "target", "measured", ""], rows) if rows else ""


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def placed(page: str, text: str, name: str = "peers") -> str:
    """A page with the text between its markers of a name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise SystemExit(f"a page lacks {begin} ... {end}")
    inside = f"\n{text}\n" if text else "\n"
    return f"{before}{begin}{inside}{end}{after}"


def pages(root: Path = ROOT) -> dict[Path, str]:
    """What the pages should say."""
    results = root / "benchmarks" / "results"

    def read(name: str) -> dict[str, Any]:
        path = results / f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    found = read("peers")
    home, page = root / "README.md", root / "benchmarks" / "README.md"
    text = placed(page.read_text(), section(found, read("remarks")))
    text = placed(text, streaming(read("stream")), "stream")
    text = placed(text, serving(read("serve")), "serve")
    return {page: text, home: placed(home.read_text(), headline(found))}


def _number(value: float | None, form: str, unit: float = 1.0) -> str:
    return "-" if value is None else format(value / unit, form)


def _who(run: Mapping[str, Any]) -> str:
    key = run["key"]
    return f"{PEERS[key['peer']].name} in {key['workload']}, {key['track']}"


def _content(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if any(c.isalpha() for c in line)]
    return lines[-1].strip().replace("`", "'")[:300] if lines else ""


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    wanted = pages()
    stale = [path for path, text in wanted.items() if path.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'differs' if check else 'written'}")
        if not check:
            path.write_text(wanted[path])
    source = RESULTS / "peers.json"
    if not check and source.is_file():
        draw(json.loads(source.read_text()), RESULTS / "peers.png")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
