"""The report of an ingest, as a value: nothing is dropped without a line in it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field

from tensorbank_indexer.reports.finding_kinds import CHANGES, HARMLESS
from tensorbank_indexer.reports.stage_seconds import StageSeconds
from tensorbank_indexer.source import Finding, Source

__all__ = ["IngestReport"]


@dataclass(slots=True)
class IngestReport:
    """One run of an ingest.

    ``n_added + n_present + n_replaced + n_waiting + n_skipped == n_found``: every sample that was found is committed now, was
    committed before, was written by a task of an array job and waits for its commit, or is left out with a finding that says
    why. ``n_elsewhere`` of those present were committed by another run while
    this one was at work. ``n_changed`` samples come of files that are not those they were ingested from; ``n_replaced`` of them
    were replaced, in whole or in some modalities, and ``n_same`` were found to have the pixels that they had. ``n_moved``
    samples come of the same files under other paths. ``n_resumed`` were written by an earlier run that was interrupted, and
    ``completed`` are parts that one had committed when it was killed. ``choices`` says which codec profiles were chosen and why,
    where that was left to the ingest. ``seconds`` adds up over all workers, ``elapsed_s`` is on the wall.
    """

    source: str
    table: str
    format: str
    parts: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    n_archives: int = 0
    n_found: int = 0
    n_added: int = 0
    n_present: int = 0
    n_elsewhere: int = 0
    n_changed: int = 0
    n_replaced: int = 0
    n_same: int = 0
    n_moved: int = 0
    n_waiting: int = 0
    n_resumed: int = 0
    tensor_bytes: int = 0
    stored_bytes: int = 0
    elapsed_s: float = 0.0
    seconds: StageSeconds = field(default_factory=StageSeconds)
    choices: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def of(cls, source: Source, table: str) -> IngestReport:
        """Return an empty report, to be filled by a run."""
        return cls(source.root, table, source.format)

    @property
    def n_skipped(self) -> int:
        return self.n_found - self.n_added - self.n_present - self.n_replaced - self.n_waiting

    @property
    def harmful(self) -> list[Finding]:
        """The findings that ``strict`` does not let pass."""
        return [f for f in self.findings if f.kind not in HARMLESS]

    def summary(self) -> str:
        """Return one line for the screen."""
        kinds = Counter(f.kind for f in self.findings)
        rate = (self.n_added + self.n_waiting) / self.elapsed_s if self.elapsed_s else 0.0
        parts = [f"{self.table}: {self.n_added} samples added"]
        if self.n_waiting:
            parts.append(f"{self.n_waiting} written, which wait for `tensorbank commit`")
        if self.n_present - self.n_elsewhere:
            parts.append(f"{self.n_present - self.n_elsewhere} were there already")
        if self.n_moved:
            parts.append(f"{self.n_moved} of these come from other paths, the same files")
        if self.n_replaced:
            parts.append(f"{self.n_replaced} were replaced")
        if self.n_same:
            parts.append(f"{self.n_same} have the pixels that they had")
        if self.n_elsewhere:
            parts.append(f"{self.n_elsewhere} were added by another ingest meanwhile")
        if self.n_skipped:
            parts.append(f"{self.n_skipped} left out")
        if self.n_resumed:
            parts.append(f"{self.n_resumed} of them written by an earlier run, which this one completes")
        if self.completed:
            parts.append(
                f"an earlier run, which was killed after its commit, is completed: {', '.join(self.completed)}"
            )
        if self.n_added or self.n_waiting:
            parts.append(f"{self.tensor_bytes / 1e6:,.0f} MB as {self.stored_bytes / 1e6:,.0f} MB")
            parts.append(f"{rate:.1f} samples/s")
        if kinds:
            parts.append("findings: " + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))
        return "; ".join(parts)

    def changes(self) -> list[str]:
        """Return one line for each file of the source that is not the one that was ingested."""
        return [f"{f.kind}: {f.reason}; {f.action}" for f in self.findings if f.kind in CHANGES]

    def to_json(self) -> str:
        """Return the whole report."""
        record = asdict(self) | {"n_skipped": self.n_skipped}
        return json.dumps(record, indent=1)
