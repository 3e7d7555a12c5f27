"""The explanation of a plan as text and as HTML, made of the facts that ``Plan.explain_json`` gives. Pure."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping
from typing import Any

__all__ = ["as_html", "as_text"]


def as_text(facts: Mapping[str, Any]) -> str:
    """Format the facts as text for a terminal."""
    tables = ", ".join(
        f"{name.partition('@')[0]} at version {s['version']}"
        for name, s in sorted(facts["snapshots"].items())
    )
    lines = [
        f"Plan {facts['fingerprint']} of {tables} in {facts['bank']}",
        "",
        textwrap.dedent(facts["sql"]).strip(),
        "",
    ]
    lines.append(f"{'level':<10}{'considered':>14}{'pruned':>14}{'kept':>14}")
    lines += [
        f"{r['level']:<10}{r['considered']:>14,}{r['pruned']:>14,}{r['kept']:>14,}" for r in facts["levels"]
    ]
    if copies := facts["sorted_copies"]:
        lines += [
            "",
            f"sorted     {', '.join(f'{table} by {column}' for table, column in sorted(copies.items()))}",
        ]
    pixels = facts["pixels"]
    if pixels["predicates"]:
        lines += ["", f"pixels     {_of_pixels(pixels)}"]
    share = facts["read_bytes"] / facts["scan_bytes"] if facts["scan_bytes"] else 0.0
    lines += [
        "",
        f"tensors    {', '.join(facts['tensors']) or 'none'}",
        f"blocks     {facts['n_blocks']:,} of {facts['scan_blocks']:,}",
        f"to read    {_of_bytes(facts)} ({share:.1%}), decoded {_mb(facts['tensor_bytes'])}",
    ]
    if not facts["n_samples"]:
        lines += ["", "No sample matches; nothing will be read."]
    return "\n".join(lines)


def as_html(facts: Mapping[str, Any]) -> str:
    """Format the facts as HTML for notebooks: a small bar for each level, and for the bytes."""
    rows = [
        (r["level"], r["kept"], r["considered"], f"{r['kept']:,} of {r['considered']:,}")
        for r in facts["levels"]
    ]
    rows.append(("bytes", facts["read_bytes"], facts["scan_bytes"], _of_bytes(facts)))
    bars = "".join(
        f"<tr><td>{html.escape(name)}</td><td><div style='width:12em;background:#ddd'>"
        f"<div style='width:{100 * kept / max(total, 1):.1f}%;height:.8em;background:#2a6f97'></div></div></td>"
        f"<td>{html.escape(text)}</td></tr>"
        for name, kept, total, text in rows
    )
    what = html.escape(f"{facts['n_samples']:,} samples of {', '.join(facts['tensors'])}")
    return f"<div><code>{html.escape(_one_line(facts['sql']))}</code><br>{what}<table>{bars}</table></div>"


def _one_line(sql: str) -> str:
    return " ".join(sql.split())


def _of_bytes(facts: Mapping[str, Any]) -> str:
    return f"{_mb(facts['read_bytes'])} of {_mb(facts['scan_bytes'])}"


def _of_pixels(pixels: Mapping[str, int]) -> str:
    """Describe how pixel predicates were decided."""
    ways = []
    if pixels["by_tiles"]:
        ways.append(f"{pixels['by_tiles']:,} by statistics of tiles")
    if pixels["read"]:
        ways.append(f"{pixels['read']:,} by reading {_mb(pixels['read_bytes'])}")
    if pixels["undecided"]:
        ways.append(f"{pixels['undecided']:,} left undecided (refine := 'index')")
    return f"{', '.join(ways)}; all others by their own statistics" if ways else "all decided by the index"


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
