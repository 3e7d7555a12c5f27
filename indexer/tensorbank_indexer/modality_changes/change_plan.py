"""The plan of a change: the shards that are written, which samples get new pixels, and the parts that hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.schema import Modality
from tensorbank.storage import Store
from tensorbank_indexer.modality_changes.group_task import GroupTask
from tensorbank_indexer.modality_changes.origins import Origin
from tensorbank_indexer.modality_changes.table_rows import StoredRow, TableRows, array_form

__all__ = ["PartChange", "plan_parts"]

CHANGE_WRITER_VERSION = 2


@dataclass(frozen=True, slots=True)
class PartChange:
    """The change of one part: shards of a new part beside it, in which every sample has the number that it has in ``base``.

    ``wanted`` has, for each task, the numbers of its rows that get new pixels.
    """

    base: str
    part: str
    n_rows: int
    samples_per_shard: int
    tasks: tuple[GroupTask, ...]
    wanted: tuple[tuple[int, ...], ...]


def plan_parts(
    rows: TableRows,
    wanted: npt.NDArray[np.int64],
    origin: Origin,
    modality: Modality,
    n_tiles: Mapping[str, int],
    *,
    store: Store,
    table: str,
    profile: str,
) -> Iterator[PartChange]:
    """Plan, part after part, new shards for all shards in which some samples get new pixels.

    Parameters
    ----------
    wanted
        Numbers of the rows that get new pixels, at least one.
    n_tiles
        Cells along each axis of a sample, by part.

    Raises
    ------
    FormatError
        The document of a part is missing or damaged.
    """
    is_wanted = np.zeros(len(rows.key), np.bool_)
    is_wanted[wanted] = True
    names = {code: name for name, code in rows.parts.items()}
    for code, groups in groupby(rows.groups(wanted), itemgetter(0)):
        base, array = names[code], rows.array_of_part[code]
        n_rows, n_slots = array_form(store, array)
        cells = n_tiles.get(base, 1)
        found = [
            (shard, rows.take(numbers), np.flatnonzero(is_wanted[numbers]).tolist())
            for _, shard, numbers in groups
        ]
        identity = {
            "modality_writer": CHANGE_WRITER_VERSION,
            "base": array.rpartition("/")[0],
            "table": table,
            "profile": profile,
            "n_tiles": cells,
            "samples_per_shard": n_slots,
            "modality": modality.to_json(),
            "origin": [origin.name, origin.revision, *origin.inputs],
            "samples": [_identity(shard, some, chosen, origin) for shard, some, chosen in found],
        }
        part = f"part-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]}"
        tasks = tuple(
            GroupTask(table, part, base, shard, n_slots, modality, profile, cells, tuple(some))
            for shard, some, _ in found
        )
        yield PartChange(base, part, n_rows, n_slots, tasks, tuple(tuple(chosen) for _, _, chosen in found))


def _identity(shard: int, rows: Sequence[StoredRow], chosen: Sequence[int], origin: Origin) -> list[Any]:
    """Return what decides the content of a shard."""
    given = {n: origin.address(rows[n].key) for n in chosen}
    return [
        shard,
        [
            [
                row.key,
                row.row,
                _place(row.ref),
                [a.path, a.offset, a.length_bytes, a.etag],
                [_place(r) for r in row.inputs.values()],
            ]
            if (a := given.get(n)) is not None
            else [row.key, row.row, _place(row.ref)]
            for n, row in enumerate(rows)
        ],
    ]


def _place(ref: Mapping[str, Any] | None) -> list[Any] | None:
    return None if ref is None else [ref["key"], ref["offset"], ref["length"]]
