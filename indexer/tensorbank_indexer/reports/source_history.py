"""Files of a source as they were when they were ingested, and what has changed since."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorbank.catalog import Catalog, part_attributes
from tensorbank.errors import NotFoundError
from tensorbank_indexer.reports.live_rows import live_rows
from tensorbank_indexer.source import Archive, Finding, SampleRef, Scan, SourceFile

__all__ = ["CHANGES", "SourceChanges", "SourceHistory"]

CHANGES = {
    "changed-source": "what the table has of it stays as it was; --refresh replaces it",
    "new-source-file": "not added to samples that the table has already; --refresh adds it",
}
"""The kinds of findings about files that changed after their samples were ingested, and what was done."""
REFRESHED = "the samples of it are replaced"


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """The changes of some archives since their samples were ingested: findings, and the samples that other files give now."""

    findings: tuple[Finding, ...] = ()
    stale: tuple[SampleRef, ...] = ()


class SourceHistory:
    """The ETags of the files that parts of a table were made of, read when a sample of the part is met again."""

    def __init__(self, catalog: Catalog, table: str) -> None:
        self.catalog = catalog
        self.table = table
        self._by_part: dict[str, Mapping[str, str]] = {}

    def changes(
        self, scans: Sequence[Scan], present: Sequence[SampleRef], *, refresh: bool = False
    ) -> SourceChanges:
        """Return what has changed in archives of which samples were in the table before: files that are other ones now, or new.

        ETags are compared, or where the store has none times and sizes; the files are not read.

        Parameters
        ----------
        refresh
            True if the stale samples will be replaced, as the findings then say.
        """
        if not present:
            return SourceChanges()
        etags = self._etags(present)
        counted = Counter((ref.split, ref.archive) for ref in present)
        findings = []
        for archive in (s.archive for s in scans):
            n = counted[archive.split, archive.name]
            known = [file for file in archive.files if file.path in etags]
            if not n or not known:  # of another root, say, so that there is nothing to compare with
                continue
            found = (_change(archive, file, etags, n, refresh=refresh) for file in archive.files)
            findings += [finding for finding in found if finding is not None]
        names = {(finding.archive, finding.modality) for finding in findings}
        stale = tuple(
            ref
            for ref in present
            if any(
                (ref.archive, name) in names and member.etag not in etags.get(member.path, ())
                for name, member in ref.members.items()
            )
        )
        return SourceChanges(tuple(findings), stale)

    def _etags(self, present: Sequence[SampleRef]) -> dict[str, set[str]]:
        """Return the ETags by path of the files that the parts of some samples were made of."""
        rows = live_rows(self.catalog, self.catalog.version(self.table), present)
        found: defaultdict[str, set[str]] = defaultdict(set)
        for part in sorted(set(rows["part"].to_pylist())):
            if part not in self._by_part:
                self._by_part[part] = self._of_part(part)
            for path, etag in self._by_part[part].items():
                found[path].add(etag)
        return dict(found)

    def _of_part(self, part: str) -> Mapping[str, str]:
        try:
            folder = self.catalog.part_folder(self.catalog.version(self.table), part)
            etags: Mapping[str, str] = part_attributes(self.catalog.store, folder, part)["source_etags"]
        except (NotFoundError, KeyError):
            return {}  # a part of another writer, which does not name its files
        return etags


def _change(
    archive: Archive, file: SourceFile, etags: Mapping[str, set[str]], n_present: int, *, refresh: bool
) -> Finding | None:
    before = etags.get(file.path)
    if before is not None and file.etag in before:
        return None
    if before is None:
        kind = "new-source-file"
        reason = f"{file.path} was not there when {n_present} samples of its archive were ingested"
    else:
        kind = "changed-source"
        reason = (
            f"{file.path} is another file ({file.etag}) than the one ({', '.join(sorted(before))}) of which the table "
            f"has {n_present} samples"
        )
    return Finding(
        kind, archive.name, reason, REFRESHED if refresh else CHANGES[kind], modality=file.modality
    )
