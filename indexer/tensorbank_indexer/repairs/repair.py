"""The repair of a table: what ``verify`` names as lost, damaged or wrong is derived again, and whatever cannot be is named.

Shards, documents and index files that come out as they were written are put back under their keys, and no snapshot changes. Rows
that come out in other files are put in place of the old ones by one commit. A second look finds what then follows from what was
put back: tiles from samples, samples from tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tensorbank.bank import Bank
from tensorbank.catalog import COLUMNS_FOLDER, DELETED, KEYS, SORTED_FOLDER, Change, TableVersion
from tensorbank.errors import ConflictError, ErrorKind, TensorBankError
from tensorbank.layout import index_key, place_of_key
from tensorbank.maintenance.sorting import add_sorted_copy, sorted_columns
from tensorbank.verification import Finding, FindingKind, verify
from tensorbank_indexer.repairs.damaged_index import DamagedIndex
from tensorbank_indexer.repairs.level_repairs import (
    repair_deletions,
    repair_keys,
    repair_roll_ups,
    repair_tiles,
)
from tensorbank_indexer.repairs.repair_report import RepairReport, Unrepaired, left_of
from tensorbank_indexer.repairs.sample_repair import repair_samples
from tensorbank_indexer.repairs.shard_repair import refs_of, repair_shard, rows_of_shards
from tensorbank_indexer.repairs.zarr_documents import repair_documents
from tensorbank_indexer.source import Source

__all__ = ["repair"]

OF_SHARDS = frozenset(
    {
        FindingKind.MISSING_SHARD,
        FindingKind.CUT_SHARD,
        FindingKind.DAMAGED_SHARD_INDEX,
        FindingKind.OTHER_SHARD_INDEX,
        FindingKind.DAMAGED_BLOCK,
    }
)
OF_FILES = frozenset({FindingKind.MISSING_INDEX_FILE, FindingKind.DAMAGED_INDEX_FILE})
OF_ROWS = frozenset(
    {
        FindingKind.MISSING_INDEX_FILE,
        FindingKind.DAMAGED_INDEX_FILE,
        FindingKind.WRONG_KEY,
        FindingKind.WRONG_MODALITIES,
        FindingKind.BAD_REF,
        FindingKind.MISSING_TILES,
        FindingKind.STRAY_TILES,
        FindingKind.WRONG_TILES,
        FindingKind.MISSING_ROLL_UP,
        FindingKind.STRAY_ROLL_UP,
        FindingKind.WRONG_ROLL_UP,
        FindingKind.MISSING_KEY,
        FindingKind.EXTRA_KEY,
        FindingKind.WRONG_STATISTICS,
        FindingKind.WRONG_COPY,
    }
)
COLUMN_LOST = "its values follow from nothing; give the column anew with `add-columns --replace`, or `restore` a version"
LEVEL_REPAIRS = {
    DELETED: repair_deletions,
    KEYS: repair_keys,
    "tiles": repair_tiles,
    "shards": repair_roll_ups,
}
MAX_LOOKS = 4
"""The number of times that a table is looked at: samples, levels that follow from them, and what was wrong behind these."""


def repair(
    source: Source | None,
    bank: Bank,
    table: str,
    *,
    deep: bool = True,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RepairReport:
    """Verify a table, and repair what is lost, damaged or wrong. Run again, it does what is left to do.

    Parameters
    ----------
    source
        The archives that the table was made of, or some of them; None if there are none any more.
    deep
        False for a look without the blocks of shards: neither damaged blocks nor wrong statistics are found.
    dry_run
        True to write nothing. Archives are read all the same, since they tell what can be repaired.
    progress
        As for :func:`tensorbank.verification.verify`.

    Raises
    ------
    NotFoundError
        There is no such table.
    ConflictError
        Another writer changed the index files that a commit was to replace; run again.
    StorageError
        The source or the bank is out of reach.
    """
    catalog = bank.catalog
    if not dry_run:
        catalog.mirror.require_writable()
    found = verify(bank, table, deep=deep, progress=progress)
    report = RepairReport(table, found.version, dry_run, len(found.findings))
    work = _Repair(source, bank, report)
    findings: Sequence[Finding] = found.findings
    for _ in range(MAX_LOOKS):
        before = len(report.repaired) + len(report.replaced)
        report.left.clear()
        if findings:
            work.look(findings)
        if dry_run or not report.left or len(report.repaired) + len(report.replaced) == before:
            break
        findings = verify(bank, table, deep=deep, progress=progress).findings
    return report


class _Repair:
    """The repair of one table, which tells its report what it did."""

    def __init__(self, source: Source | None, bank: Bank, report: RepairReport) -> None:
        self.source = source
        self.bank = bank
        self.report = report

    def look(self, findings: Sequence[Finding]) -> None:
        """Repair what some findings tell of the newest version."""
        report = self.report
        try:
            version = self.bank.catalog.version(report.table, self.bank.versions.get(report.table))
        except TensorBankError:
            report.left += map(left_of, findings)  # its log is damaged
            return
        report.left += [
            left_of(f) for f in findings if f.kind not in OF_SHARDS | OF_ROWS | {FindingKind.ZARR_DOCUMENT}
        ]
        self._documents(version, [f for f in findings if f.kind == FindingKind.ZARR_DOCUMENT])
        other = _other_pixels(findings)
        put_off = [f for f in findings if _waits_for(f, other)]
        report.left += [left_of(f, "it is looked at again once its shard is put back") for f in put_off]
        misled: frozenset[str] = frozenset()
        if of_rows := [f for f in findings if f.kind in OF_ROWS and f not in put_off]:
            misled = self._index(version, of_rows)
        of_shards = [f for f in findings if f.kind in OF_SHARDS]
        report.left += [
            left_of(f, "it is looked at again once rows lead to it") for f in of_shards if f.key in misled
        ]
        self._shards(version, [f for f in of_shards if f.key not in misled], other)

    def _documents(self, version: TableVersion, findings: Sequence[Finding]) -> None:
        parts: dict[str, list[Finding]] = {}
        for finding in findings:
            folder = finding.key.removesuffix("/zarr.json")
            parts.setdefault(folder.rpartition("/")[0] if finding.modality else folder, []).append(finding)
        for folder, mine in sorted(parts.items()):
            keys = {finding.key for finding in mine}
            try:
                self.report.repaired += repair_documents(
                    self.bank.catalog, version, folder, keys, self.source, dry_run=self.report.dry_run
                )
            except Unrepaired as error:
                self.report.left += [left_of(f, str(error)) for f in mine]

    def _shards(
        self, version: TableVersion, findings: Sequence[Finding], other: Mapping[str, Sequence[Finding]]
    ) -> None:
        damaged = {f.key: f for f in findings} | {key: some[0] for key, some in other.items()}
        if not damaged:
            return
        catalog, report = self.bank.catalog, self.report
        modalities = {key: f.modality for key, f in damaged.items()}
        rows = rows_of_shards(self.bank, report.table, version.version, version.schema, modalities)
        refs = {}
        if self.source is not None:
            refs = refs_of(self.source, {row["key"] for some in rows.values() for row in some})
        for key, modality in sorted(modalities.items()):
            try:
                n = repair_shard(
                    self.source,
                    catalog.store,
                    key,
                    version.schema,
                    modality,
                    rows[key],
                    refs,
                    frozenset(i for f in other.get(key, ()) for i in f.sample_ids),
                    dry_run=report.dry_run,
                )
            except Unrepaired as error:
                report.left.append(left_of(damaged[key], str(error)))
            else:
                report.repaired.append(key)
                report.n_samples += n

    def _index(self, version: TableVersion, findings: Sequence[Finding]) -> frozenset[str]:
        """Repair files and rows of the index; return the keys of shards that wrong rows make look damaged."""
        report = self.report
        index = DamagedIndex(self.bank.catalog, version, findings, report.dry_run)
        index.from_copies()
        misled: frozenset[str] = frozenset()
        try:
            misled = repair_samples(index, self.source)
        except Unrepaired as error:
            report.left += [left_of(f, str(error)) for f in findings if _level_of(f) == "samples"]
        for level, repair_level in LEVEL_REPAIRS.items():
            try:
                repair_level(index)
            except Unrepaired as error:
                report.left += [left_of(f, str(error)) for f in findings if _level_of(f) == level]
        for finding in findings:
            if f"/index/{COLUMNS_FOLDER}/" in finding.key and finding.key not in index.put_back:
                report.left.append(left_of(finding, COLUMN_LOST))
        self._sorted_copies(version, [f for f in findings if f.key not in index.put_back])
        report.repaired += index.put_back
        if index.changes:
            report.replaced += sorted(f.key for c in index.changes.values() for f in c.removed)
            if not report.dry_run:
                self._commit(index)
        return misled

    def _sorted_copies(self, version: TableVersion, findings: Sequence[Finding]) -> None:
        """Write sorted copies anew that have lost files, or other rows than samples, which is all that they follow from."""
        catalog, report = self.bank.catalog, self.report
        columns = dict(zip(version.sorted_copies, sorted_columns(version, catalog), strict=True))
        for name, column in columns.items():
            folder = index_key(report.table, f"{SORTED_FOLDER}/{name}")
            mine = [f for f in findings if f.key == folder or f.key.startswith(f"{folder}/")]
            if not mine:
                continue
            try:
                if not report.dry_run:
                    report.version = add_sorted_copy(catalog, report.table, column, anew=True).version
            except TensorBankError as error:
                report.left += [left_of(f, str(error)) for f in mine]
            else:
                report.replaced.append(folder)

    def _commit(self, index: DamagedIndex) -> None:
        """Put new index files in the place of others."""
        catalog, table = self.bank.catalog, self.report.table

        def make(head: TableVersion) -> Change:
            for level, change in index.changes.items():
                there = {f.key for f in catalog.state(head, level).files.files}
                if not there.issuperset(f.key for f in change.removed):
                    raise ConflictError(
                        f"another writer changed the files of {level} of {table} meanwhile; run again",
                        kind=ErrorKind.LOST_RACE,
                    )
            told = {level: [len(c.removed), len(c.added)] for level, c in sorted(index.changes.items())}
            return Change("repair", index.changes, {"repaired": told})

        self.report.version = catalog.publish(table, make).version


def _other_pixels(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Return what is found of blocks, by shard, that are sound and neither what samples nor what tiles say: then not these two
    are wrong, but the blocks are others.
    """
    wrong = [f for f in findings if f.kind == FindingKind.WRONG_STATISTICS]
    tiles_lost = any(f.kind in OF_FILES and _level_of(f) == "tiles" for f in findings)
    of_tiles = {(f.key, f.sample_ids) for f in wrong if f.level == "tiles"}
    found: dict[str, list[Finding]] = {}
    for finding in wrong:
        if finding.level == "samples" and (tiles_lost or (finding.key, finding.sample_ids) in of_tiles):
            found.setdefault(finding.key, []).append(finding)
    return found


def _waits_for(finding: Finding, other: Mapping[str, Sequence[Finding]]) -> bool:
    """Tell whether a finding follows from blocks that are others than the index says."""
    if finding.kind == FindingKind.WRONG_STATISTICS:
        return finding.key in other
    numbers = {place_of_key(key)[1] for key in other}
    return finding.kind == FindingKind.WRONG_ROLL_UP and any(n in numbers for _, n in finding.shards)


def _level_of(finding: Finding) -> str:
    """Return the level that a finding is of."""
    if finding.level:
        return finding.level
    return finding.key.partition("/index/")[2].partition("/")[0]
