"""The report of a repair: what was put back, what was replaced, and what is left, with what its user can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorbank.verification import Finding, FindingKind

__all__ = ["Left", "RepairReport", "Unrepaired", "left_of"]


class Unrepaired(Exception):  # noqa: N818 - no error: it is told in the report
    """Something cannot be made again."""


@dataclass(frozen=True, slots=True)
class Left:
    """A finding of ``verify`` that was not repaired, and why."""

    kind: str
    key: str
    reason: str


@dataclass(slots=True)
class RepairReport:
    """The result of a repair; with ``dry_run``, what one would do.

    ``repaired`` are keys of objects that were put back as they were: shards, documents, index files. ``replaced`` are keys of
    index files whose rows are in other files now, by one commit; ``version`` shows it. ``n_samples`` are those whose blocks or
    rows were made again.
    """

    table: str
    version: int
    dry_run: bool
    n_findings: int = 0
    n_samples: int = 0
    repaired: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.left


ADVICE: Mapping[str, str] = {
    FindingKind.DAMAGED_LOG: "a log follows from nothing else; put it back from a copy of the bank, or make a table "
    "of an earlier version with `copy`, and ingest again what came later",
    FindingKind.MISSING_PIN: "a log follows from nothing else; put it back from a copy of the bank, or `restore` an "
    "earlier version",
    FindingKind.DAMAGED_TAG: "what it named is not known; remove the object, and tag the version again",
    FindingKind.DAMAGED_LEASE: "leases end by themselves; remove the object, or wait for the reader that renews it",
    FindingKind.STRAY_DELETION: "it does no harm; `tensorbank compact` drops it",
    FindingKind.STRAY_VALUE: "it does no harm; `tensorbank compact` drops values of deleted samples",
    FindingKind.DUPLICATE_VALUE: "which one holds is not known; give the column anew with `add-columns --replace`",
    FindingKind.DUPLICATE_SAMPLE: "which row holds is not known; `delete` the sample and ingest it again",
    FindingKind.UNREADABLE: "the store did not hand it out; run again when it does",
}


def left_of(finding: Finding, why: str = "") -> Left:
    """Return a finding that stays, with the reason or what its user can do."""
    said = why or ADVICE.get(
        finding.kind, "it follows from nothing that is left; `restore` an earlier version"
    )
    return Left(finding.kind, finding.key, f"{finding.reason}; {said}")
