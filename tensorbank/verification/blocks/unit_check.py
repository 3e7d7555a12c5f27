"""The check of one unit: some rows of samples, their tiles, and all of their blocks.

It holds the tensor of one modality of one sample at a time, and runs in any process: nothing but values goes in and out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from tensorbank.engines import BankSetting
from tensorbank.errors import IntegrityError, NotFoundError, StorageError
from tensorbank.index_files import IndexFile, IndexMirror, default_cache_folder
from tensorbank.index_schema import tiles_schema
from tensorbank.layout import index_key, is_shard_key
from tensorbank.reading import decode_block, forbid_blosc_threads
from tensorbank.schema import Modality, TableSchema
from tensorbank.statistics import PixelMeasure, measure
from tensorbank.storage import Store
from tensorbank.verification.blocks.histograms import Counts
from tensorbank.verification.blocks.recomputed import sample_differences, tile_differences
from tensorbank.verification.findings import Finding, FindingKind

__all__ = ["BlockSetting", "UnitResult", "UnitTask", "run"]

MAX_TOLD = 3


class BlockSetting(BankSetting):
    """The setting of the tasks of one verification; see :class:`tensorbank.engines.Setting`.

    Parameters
    ----------
    mirror
        Mirror in which a worker has its copies of files of tiles. Where it is the default one, each has that of its own user.
    """

    def __init__(self, mirror: IndexMirror, table: str, schema: TableSchema) -> None:
        super().__init__(mirror.store, index_key(table, "samples"))
        self.mirror = mirror
        self.table = table
        self.schema = schema

    def __reduce__(self) -> tuple[object, ...]:
        folder = self.mirror.folder
        own = None if folder == default_cache_folder() else folder
        return (_arrived, (self.store, own, self.mirror.max_bytes, self.table, self.schema))

    def begin(self) -> None:
        """Keep to one thread: there are as many workers as processors."""
        forbid_blosc_threads()


def _arrived(
    store: Store, folder: Path | None, max_bytes: int, table: str, schema: TableSchema
) -> BlockSetting:
    return BlockSetting(IndexMirror(store, folder or default_cache_folder(), max_bytes), table, schema)


@dataclass(frozen=True)
class UnitTask:
    """The task of checking one unit.

    Parameters
    ----------
    number, name
        Number of the unit in its run, and the name that says which rows it is of.
    rows
        Rows of samples.
    tiles
        Files that may hold their tiles.
    missing
        Keys of their shards that are known to be gone.
    """

    number: int
    name: str
    rows: pa.Table
    tiles: tuple[IndexFile, ...]
    missing: frozenset[str]

    @property
    def label(self) -> str:
        """See ``Task.label``."""
        ids = self.rows["sample_id"]
        return f"samples {ids[0]} to {ids[-1]}"


@dataclass(slots=True)
class UnitResult:
    """The findings of the check of one unit."""

    number: int
    name: str
    n_samples: int
    n_blocks: int = 0
    n_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, Counts] = field(default_factory=dict)
    """The histograms of what was read, by shard."""
    keys: tuple[str, ...] = ()


def run(task: UnitTask, setting: BlockSetting) -> UnitResult:
    """Execute a task.

    Raises
    ------
    IntegrityError, StorageError
        A file of tiles cannot be had, or is another one than the log says. What is wrong with blocks is a finding.
    """
    return _UnitCheck(task, setting).run()


class _UnitCheck:
    def __init__(self, task: UnitTask, setting: BlockSetting) -> None:
        self.task = task
        self.setting = setting
        self.found = UnitResult(task.number, task.name, len(task.rows))

    def run(self) -> UnitResult:
        rows = self.task.rows
        tiles = self._tiles()
        for modality in self.setting.schema:
            if rows.schema.get_field_index(modality.name) < 0:
                continue
            mine = rows.select(["sample_id", "key", "part", modality.name]).to_pylist()
            of_tiles: dict[tuple[int, str], list[dict[str, Any]]] = {}
            if tiles is not None:
                for tile in tiles.select(["key", "part", "time_index", "tile", modality.name]).to_pylist():
                    if tile[modality.name] is not None:
                        of_tiles.setdefault((tile["key"], tile["part"]), []).append(tile)
            n_cells: dict[str, int] = {}
            for (_, part), found in of_tiles.items():
                n_cells[part] = max([n_cells.get(part, 1), *(1 + t["tile"] for t in found)])
            for row in mine:
                if row[modality.name] is not None:
                    found = of_tiles.get((row["key"], row["part"]), [])
                    self._check_tensor(modality, row, found, round(n_cells.get(row["part"], 1) ** 0.5))
        return self.found

    def _tiles(self) -> pa.Table | None:
        """Return the tiles of the unit's samples; row groups of other places are not read."""
        rows = self.task.rows
        if not self.task.tiles:
            return None
        wanted = ds.field("key").isin(rows["key"].combine_chunks())
        for axis in ("lon", "lat"):
            bounds = pc.min_max(rows[axis])
            if not rows[axis].null_count:
                wanted &= (ds.field(axis) >= bounds["min"]) & (ds.field(axis) <= bounds["max"])
        schema = tiles_schema(self.setting.schema)
        paths = [str(path) for path in self.setting.mirror.readable(self.task.tiles)]
        return ds.dataset(paths, schema=schema, format="parquet").to_table(filter=wanted, use_threads=False)

    def _check_tensor(
        self,
        modality: Modality,
        row: dict[str, Any],
        tiles: Sequence[dict[str, Any]],
        n_tiles: int,
    ) -> None:
        unit = self.found
        said = row[modality.name]
        ref, sample_id = said["ref"], str(row["sample_id"])
        key = ref["key"]
        flaw = partial(_flaw, key=str(key), modality=modality.name, sample_ids=(sample_id,))
        if not is_shard_key(key) or key in self.task.missing or sum(ref["block_bytes"]) != ref["length"]:
            return  # told among the rows, or with the shard
        try:
            pixels = _decoded(self.setting.store, modality, ref)
        except NotFoundError as error:
            unit.findings.append(flaw(FindingKind.MISSING_SHARD, reason=str(error)))
            return
        except (IntegrityError, StorageError) as error:
            is_damage = (
                isinstance(error, IntegrityError) or "range" in str(error.kind) or "short" in str(error.kind)
            )
            kind = FindingKind.DAMAGED_BLOCK if is_damage else FindingKind.UNREADABLE
            unit.findings.append(flaw(kind, reason=f"{modality.name} of {sample_id}: {error}"))
            return
        unit.n_blocks += int(np.count_nonzero(ref["block_bytes"]))
        unit.n_bytes += ref["length"]
        found = measure(pixels, modality, n_tiles)
        if isinstance(found, PixelMeasure):
            before = unit.counts.get(key, Counts(0, np.zeros_like(found.histogram)))
            unit.counts[key] = Counts(before.n_samples + 1, before.histogram + found.histogram)
        told = list(sample_differences(said, found, modality))
        if told:
            reason = f"the row of samples: {_listed(told)}"
            unit.findings.append(flaw(FindingKind.WRONG_STATISTICS, reason=reason, level="samples"))
        told = []
        for tile in tiles:
            cell = (tile["time_index"], *divmod(tile["tile"], n_tiles))
            if cell[0] < len(pixels):
                told += tile_differences(tile[modality.name], found, modality, cell)
        if told:
            reason = f"rows of tiles: {_listed(told)}"
            unit.findings.append(flaw(FindingKind.WRONG_STATISTICS, reason=reason, level="tiles"))


