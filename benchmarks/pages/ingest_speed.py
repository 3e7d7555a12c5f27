"""The section on ingest: its speed, its memory, and the size of the index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pages.markdown import table

__all__ = ["ingest_speed"]

ROWS = (
    ("samples/s", "samples_per_s", ".1f"),
    ("MB/s of tensors", "mb_per_s", ".0f"),
    ("of the ceiling", "of_ceiling", ".2f"),
    (
        "ceiling: decode the archives, encode the blocks, nothing else, samples/s",
        "ceiling_samples_per_s",
        ".1f",
    ),
    ("peak memory of all processes (PSS), MiB", "peak_mib", ".0f"),
    ("index files of all levels, share of tensor bytes", "index_share", ".2%"),
    ("the same with Delta's logs on disk", "index_with_log_share", ".2%"),
)


def ingest_speed(found: Mapping[str, Any]) -> str:
    """Return the table of ``ingest.py``, and what the workers' time goes into."""
    if not found:
        return ""
    figures = found["figures"]
    rows = []
    for what, name, form in ROWS:
        f = figures[name]
        rows.append([what, format(f["median"], form), f"{f['least']:{form}} .. {f['most']:{form}}"])
    shares = {
        name: format(figures[f"{name}_share"]["median"], ".0%")
        for name in ("statistics", "read", "encode", "write")
    }
    told = (
        f"The workers spend {shares['statistics']} of their time on statistics, {shares['read']} on reading and decoding "
        f"archives, {shares['encode']} on encoding and {shares['write']} on writing."
    )
    return f"{table(['', 'median', 'range'], rows)}\n\n{told}"
