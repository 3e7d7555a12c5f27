"""The report of a change of one modality, as a value."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field

from tensorbank_indexer.reports import HARMLESS, StageSeconds
from tensorbank_indexer.source import Finding

__all__ = ["ModalityReport"]


@dataclass(slots=True)
class ModalityReport:
    """One run of a change.

    ``n_given + n_kept + n_without`` is the number of samples of the table: those that have new pixels now, those that keep
    what they had, and those that lack the modality. ``n_same`` of those given have the pixels that they had, so that nothing was
    written for them but where they come from. ``n_unknown`` samples of the source are none of the table's. ``version`` is
    that of the table; ``changed`` is False if there was nothing left to do. ``seconds`` adds up over all workers.
    """

    operation: str
    table: str
    modality: str
    source: str
    version: int = 0
    changed: bool = False
    n_given: int = 0
    n_same: int = 0
    n_kept: int = 0
    n_without: int = 0
    n_unknown: int = 0
    n_resumed: int = 0
    tensor_bytes: int = 0
    stored_bytes: int = 0
    parts: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0
    seconds: StageSeconds = field(default_factory=StageSeconds)
    findings: list[Finding] = field(default_factory=list)

    @property
    def harmful(self) -> list[Finding]:
        """The findings that ``strict`` does not let pass."""
        return [f for f in self.findings if f.kind not in HARMLESS]

    def summary(self) -> str:
        """Return one line for the screen."""
        told = [
            f"{self.table}: {self.modality} of {self.n_given} samples "
            + ("stored" if self.changed else "to store")
        ]
        if self.n_resumed:
            told.append(f"{self.n_resumed} of them written by an earlier run, which this one completes")
        if self.n_same:
            told.append(f"{self.n_same} have the pixels that they had")
        if self.n_kept:
            told.append(f"{self.n_kept} keep what they had")
        if self.n_without:
            told.append(f"{self.n_without} have none")
        if self.n_unknown:
            told.append(f"{self.n_unknown} of the source are not in the table")
        told.append(
            f"version {self.version}" if self.changed else f"nothing to change at version {self.version}"
        )
        kinds = Counter(f.kind for f in self.findings)
        if kinds:
            told.append("findings: " + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))
        return "; ".join(told)

    def to_json(self) -> str:
        """Return the whole report."""
        return json.dumps(asdict(self), indent=1)