def _flaw(
    kind: FindingKind, *, reason: str, key: str, modality: str, sample_ids: tuple[str, ...], level: str = ""
) -> Finding:
    return Finding(kind, key, reason, modality, sample_ids, level)


def _listed(told: Sequence[str]) -> str:
    more = f", and {len(told) - MAX_TOLD} more" if len(told) > MAX_TOLD else ""
    return "; ".join(told[:MAX_TOLD]) + more


def _decoded(store: Store, modality: Modality, ref: dict[str, Any]) -> npt.NDArray[np.generic]:
    """Return the pixels of one sample, (time, band, y, x) of the dates that it has, each block compared with its checksum."""
    data = store.get_range(ref["key"], ref["offset"], ref["offset"] + ref["length"])
    n_bands = len(modality.bands)
    sizes = [n for n in ref["block_bytes"] if n]
    n_times = len(sizes) // n_bands
    dtype = np.dtype(modality.dtype).newbyteorder("<")
    pixels = np.empty((n_times, n_bands, modality.height, modality.width), dtype)
    start = 0
    for number, size in enumerate(sizes):
        out = pixels[divmod(number, n_bands)]
        try:
            decode_block(memoryview(data)[start : start + size], out)
        except IntegrityError as error:
            date, band = divmod(number, n_bands)
            raise IntegrityError(f"date {date}, band {modality.band_names[band]}: {error}") from error
        start += size
    return pixels
