"""The verification of one snapshot: its index as objects and as rows, the objects they lead to, and maybe every block."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tensorbank.arrow_numpy import as_numpy
from tensorbank.bank import Bank
from tensorbank.catalog import COLUMNS_FOLDER, DELETED, KEYS, SORTED_FOLDER, TableVersion
from tensorbank.engines import Executor, ThreadExecutor, Workers, executor_for
from tensorbank.errors import FormatError, IntegrityError, InvalidInputError
from tensorbank.index_files import LOG, IndexFile, LevelFiles
from tensorbank.layout import LEVELS, index_key
from tensorbank.verification.blocks import BlockCheck, BlockSetting, RollUpHistograms
from tensorbank.verification.findings import Finding, FindingKind, VerifyReport
from tensorbank.verification.index_objects import damaged_logs, damaged_notes, file_flaws, missing_pins
from tensorbank.verification.level_rows import LevelRows
from tensorbank.verification.roll_ups import roll_up_flaws
from tensorbank.verification.sample_rows import SampleScan
from tensorbank.verification.sorted_rows import sorted_copy_flaws
from tensorbank.verification.stored_form import StoredForm

__all__ = ["verify"]


def verify(
    bank: Bank,
    table: str,
    *,
    deep: bool = False,
    where: str | None = None,
    sample: float = 1.0,
    resume: Path | None = None,
    n_threads: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Verify a table at the version that the bank shows of it. What is wrong is listed, not raised.

    The index is read whole: logs and checkpoints, the length and checksum of each index file, and the rows of each level against
    those of samples. Of the tensors, the Zarr documents are read, the lengths of shards, and their indices.

    Parameters
    ----------
    deep
        True to read every block as well, compare its checksum, decode it, and make the statistics of samples and tiles anew;
        and the histograms of roll-ups, of shards of which all samples are read.
    where
        Condition in SQL on the samples whose blocks are read.
    sample
        Share of the samples whose blocks are read, always the same ones.
    resume
        File that says which blocks an earlier verification found sound, and is told what this one finds so. Its name should be
        that of the table: what it says holds for index files, whatever the version.
    n_threads
        Threads that read and decode; as many as processors if not given.
    workers
        Workers that read and decode in the place of threads: processes, or those of a Dask cluster. What is found is the same.
    progress
        Function that is called with the number of samples whose blocks were read, and the number of all.

    Raises
    ------
    NotFoundError
        There is no such table.
    InvalidInputError
        The condition is no SQL, what is for blocks only is given without ``deep``, or threads and workers at once.
    StorageError
        The store does not answer.
    TensorBankError
        Workers were lost (``kind`` is ``worker-lost``), or the engine has none that could take tasks (``scheduler-lost``,
        ``no-workers``, ``other-release``). With ``resume``, it goes on there when it runs again.
    """
    if not deep and (where is not None or sample != 1.0 or resume is not None or workers is not None):
        raise InvalidInputError(
            "where, sample, resume and workers are for blocks, which only a deep verification reads"
        )
    if n_threads is not None and workers is not None:
        raise InvalidInputError("blocks are read by threads or by workers; give one of the two")
    if not 0.0 < sample <= 1.0:
        raise InvalidInputError(f"a share of samples lies above 0 and up to 1, got {sample!r}")
    started = time.monotonic()
    catalog = bank.catalog
    report = VerifyReport(table, bank.versions.get(table, -1), deep)
    try:
        version = catalog.version(table, bank.versions.get(table))
    except (IntegrityError, FormatError) as error:
        report.add([Finding(FindingKind.DAMAGED_LOG, f"{index_key(table, 'samples')}/{LOG}", str(error))])
        return report
    report.version = version.version
    check = _SnapshotCheck(bank, version, report)
    if not deep:
        check.index()
    else:
        setting = BlockSetting(catalog.mirror, table, version.schema)
        with closing(
            ThreadExecutor(n_threads or os.cpu_count() or 1, setting)
            if workers is None
            else executor_for(workers, setting)
        ) as executor:
            executor.open()
            check.index()
            check.blocks(_chosen(bank, version, where, sample), resume, executor, progress)
    report.seconds = time.monotonic() - started
    return report


