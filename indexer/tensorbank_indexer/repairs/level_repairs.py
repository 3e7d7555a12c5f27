"""The repair of levels that follow from rows of samples: tiles and roll-ups, with the stored blocks; keys; and deletions, with
the history.
"""

from __future__ import annotations

from contextlib import suppress
from math import isqrt

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.catalog import DELETED, KEYS, LevelChange, rows_of_keys
from tensorbank.corrections import rows_of_deletion
from tensorbank.errors import TensorBankError
from tensorbank.index_files import index_file_name, parquet_bytes
from tensorbank.maintenance import without
from tensorbank_indexer.repairs.damaged_index import DamagedIndex
from tensorbank_indexer.repairs.derived_rows import Place, from_rows
from tensorbank_indexer.repairs.repair_report import Unrepaired

__all__ = ["repair_deletions", "repair_keys", "repair_roll_ups", "repair_tiles"]

N_TILES = 4
"""The cells along an axis where nothing tells how many a part has."""


def repair_keys(index: DamagedIndex) -> None:
    """Derive the keys of all rows of samples, if some are lost or wrong."""
    folder = index.folder(KEYS)
    lost = index.files(KEYS, lost=True)
    if not lost and not index.of_level(KEYS):
        return
    index.require_whole_samples("keys")
    columns = ["split", "sample_id", "subset", "stem"]
    rows = [pq.read_table(path, columns=columns) for path in index.paths("samples")]
    every = rows_of_keys(pa.concat_tables(rows))
    if len(lost) == 1:
        held = [index.catalog.keys(file) for file in index.files(KEYS, lost=False)]
        pairs = np.stack([as_numpy(every[n]).astype(np.int64) for n in every.column_names], axis=1)
        rest = without(pairs, np.concatenate([pairs[:0], *held]))
        columns = [as_arrow(np.ascontiguousarray(rest[:, i])) for i in (0, 1)]
        data = parquet_bytes(pa.Table.from_arrays(columns, schema=every.schema))
        if f"{folder}/{index_file_name(data)}" == lost[0].key:
            index.restore(lost[0].key, data)
            return
    removed = index.catalog.state(index.version, KEYS).files.files
    index.changes[KEYS] = LevelChange((index.written(KEYS, every),), tuple(removed))


def repair_deletions(index: DamagedIndex) -> None:
    """Make deletions again that history tells of, if their file is lost.

    Raises
    ------
    Unrepaired
        No deletion of the history gives the file.
    """
    table = index.version.table
    for file in index.files(DELETED, lost=True) if index.version.has(DELETED) else ():
        for event in index.catalog.history(table):
            where = event.details.get("where")
            if event.operation != "delete" or not where:
                continue
            with suppress(TensorBankError, OSError):
                before = index.catalog.version(table, event.version - 1)
                data = parquet_bytes(rows_of_deletion(index.catalog, before, str(where)))
                if index_file_name(data) == file.key.rpartition("/")[2]:
                    index.restore(file.key, data)
                    index.look_for_deleted()
                    break
        else:
            raise Unrepaired(
                "which samples were deleted follows from no deletion of the history; `restore` a version before it, and "
                "delete them again"
            )


def repair_tiles(index: DamagedIndex) -> None:
    """Derive lost and wrong rows of tiles."""
    lost = index.files("tiles", lost=True)
    if not lost and not index.of_level("tiles"):
        return
    index.require_whole_samples("tiles")
    own = index.numbers("samples")
    ids = pa.array(sorted({i for f in index.of_level("tiles") for i in f.sample_ids}), pa.string())
    wrong = index.named(index.of_level("tiles"))
    missing = ~np.isin(own, index.numbers("tiles")) | np.isin(own, wrong)
    every = np.unique(own)

    def derive(live: bool) -> pa.Table:
        wanted = own[missing & ~np.isin(own, index.dead)] if live else own[missing]
        places = index.places(index.among(wanted))
        n_rows = sum(f.n_rows for f in lost)
        n_times = max(m.n_times for m in index.schema)
        guess = isqrt(n_rows // max(1, n_times * sum(map(len, places.values()))))
        made = []
        for place, rows in sorted(places.items()):
            n_tiles = _n_tiles(index, place[0]) or guess or N_TILES
            made.append(from_rows(index.catalog.store, rows, index.schema, place, n_tiles).tiles)
        return (
            pa.concat_tables(made)
            if made
            else from_rows(index.catalog.store, [], index.schema, ("", 0), 1).tiles
        )

    def goes(rows: pa.Table) -> npt.NDArray[np.bool_]:
        numbers = index.numbers_of(rows)
        named = as_numpy(pc.is_in(rows["sample_id"], value_set=ids))
        return np.isin(numbers, wrong) | ~np.isin(numbers, every) | named.astype(np.bool_)

    index.replace("tiles", derive, lost, goes)


def repair_roll_ups(index: DamagedIndex) -> None:
    """Derive lost and wrong roll-ups."""
    lost = index.files("shards", lost=True)
    mine = index.of_level("shards")
    if not lost and not mine:
        return
    index.require_whole_samples("roll-ups of shards")
    wrong = {place for f in mine for place in f.shards}
    parts = {part for part, _ in wrong}
    if lost or any(not f.shards for f in mine):
        every = (pq.read_table(path, columns=["part"])["part"].unique() for path in index.paths("samples"))
        parts.update(part for some in every for part in some.to_pylist())
    known: set[Place] = set()
    for path in index.paths("shards"):
        rows = pq.read_table(path, columns=["part", "shard"])
        known.update(zip(rows["part"].to_pylist(), rows["shard"].to_pylist(), strict=True))

    def derive(live: bool) -> pa.Table:
        made = []
        for part in sorted(parts):

            def wanted(rows: pa.Table, part: str = part) -> npt.NDArray[np.bool_]:
                counts: npt.NDArray[np.bool_] = as_numpy(pc.equal(rows["part"], part)).astype(np.bool_)
                return counts & ~np.isin(index.numbers_of(rows), index.dead) if live else counts

            for place, rows in sorted(index.places(wanted).items()):
                if place not in known or place in wrong:
                    made.append(from_rows(index.catalog.store, rows, index.schema, place, 1).shards)
        return (
            pa.concat_tables(made)
            if made
            else from_rows(index.catalog.store, [], index.schema, ("", 0), 1).shards
        )

    def goes(rows: pa.Table) -> npt.NDArray[np.bool_]:
        places = zip(rows["part"].to_pylist(), rows["shard"].to_pylist(), strict=True)
        return np.array([place in wrong for place in places], np.bool_)

    index.replace("shards", derive, lost, goes)


def _n_tiles(index: DamagedIndex, part: str) -> int:
    """Return the cells along an axis that tiles of a part have; 0 if it has none."""
    most = -1
    for file in index.files("tiles", lost=False):
        if file.part in (None, part):
            rows = pq.read_table(index.catalog.path(file), columns=["part", "tile"])
            mine = rows.filter(pc.equal(rows["part"], part))
            most = max(most, pc.max(mine["tile"]).as_py() if mine.num_rows else -1)
    return isqrt(most + 1)
