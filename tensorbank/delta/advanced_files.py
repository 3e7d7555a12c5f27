"""The files of a version from those of an earlier one and the commits between the two. Pure.

A reader of a table that grows would otherwise list all its files with each commit. What is understood here is what commits of
ours say: files added and removed, and transactions. At anything else there is no answer, and delta-rs reads the log from its
checkpoint on. Both give the same files, which the tests compare.
"""

from __future__ import annotations

import io
import json
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.json as pa_json

from tensorbank.index_files import FINITE, IndexFile, LevelFiles

__all__ = ["SIDES", "advanced_files", "statistics_of"]

MAX_CHUNKS = 16
"""The most pieces of the statistics, after which they are made one: a commit adds one, and cuts another in two."""
KNOWN = frozenset({"add", "remove", "txn", "commitInfo"})
SIDES = {"min": "minValues", "max": "maxValues"}
"""The columns of statistics, and the names that the JSON of an add-action has for them."""

Action = Mapping[str, Any]


def advanced_files(files: LevelFiles, key: str, commits: Sequence[bytes]) -> LevelFiles | None:
    """Return the files after some commits that follow, None if they say what is not understood here.

    Parameters
    ----------
    key
        Key of the table in the bank.
    commits
        The files of the commits in order, checked.
    """
    actions = [_actions(data) for data in commits]
    added: dict[str, Action] = {}
    removed: set[str] = set()
    finite = files.finite
    for commit in actions:
        if commit is None:
            return None
        adds = {a["add"]["path"]: a["add"] for a in commit if "add" in a}
        removes = {a["remove"]["path"] for a in commit if "remove" in a}
        if adds.keys() & removes:
            return None
        for path in removes:
            added.pop(path, None)
        removed |= removes | adds.keys()
        added |= adds
        finite |= any(a["txn"]["appId"] == FINITE for a in commit if "txn" in a)
    found = _changed(files, key, removed, added)
    if found is None:
        return None
    return replace(
        files,
        version=files.version + len(commits),
        files=found[0],
        known=found[1],
        places=None,
        finite=finite,
    )


def _actions(data: bytes) -> list[Action] | None:
    """Return the actions of a commit, None if one of them is not understood."""
    try:
        actions = [json.loads(line) for line in data.splitlines() if line.strip()]
    except ValueError:
        return None
    return actions if all(isinstance(a, dict) and _is_plain(a) for a in actions) else None


def _is_plain(action: Action) -> bool:
    """Tell whether an action is one of those that commits of ours have, with a path that is written as it is."""
    if not action.keys() <= KNOWN or len(action) != 1:
        return False
    ((kind, said),) = action.items()
    if kind in ("commitInfo", "txn"):
        return True
    path = said.get("path")
    if not isinstance(path, str) or not path or "%" in path or "/" in path or ":" in path:
        return False
    plain = not said.get("partitionValues") and "deletionVector" not in said
    return plain and (kind == "remove" or isinstance(said.get("stats"), str))


def _changed(
    there: LevelFiles, key: str, removed: Collection[str], added: Mapping[str, Action]
) -> tuple[tuple[IndexFile, ...], pa.Table] | None:
    """Return the files without some and with others, each where its part and name place it, and their statistics."""
    files, statistics = list(there.files), there.statistics
    if not files or set(statistics.column_names) != SIDES.keys():
        return None  # the types of the statistics are not known
    rows = statistics_of(statistics.schema, added)
    if rows is None:
        return None
    gone = {f"{key}/{path}" for path in removed}
    for place in reversed([i for i, f in enumerate(files) if f.key in gone]):
        del files[place]
        statistics = pa.concat_tables([statistics.slice(0, place), statistics.slice(place + 1)])
    lows, highs = (_parts(rows, side) for side in SIDES)
    for number, (path, action) in enumerate(added.items()):
        low, high = lows[number], highs[number]
        file = IndexFile(
            f"{key}/{path}",
            int(action["size"]),
            int(rows["numRecords"][number].as_py() or 0),
            low if low == high else None,
        )
        place = _place(files, statistics, low or "", file.key)
        files.insert(place, file)
        row = rows.slice(number, 1).select(list(SIDES))
        statistics = pa.concat_tables([statistics.slice(0, place), row, statistics.slice(place)])
    if statistics.num_columns and statistics.column(0).num_chunks > MAX_CHUNKS:
        statistics = statistics.combine_chunks()
    return tuple(files), statistics


def statistics_of(schema: pa.Schema, added: Mapping[str, Action]) -> pa.Table | None:
    """Return the statistics of added files, a row a file, with the types that those of the others have."""
    fields = [pa.field("numRecords", pa.int64())]
    fields += [pa.field(SIDES[side], schema.field(side).type) for side in SIDES]
    if not added:
        return pa.Table.from_batches([], pa.schema([fields[0], *schema]))
    lines = "".join(f"{a['stats']}\n" for a in added.values()).encode()
    try:
        rows = pa_json.read_json(
            io.BytesIO(lines),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=pa_json.ParseOptions(pa.schema(fields), unexpected_field_behavior="ignore"),
        )
    except pa.ArrowException:
        return None
    if rows.num_rows != len(added):
        return None
    return pa.Table.from_arrays(rows.columns, schema=pa.schema([fields[0], *schema]))


def _place(files: Sequence[IndexFile], statistics: pa.Table, part: str, key: str) -> int:
    """Return the place of a file among those that are sorted by their smallest part and their keys."""

    def order(place: int) -> tuple[str, str]:
        file = files[place]
        first = file.part if file.part is not None else _parts(statistics.slice(place, 1), "min")[0]
        return first or "", file.key

    return bisect_left(range(len(files)), (part, key), key=order)


def _parts(statistics: pa.Table, side: str) -> list[str | None]:
    bounds = statistics.column(side).combine_chunks()
    if isinstance(bounds, pa.ChunkedArray):  # of no rows
        return []
    if bounds.type.get_field_index("part") < 0:
        return [None] * len(bounds)
    return list(bounds.field("part").to_pylist())
