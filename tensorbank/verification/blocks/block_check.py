"""The check of the blocks of one version, in units of some rows of one index file of samples that an executor works on.

What was found sound is noted in a file, so that an interrupted verification goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.engines import Executor
from tensorbank.index_files import IndexFile, LevelFiles
from tensorbank.pruning import AllOf, Compare
from tensorbank.schema import TableSchema
from tensorbank.verification.blocks.histograms import RollUpHistograms
from tensorbank.verification.blocks.unit_check import UnitResult, UnitTask, run
from tensorbank.verification.findings import Finding, VerifyReport
from tensorbank.verification.sample_rows import batches, pairs_of, whole

__all__ = ["BlockCheck"]

ROWS = 64
"""The rows of samples in one unit."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BlockCheck:
    """A check of the blocks of one version.

    Parameters
    ----------
    samples
        Keys and local paths of the sound files of samples.
    tiles
        The sound files of tiles; None if there are none.
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

    schema: TableSchema
    samples: Sequence[tuple[str, str]]
    tiles: LevelFiles | None
    roll_ups: RollUpHistograms
    missing: frozenset[str]
    dead: npt.NDArray[np.uint64]
    parts: dict[str, int]
    keys: npt.NDArray[np.int64] | None = None
    state: Path | None = None

    def run(self, report: VerifyReport, executor: Executor, progress: Progress | None) -> list[Finding]:
        """Return what is found, in the order of units, then of roll-ups; ``report`` gets the numbers of blocks and bytes.

        Raises
        ------
        TensorBankError
            As the executor raises it. What was found sound until then is noted.
        """
        total = report.n_samples if self.keys is None else len(self.keys)
        done = 0
        found: dict[int, list[Finding]] = {}
        of_roll_ups: list[Finding] = []
        with ExitStack() as stack:
            tasks = self._tasks(_known_units(self.state), report)
            note = None
            if self.state is not None:
                self.state.parent.mkdir(parents=True, exist_ok=True)
                note = stack.enter_context(self.state.open("a", encoding="utf-8"))
                note.write("\n")  # the last line may have been cut off
            for unit in stack.enter_context(closing(executor.execute(tasks, run))):
                done += unit.n_samples
                report.n_blocks += unit.n_blocks
                report.n_bytes += unit.n_bytes
                if unit.findings:
                    found[unit.number] = unit.findings
                elif note is not None:
                    _note(note, unit)
                if progress is not None:
                    progress(report.n_known + done, total)
                for key, counts in unit.counts.items():
                    of_roll_ups += self.roll_ups.add(key, counts)
        of_roll_ups.sort(key=lambda finding: (finding.shards, finding.modality))
        return [*(finding for number in sorted(found) for finding in found[number]), *of_roll_ups]

    def _tasks(self, known: set[str], report: VerifyReport) -> Iterator[UnitTask]:
        """Yield the tasks of the units that are not known to be sound; count the samples of those that are."""
        for number, (name, rows) in enumerate(self._units()):
            if name in known:
                report.n_known += len(rows)
            else:
                yield UnitTask(number, name, rows, self._tiles_of(rows), self._missing_of(rows))

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

    def _tiles_of(self, rows: pa.Table) -> tuple[IndexFile, ...]:
        """Return the files that may hold tiles of some samples."""
        if self.tiles is None or rows.schema.get_field_index("key") < 0:
            return ()
        sides = []
        for axis in ("lon", "lat"):
            if not rows[axis].null_count:
                bounds = pc.min_max(rows[axis]).as_py()
                sides += [Compare((axis,), ">=", bounds["min"]), Compare((axis,), "<=", bounds["max"])]
        parts = frozenset(rows["part"].unique().to_pylist())
        return self.tiles.of_parts(parts).matching(AllOf(tuple(sides))).files

    def _missing_of(self, rows: pa.Table) -> frozenset[str]:
        """Return the keys of shards that are gone of which some samples are."""
        if not self.missing:
            return frozenset()
        there = [m.name for m in self.schema if rows.schema.get_field_index(m.name) >= 0]
        refs = (whole(rows[name]).field("ref") for name in there)
        return self.missing.intersection(key for ref in refs for key in ref.field("key").to_pylist())


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


def _note(file: TextIO, unit: UnitResult) -> None:
    file.write(json.dumps({"unit": unit.name, "n_blocks": unit.n_blocks, "n_bytes": unit.n_bytes}) + "\n")
    file.flush()
