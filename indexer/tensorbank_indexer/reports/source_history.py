"""Files of a source as they were when they were ingested, and what has changed since."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from tensorbank.bank import Bank
from tensorbank.catalog import part_attributes
from tensorbank.errors import NotFoundError
from tensorbank_indexer.source import Archive, Finding, SampleRef, Scan, SourceFile

__all__ = ["CHANGES", "SourceHistory"]

CHANGES = {
    "changed-source": "what the table has of it stays as it was",
    "new-source-file": "not added to samples that the table has already",
}
"""The kinds of findings about files that changed after their samples were ingested, and what was done."""


class SourceHistory:
    """The ETags of the files that the parts of a table were made of, read when they are first asked for."""

    def __init__(self, bank: Bank, table: str) -> None:
        self.bank = bank
        self.table = table
        self._etags: dict[str, set[str]] | None = None

    def parts(self) -> list[str]:
        """Return the committed parts of the table; none if there is no such table."""
        try:
            return list(self.bank.table(self.table).parts())
        except NotFoundError:
            return []

    def changes(self, scans: Sequence[Scan], present: Sequence[SampleRef]) -> list[Finding]:
        """Return findings about archives of which samples were in the table before: files that are other ones now, or new.

        ETags are compared, or where the store has none times and sizes; the files are not read.
        """
        n_present = Counter((ref.split, ref.archive) for ref in present)
        if not n_present:
            return []
        found = []
        for archive in (s.archive for s in scans):
            n = n_present[archive.split, archive.name]
            known = [file for file in archive.files if file.path in self.etags]
            if not n or not known:  # of another root, say, so that there is nothing to compare with
                continue
            found += [f for file in archive.files if (f := self._change(archive, file, n)) is not None]
        return found

    @property
    def etags(self) -> dict[str, set[str]]:
        """The ETags by path."""
        if self._etags is None:
            self._etags = defaultdict(set)
            store = self.bank.catalog.store
            for part in self.parts():
                try:
                    etags = part_attributes(store, self.table, part)["source_etags"]
                except (NotFoundError, KeyError):
                    continue  # a part of another writer, which does not name its files
                for path, etag in etags.items():
                    self._etags[path].add(etag)
            self._etags = dict(self._etags)
        return self._etags

    def _change(self, archive: Archive, file: SourceFile, n_present: int) -> Finding | None:
        before = self.etags.get(file.path)
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
        return Finding(kind, archive.name, reason, CHANGES[kind], modality=file.modality)
