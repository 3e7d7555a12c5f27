"""Write what was measured against other systems into the pages, so that no figure there is typed by hand.

    python benchmarks/results_page.py [--check]

Takes ``results/peers.json`` and ``results/remarks.json`` (why a workload is lost, by name), and writes the section between the
markers ``<!-- peers -->`` of ``benchmarks/README.md``, the headline between those of ``README.md``, and ``results/peers.png``.
Tables of ``results/ingest.json``, ``results/stream.json``, ``results/loader.json``, ``results/node.json``,
``results/serve.json``, ``results/codec.json``, ``results/simulate.json``, ``results/pretrain.json`` and
``results/peers_plan.json`` go between markers of their own.
``--check`` writes nothing and fails if a page differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pages.codecs import codecs
from pages.forecasts import forecasts
from pages.ingest_speed import ingest_speed
from pages.markdown import digits, placed, table
from pages.picture import draw
from pages.planning import planning
from pages.speed import best_options, headline, speed_tables
from pages.summary import medians
from pages.trust import failures, trust_tables, versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def section(found: Mapping[str, Any], remarks: Mapping[str, str]) -> str:
    """Return all tables as Markdown."""
    if not found:
        return "Not measured yet: `make bench-peers`."
    speed = medians(found["runs"])
    machine, data = found["machine"], found["data"]
    parts = [
        (
            f"{machine['processor']}, client on core {machine['cores'][0]}, server on {machine['cores'][1]}, "
            f"Python {machine['python']}; {data['n_samples']} samples. `x` is the ratio to TensorBank, `ceiling` the share of "
            "what raw range reads of the same bytes bring; medians, with the range in brackets of more than one run."
        ),
        *speed_tables(speed, remarks),
        *best_options(found["runs"]),
        *trust_tables(found),
        *failures(found),
        *versions(found),
    ]
    if speed:
        parts.insert(1, "![samples per second beside the ceiling](results/peers.png)")
    return "\n\n".join(parts)


def streaming(found: Mapping[str, Any]) -> str:
    """Return the figures of ``bench_stream.py``, ``bench_loader.py``, ``bench_node.py`` or ``bench_pretrain.py``."""
    rows = []
    for f in found.get("figures", ()):
        about = "" if f["judged"] == "ratio" else f" {f['unit']}"
        ceiling = "" if f["ceiling"] is None else digits(f["ceiling"])
        ratio = "" if f["ratio"] is None else f"{f['ratio']:.3f}"
        target = "" if f["target"] is None else f"{f['bound']} {f['target']:g}{about}"
        verdict = {True: "met", False: "**missed**", None: ""}[f["met"]]
        what = [
            f["section"],
            f["what"],
            f"{digits(f['value'])} {f['unit']}",
            ceiling,
            ratio,
            target,
            verdict,
        ]
        rows.append(what)
    rows += [[m["section"], m["what"], m["reason"], "", "", "", ""] for m in found.get("missing", ())]
    return table(["", "", "measured", "ceiling", "ratio", "target", ""], rows) if rows else ""


def serving(found: Mapping[str, Any]) -> str:
    """Return the figures of ``bench_serve.py``."""
    rows = [
        [t["what"], t["target"], t["measured"], {True: "met", False: "**missed**", None: ""}[t["met"]]]
        for t in found.get("targets", ())
    ]
    return table(["", "target", "measured", ""], rows) if rows else ""


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Return the texts that the pages should have."""
    results = root / "benchmarks" / "results"

    def read(name: str) -> dict[str, Any]:
        path = results / f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    found = read("peers")
    home, page = root / "README.md", root / "benchmarks" / "README.md"
    text = placed(page.read_text(), section(found, read("remarks")))
    text = placed(text, ingest_speed(read("ingest")), "ingest")
    text = placed(text, streaming(read("stream")), "stream")
    text = placed(text, streaming(read("loader")), "loader")
    text = placed(text, streaming(read("node")), "node")
    text = placed(text, serving(read("serve")), "serve")
    text = placed(text, codecs(read("codec")), "codecs")
    text = placed(text, forecasts(read("simulate")), "simulate")
    text = placed(text, streaming(read("pretrain")), "pretrain")
    text = placed(text, planning(read("peers_plan"), read("remarks").get("plans", "")), "plans")
    return {page: text, home: placed(home.read_text(), headline(found))}


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
