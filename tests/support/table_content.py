"""The content of a table, whatever its files are called, as the reader sees it that was written from the format's page alone."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from support import second_reader

__all__ = ["Content", "content_of", "difference"]

ADDRESSES = frozenset({"part", "ref", "row", "key", "shard"})
"""Fields that say where something lies, which may differ between tables of the same content."""

Content = dict[str, Any]
"""The samples of a snapshot by split and id, with hashes of their pixels; rows of tiles and shards; descriptions of the
modalities. Empty for a table that has no samples or does not exist."""


def content_of(objects: Mapping[str, bytes], table: str) -> Content:
    """Return what the newest snapshot of a table holds in a bank of these objects."""
    if not any(key.startswith(f"{table}/index/samples/_delta_log/") for key in objects):
        return {}
    with tempfile.TemporaryDirectory(prefix="content-") as folder:
        bank = Path(folder)
        for key, data in objects.items():
            path = bank / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        snapshot = second_reader.Snapshot(bank, table)
        samples: dict[str, Any] = {}
        for row in snapshot.samples:
            held = {name: row[name] for name in snapshot.modalities if row[name] is not None}
            seen = {name: _digest(second_reader.read_sample(bank, held[name]["ref"])) for name in held}
            name = f"{row['split']}/{row['sample_id']}"
            assert name not in samples, f"{name} is there twice"
            added = {column: _facts(values.get(row["key"])) for column, values in snapshot.columns.items()}
            samples[name] = {"row": _facts(row), "pixels": seen, "columns": added}
        if not samples:
            return {}
        rows = {"tiles": _sorted(snapshot.tiles), "shards": _sorted(snapshot.shards)}
        return {"samples": samples, **rows, "modalities": snapshot.modalities}


def difference(found: Content, wanted: Content) -> str:
    """Describe in one line where two contents differ; an empty text if they do not."""
    if found == wanted:
        return ""
    if "unreadable" in found:
        return f"cannot be read: {found['unreadable']}"
    mine, theirs = found.get("samples", {}), wanted.get("samples", {})
    if missing := sorted(set(theirs) - set(mine)):
        return f"lacks {', '.join(missing)}"
    if more := sorted(set(mine) - set(theirs)):
        return f"has {', '.join(more)}, too"
    if other := [name for name in theirs if mine[name] != theirs[name]]:
        return f"has another {other[0]}: {mine[other[0]]} instead of {theirs[other[0]]}"[:600]
    return f"has other {', '.join(name for name in wanted if found.get(name) != wanted[name])}"


def _digest(pixels: Any) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def _facts(value: Any) -> Any:
    """Return a row without what says where it lies."""
    if isinstance(value, Mapping):
        return {name: _facts(v) for name, v in value.items() if name not in ADDRESSES}
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, int | float | str | bool | list) or value is None else str(value)


def _sorted(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted(json.dumps(_facts(row), sort_keys=True, default=str) for row in rows)
