"""The origins of the pixels of a change: archives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tensorbank.catalog import key_of
from tensorbank.engines import Executor
from tensorbank.errors import ErrorKind, NotFoundError, nearest
from tensorbank.schema import Modality
from tensorbank_indexer.guarded_source import scan_ahead
from tensorbank_indexer.modality_changes.group_task import GroupTask, run
from tensorbank_indexer.modality_changes.table_rows import TableRows
from tensorbank_indexer.options import IngestOptions
from tensorbank_indexer.parts import Progress, ShardResult
from tensorbank_indexer.schema_survey import survey
from tensorbank_indexer.source import Finding, MemberAddress, SampleRef, Source

__all__ = ["Origin", "SourceOrigin"]


class Origin(Protocol):
    """The origin of the pixels of one modality."""

    name: str
    """A text that tells where the pixels come from."""
    format: str
    revision: str
    inputs: tuple[str, ...]
    """The modalities of the table that the pixels are made of."""
    attributes: Mapping[str, str]
    """Attributes of every copy: ``licence``, ``references``, ``attribution``."""
    findings: list[Finding]
    n_unknown: int
    """The number of samples that the origin has and the table has not, as of the last :meth:`having`."""

    def require(self) -> None:
        """Raise NotFoundError if there is nothing of the modality."""
        ...

    def modality(self) -> Modality:
        """Return the modality as the origin has it."""
        ...

    def having(self, rows: TableRows) -> npt.NDArray[np.int64]:
        """Return the numbers of the rows that the origin has pixels for."""
        ...

    def address(self, key: int) -> MemberAddress:
        """Return what rows say of the origin of a sample's pixels."""
        ...

    def results(
        self, tasks: Sequence[GroupTask], wanted: Sequence[Sequence[int]]
    ) -> Generator[ShardResult, None, None]:
        """Yield the results of tasks as they come; ``wanted`` are the numbers of the rows of each that are given pixels."""
        ...

    def etags(self) -> Mapping[str, str]:
        """Return the ETag of each file, by path."""
        ...


class SourceOrigin:
    """The members of one modality in the archives of a source, about 1 kB of memory each."""

    inputs: tuple[str, ...] = ()

    def __init__(self, source: Source, name: str, options: IngestOptions, executor: Executor) -> None:
        self.source = source
        self.modality_name = name
        self.name = source.root
        self.format = source.format
        self.attributes = source.attributes
        self.revision = options.revision or ""
        self.executor = executor
        self.n_unknown = 0
        self.findings: list[Finding] = []
        self._refs: dict[int, SampleRef] = {}
        self._files: dict[str, str] = {}
        self._others: Counter[str] = Counter()

    @classmethod
    def scanned(
        cls, source: Source, name: str, options: IngestOptions, executor: Executor, progress: Progress
    ) -> SourceOrigin:
        """Return the members of a modality in all archives of a source."""
        origin = cls(source, name, options, executor)
        archives, findings = source.archives()
        origin.findings += findings
        for number, scanned in enumerate(scan_ahead(source, archives)):
            progress("scan", number + 1, len(archives))
            # What other modalities lack is none of this change's business.
            origin.findings += [f for f in scanned.findings if f.modality in ("", name)]
            origin._files |= {f.path: f.etag for f in scanned.archive.files if f.modality in ("", name)}
            for ref in scanned.samples:
                origin.add(ref)
        return origin

    @property
    def n_samples(self) -> int:
        """The number of samples whose members it holds."""
        return len(self._refs)

    def add(self, ref: SampleRef) -> None:
        """Add the member of one sample, unless it has none or was added."""
        if self.modality_name not in ref.members:
            self._others.update(list(ref.members))
            return
        key = key_of(ref.split, ref.sample_id)
        if key in self._refs:
            reason = f"{ref.stem} (sample {ref.sample_id}) occurs more than once in split {ref.split}"
            self.findings.append(
                Finding(
                    "duplicate-sample",
                    ref.archive,
                    reason,
                    "the first one kept, this one left out",
                    ref.stem,
                    self.modality_name,
                )
            )
            return
        member = ref.members[self.modality_name]
        self._files[member.path] = member.etag
        self._refs[key] = replace(ref, members={self.modality_name: member})

    def require(self) -> None:
        """Raise NotFoundError if no archive has the modality."""
        if not self._refs:
            others = sorted(self._others)
            raise NotFoundError(
                f"{self.name} has no sample with {self.modality_name}.{nearest(self.modality_name, others)} "
                f"It has {', '.join(others) or 'nothing that can be read'}",
                kind=ErrorKind.UNKNOWN_MODALITY,
            )

    def modality(self) -> Modality:
        """Return the modality, from a look at the first samples; FormatError if none of them could be read."""
        return survey(self.source, self._refs.values())[self.modality_name]

    def having(self, rows: TableRows) -> npt.NDArray[np.int64]:
        """Return the numbers of the samples that the archives have, too."""
        known = np.fromiter(self._refs, np.int64, len(self._refs))
        found = np.flatnonzero(rows.live & (rows.row >= 0) & np.isin(rows.key, known))
        there = set(rows.key[rows.live].tolist())
        unknown = [ref for key, ref in self._refs.items() if key not in there]
        self.n_unknown = len(unknown)
        self.findings = [f for f in self.findings if f.kind != "unknown-sample"]
        for archive, n in sorted(Counter(ref.archive for ref in unknown).items()):
            first = next(ref for ref in unknown if ref.archive == archive)
            reason = f"{n} samples are not in the table, such as {first.sample_id}"
            self.findings.append(
                Finding("unknown-sample", archive, reason, "left out", first.stem, self.modality_name)
            )
        return found

    def address(self, key: int) -> MemberAddress:
        """Return the member of a sample."""
        return self._refs[key].members[self.modality_name]

    def results(
        self, tasks: Sequence[GroupTask], wanted: Sequence[Sequence[int]]
    ) -> Generator[ShardResult, None, None]:
        """Yield the results of tasks, from the executor."""
        chosen = [
            replace(task, refs=self._chosen(task, numbers))
            for task, numbers in zip(tasks, wanted, strict=True)
        ]
        yield from self.executor.execute(chosen, run)

    def _chosen(self, task: GroupTask, numbers: Sequence[int]) -> tuple[tuple[int, SampleRef], ...]:
        return tuple((n, self._refs[task.rows[n].key]) for n in numbers)

    def etags(self) -> Mapping[str, str]:
        """Return the ETags of the files that have the modality."""
        return dict(sorted(self._files.items()))
