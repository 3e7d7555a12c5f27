"""The content of a bank, whatever its files are called, as the reader sees it that was written from the format's page alone."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from support import second_reader

__all__ = ["BankContent", "Content", "content_of", "difference"]

ADDRESSES = frozenset({"part", "ref", "row", "key", "shard"})
"""Fields that say where something lies, which may differ between tables of the same content."""

Content = dict[str, Any]
"""The samples of a snapshot by split and id, with hashes of their pixels; rows of tiles and shards; descriptions of the
modalities. Empty for a table that has no samples or does not exist."""


BankContent = dict[str, Content]
"""The contents of the tables that have samples, by name. Of a bank that cannot be read, the reason below ``unreadable``."""


def content_of(objects: Mapping[str, bytes]) -> BankContent:
    """Return what the newest snapshots of all tables hold in a bank of these objects."""
    with tempfile.TemporaryDirectory(prefix="content-") as folder:
        bank = Path(folder)
        for key, data in objects.items():
            path = bank / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        found = {name: _content(bank, name) for name in _tables(bank)}
    return {name: content for name, content in found.items() if content}


def _tables(bank: Path) -> set[str]:
    """Return the names of the tables: those whose logs have a commit, no marker, and the name, or one that leads here still."""
    logs = {path.parents[2].name: path for path in bank.glob("*/index/samples/_delta_log")}
    to = {
        name: json.loads((log / "renamed.json").read_text())["to"]
        for name, log in logs.items()
        if (log / "renamed.json").exists()
    }
    said = {
        name: second_reader.Log(log.parent).configuration.get("tensorbank.name", name)
        for name, log in logs.items()
        if name not in to and [*log.glob("[0-9]*.json")]
    }
    return {name if to.get(other) == name else other for name, other in said.items()}


def _content(bank: Path, table: str) -> Content:
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


def difference(found: BankContent, wanted: BankContent) -> str:
    """Describe in one line where two contents differ; an empty text if they do not."""
    if "unreadable" in found or "unreadable" in wanted:
        is_same = found.keys() == wanted.keys()
        return "" if is_same else f"cannot be read: {(found | wanted)['unreadable']}"
    if missing := sorted(wanted.keys() - found.keys()):
        return f"lacks table {', '.join(missing)}"
    if more := sorted(found.keys() - wanted.keys()):
        return f"has table {', '.join(more)}, too"
    return "; ".join(text for name in wanted if (text := _difference(found[name], wanted[name])))


def _difference(mine: Content, theirs: Content) -> str:
    if mine == theirs:
        return ""
    found, wanted = mine["samples"], theirs["samples"]
    if missing := sorted(set(wanted) - set(found)):
        return f"lacks {', '.join(missing)}"
    if more := sorted(set(found) - set(wanted)):
        return f"has {', '.join(more)}, too"
    if other := [name for name in wanted if found[name] != wanted[name]]:
        return f"has another {other[0]}: {found[other[0]]} instead of {wanted[other[0]]}"[:600]
    return f"has other {', '.join(name for name in theirs if mine.get(name) != theirs[name])}"


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