class _SnapshotCheck:
    """The check of one snapshot, which adds what it finds to a report."""

    def __init__(self, bank: Bank, version: TableVersion, report: VerifyReport) -> None:
        self.bank = bank
        self.catalog = bank.catalog
        self.version = version
        self.report = report
        self.table = version.table
        self.is_whole: dict[str, bool] = {}
        """The soundness of all files of a level, by level; levels that cannot be read at all are none of them."""
        self.paths: dict[str, list[str]] = {}
        """The local paths of the sound files, by level."""
        self.sound: dict[str, list[str]] = {}
        """Their keys, by level."""
        self.tiles: LevelFiles | None = None
        """The sound files of tiles."""
        self.missing: set[str] = set()
        self.scan: SampleScan

    def index(self) -> None:
        """Check everything but blocks."""
        report, version, table = self.report, self.version, self.table
        levels = list(dict.fromkeys(["samples", *LEVELS, *(version.pins or {})]))
        report.add(damaged_logs(self.catalog.store, table, levels))
        unpinned = list(missing_pins(self.catalog, version))
        report.add(unpinned)
        lost = {finding.key.removesuffix(f"/{LOG}") for finding in unpinned}
        for level in levels:
            if index_key(table, level) not in lost:
                self._files(level)
        report.add(damaged_notes(self.catalog, version))
        self._rows()

    def _files(self, level: str) -> None:
        """Check the files of a level."""
        files = self.catalog.state(self.version, level).files
        if self.version.pins is None and level != "samples" and self.version.samples.parts is not None:
            files = files.of_parts(self.version.samples.parts)
        flaws = file_flaws(self.catalog, files.files)
        self.report.n_index_files += len(files.files)
        self.is_whole[level] = self.report.add(flaw for flaw in flaws if flaw is not None)
        sound: list[IndexFile] = [f for f, flaw in zip(files.files, flaws, strict=True) if flaw is None]
        self.sound[level] = [file.key for file in sound]
        self.paths[level] = [self.catalog.path(file) for file in sound]
        if level == "tiles":
            self.tiles = files.keeping(np.array([flaw is None for flaw in flaws], np.bool_))

    def _rows(self) -> None:
        """Check the rows of all levels, and the objects that they lead to.

        What cannot be compared since a file of one of two levels is damaged, is not compared.
        """
        report, table, schema = self.report, self.table, self.version.schema
        gone = self.catalog.deleted(self.version) if self.is_whole.get(DELETED) else None
        samples = self.paths["samples"]
        scan = SampleScan(schema, gone, index_key(table, "samples"))
        self.scan = scan
        report.add(scan.read(samples))
        rows = scan.rows
        report.n_samples = int(rows.live.sum())
        report.n_shards = sum(len(use.shards) for use in scan.arrays.values())
        if self.is_whole["samples"] and self.version.pins is not None:
            others = LevelRows(rows, samples, scan.parts)
            for level in (level for level, is_whole in self.is_whole.items() if is_whole):
                folder, paths = index_key(table, level), self.paths[level]
                if level == KEYS:
                    report.add(others.keys(paths, folder))
                elif level == DELETED:
                    report.add(others.deleted(paths, folder))
                elif level == "tiles":
                    report.add(others.tiles(schema, paths, folder))
                elif level.startswith(f"{COLUMNS_FOLDER}/"):
                    name = level.removeprefix(f"{COLUMNS_FOLDER}/")
                    report.add(others.column(name, paths, folder))
                elif level.startswith(f"{SORTED_FOLDER}/"):
                    report.add(sorted_copy_flaws(self.catalog, self.version, level, paths, folder))
                elif level == "shards":
                    used = {key for use in scan.arrays.values() for key in use.shards}
                    report.add(roll_up_flaws(schema, paths, samples, gone, used, folder))
        form = StoredForm(self.catalog.store, schema, scan.arrays)
        report.add(form.documents())
        report.add(form.shards(samples, scan.dead, scan.parts))
        self.missing = form.missing

    def blocks(
        self,
        keys: npt.NDArray[np.int64] | None,
        state: Path | None,
        executor: Executor,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Check blocks, of the samples with some keys or of all."""
        check = BlockCheck(
            self.version.schema,
            list(zip(self.sound["samples"], self.paths["samples"], strict=True)),
            self.tiles,
            RollUpHistograms(
                self.version.schema, self.paths.get("shards", []), index_key(self.table, "shards")
            ),
            frozenset(self.missing),
            self.scan.dead,
            self.scan.parts,
            keys,
            state,
        )
        self.report.add(check.run(self.report, executor, progress))


def _chosen(
    bank: Bank, version: TableVersion, where: str | None, sample: float
) -> npt.NDArray[np.int64] | None:
    """Return the keys of the samples whose blocks are to be read, sorted; None for all."""
    if where is None and sample == 1.0:
        return None
    table = version.table
    condition = f" WHERE {where}" if where is not None else ""
    rows = bank.at({table: version.version}).sql(f'SELECT key FROM "{table}"{condition}').arrow()
    keys = np.sort(as_numpy(rows["key"], 0).astype(np.int64))
    return keys[keys.view(np.uint64) <= np.uint64(int(sample * (2**64 - 1)))] if sample < 1.0 else keys
