"""Checks of stored blocks: each is read, compared with its checksum and decoded, and the statistics of its pixels made anew.

Work is done in units of some rows of one index file of samples, by threads, since decoding releases Python's lock; a thread holds
the tensor of one modality of one sample at a time. What was found sound is noted in a file, so that an interrupted verification
goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.catalog import Catalog, TableVersion
from tensorbank.errors import IntegrityError, NotFoundError, StorageError
from tensorbank.index_schema import tiles_schema
from tensorbank.layout import is_shard_key
from tensorbank.reading import decode_block
from tensorbank.schema import Modality
from tensorbank.statistics import PixelMeasure, measure
from tensorbank.storage import Store
from tensorbank.verification.findings import Finding, FindingKind, VerifyReport
from tensorbank.verification.histograms import Counts, RollUpHistograms
from tensorbank.verification.recomputed import sample_differences, tile_differences
from tensorbank.verification.sample_rows import batches, pairs_of

__all__ = ["BlockCheck"]

ROWS = 64
"""The rows of samples in one unit."""
MAX_TOLD = 3

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class _Unit:
    """The findings of the check of one unit."""

    name: str
    n_samples: int
    n_blocks: int = 0
    n_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, Counts] = field(default_factory=dict)
    """The histograms of what was read, by shard."""


@dataclass(frozen=True)
class BlockCheck:
    """A check of the blocks of one version.

    Parameters
    ----------
    samples, tiles
        Keys and local paths of the sound files of the levels.
    roll_ups
        Histograms of the roll-ups.
    missing
        Keys of shards that are known to be gone.
    dead, parts
        Numbers of the pairs of key and part of rows that do not count, made with these numbers of parts.
    keys
        Keys of the samples to look at, sorted; None for all.
    state
        File that says what was verified before, and is told what is verified now.
    """

    catalog: Catalog
    version: TableVersion
    samples: Sequence[tuple[str, str]]
    tiles: Sequence[str]
    roll_ups: RollUpHistograms
    missing: frozenset[str]
    dead: npt.NDArray[np.uint64]
    parts: dict[str, int]
    keys: npt.NDArray[np.int64] | None = None
    state: Path | None = None

    def run(
        self, report: VerifyReport, n_threads: int | None, progress: Progress | None
    ) -> Iterator[Finding]:
        """Yield what is found; ``report`` gets the numbers of samples, blocks and bytes."""
        known = _known_units(self.state)
        total = report.n_samples if self.keys is None else len(self.keys)
        done = 0
        n_threads = n_threads or os.cpu_count() or 1
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(n_threads, thread_name_prefix="tensorbank-verify"))
            note = None
            if self.state is not None:
                self.state.parent.mkdir(parents=True, exist_ok=True)
                note = stack.enter_context(self.state.open("a", encoding="utf-8"))
                note.write("\n")  # the last line may have been cut off
            waiting: deque[Future[_Unit]] = deque()

            def finish() -> Iterator[Finding]:
                nonlocal done
                unit = waiting.popleft().result()
                done += unit.n_samples
                report.n_blocks += unit.n_blocks
                report.n_bytes += unit.n_bytes
                if note is not None and not unit.findings:
                    _note(note, unit)
                if progress is not None:
                    progress(done, total)
                yield from unit.findings
                for key, counts in unit.counts.items():
                    yield from self.roll_ups.add(key, counts)

            for name, rows in self._units():
                if name in known:
                    report.n_known += len(rows)
                    done += len(rows)
                    continue
                waiting.append(pool.submit(self._check, name, rows))
                if len(waiting) > 2 * n_threads:
                    yield from finish()
            while waiting:
                yield from finish()

    def _units(self) -> Iterator[tuple[str, pa.Table]]:
        """Yield the rows that count, so many at a time, with names that say which they are."""
        for key, path in self.samples:
            for number, rows in enumerate(batches(path, n_rows=ROWS)):
                counts = ~np.isin(pairs_of(rows, self.parts), self.dead)
                if self.keys is not None:
                    counts &= np.isin(as_numpy(rows["key"], 0), self.keys)
                mine = rows.filter(as_arrow(counts))
                if len(mine):
                    yield f"{key} {number} {len(mine)}", mine

    def _check(self, name: str, rows: pa.Table) -> _Unit:
        unit = _Unit(name, len(rows))
        tiles = self._tiles_of(rows)
        for modality in self.version.schema:
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
                    self._check_tensor(unit, modality, row, found, round(n_cells.get(row["part"], 1) ** 0.5))
        return unit

    def _tiles_of(self, rows: pa.Table) -> pa.Table | None:
        """Return the tiles of some samples; row groups of other places are not read."""
        if not self.tiles or rows.schema.get_field_index("key") < 0:
            return None
        wanted = ds.field("key").isin(rows["key"].combine_chunks())
        for axis in ("lon", "lat"):
            bounds = pc.min_max(rows[axis])
            if not rows[axis].null_count:
                wanted &= (ds.field(axis) >= bounds["min"]) & (ds.field(axis) <= bounds["max"])
        schema = tiles_schema(self.version.schema)
        return ds.dataset(list(self.tiles), schema=schema, format="parquet").to_table(
            filter=wanted, use_threads=False
        )

    def _check_tensor(
        self,
        unit: _Unit,
        modality: Modality,
        row: dict[str, Any],
        tiles: Sequence[dict[str, Any]],
        n_tiles: int,
    ) -> None:
        said = row[modality.name]
        ref, sample_id = said["ref"], str(row["sample_id"])
        key = ref["key"]
        flaw = partial(_flaw, key=str(key), modality=modality.name, sample_ids=(sample_id,))
        if not is_shard_key(key) or key in self.missing or sum(ref["block_bytes"]) != ref["length"]:
            return  # told among the rows, or with the shard
        try:
            pixels = _decoded(self.catalog.store, modality, ref)
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


def _known_units(state: Path | None) -> set[str]:
    """Return the names of the units that a file says were found sound; lines that were cut off say nothing."""
    if state is None or not state.exists():
        return set()
    found = set()
    for line in state.read_text("utf-8", "replace").splitlines():
        try:
            found.add(str(json.loads(line)["unit"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _note(file: TextIO, unit: _Unit) -> None:
    file.write(json.dumps({"unit": unit.name, "n_blocks": unit.n_blocks, "n_bytes": unit.n_bytes}) + "\n")
    file.flush()
