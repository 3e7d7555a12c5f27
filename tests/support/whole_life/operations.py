"""Operations of writers and maintainers: each runs on a bank, and says of the model what may come of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, combinations
from typing import Protocol
from unittest import mock

import pyarrow as pa

import tensorbank as tb
from support.tiny_source import TinySource
from support.whole_life.model import Sample, State, name_of
from tensorbank.errors import ErrorKind
from tensorbank.removal import GRACE, collect
from tensorbank.retention import Lease, Owner, lease_key
from tensorbank_indexer import IngestOptions, add_modality, ingest, replace_modality

__all__ = [
    "NAMES",
    "TABLE",
    "AddModality",
    "AddSortedCopy",
    "Collect",
    "Compact",
    "Copy",
    "Delete",
    "DropColumn",
    "DropModality",
    "DropSortedCopy",
    "Hold",
    "Ingest",
    "Operation",
    "Outcome",
    "PutColumn",
    "Refresh",
    "Rename",
    "ReplaceModality",
    "Restore",
]

TABLE = "t"
"""The first name of the table."""
NAMES = (TABLE, "u", "v")
"""The names that it may get."""
INLINE = IngestOptions(n_workers=1, samples_per_shard=2, n_tiles=2)
Outcome = State | str
"""The ends that an operation may come to: a new version that holds a state, :data:`NOTHING`, or an error of a kind."""
NOTHING = "nothing"


class Operation(Protocol):
    """The change that a writer makes, as one commit or none."""

    @property
    def word(self) -> str:
        """The word for it in the history; several, if it depends on what is there already."""
        ...

    def run(self, bank: tb.Bank, table: str) -> None:
        """Do it."""
        ...

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        """Return what may come of it, if it began at one state, and the head is another when it commits."""
        ...


@dataclass(frozen=True)
class Ingest:
    """An ingest of an edition of an archive; what the table has already is left out."""

    first: int
    n: int
    edition: int = 1
    both: bool = False

    word = "ingest"

    @property
    def modalities(self) -> tuple[str, ...]:
        return ("DEM", "S1RTC") if self.both else ("DEM",)

    def run(self, bank: tb.Bank, table: str) -> None:
        ingest(TinySource(self.n, self.first, self.edition, self.modalities), bank, table, INLINE)

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        numbers = range(self.first, self.first + self.n)
        found: list[Outcome] = []
        for seen in (head, start):  # what is new is decided before all is read
            new = {
                n: Sample(dict.fromkeys(self.modalities, self.edition))
                for n in numbers
                if n not in seen.samples
            }
            if new.keys() & head.samples.keys():
                continue
            found.append(head.with_samples(new) if new else NOTHING)
        return found


@dataclass(frozen=True)
class Refresh:
    """An ingest of an edition of an archive, which also replaces modalities that another edition gave: two commits at most."""

    first: int
    n: int
    edition: int
    both: bool = False

    word = "refresh, ingest"

    @property
    def modalities(self) -> tuple[str, ...]:
        return ("DEM", "S1RTC") if self.both else ("DEM",)

    def run(self, bank: tb.Bank, table: str) -> None:
        source = TinySource(self.n, self.first, self.edition, self.modalities)
        ingest(source, bank, table, replace(INLINE, refresh=True))

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        ingested = Ingest(self.first, self.n, self.edition, self.both).outcomes(start, head, versions)
        there = [n for n in range(self.first, self.first + self.n) if n in head.samples]
        other = [
            (n, m) for n in there for m in self.modalities if head.samples[n].editions.get(m) != self.edition
        ]
        refreshed: list[Outcome] = []
        sizes = [len(other)] if start == head else range(1, len(other) + 1)
        for some in chain.from_iterable(combinations(other, size) for size in sizes):
            editions = {n: dict(head.samples[n].editions) for n, _ in some}
            for n, modality in some:
                editions[n][modality] = self.edition
            changed = {n: Sample(e) for n, e in editions.items()}
            # New samples come before, in a commit of their own, or together with those of which all has changed.
            for base in (head, *(state for state in ingested if isinstance(state, State))):
                refreshed.append(base.with_samples(changed))
        return [*ingested, *refreshed, *([] if start == head and other else [NOTHING, head])]


@dataclass(frozen=True)
class PutColumn:
    """Values of a column that is added, replaced or updated."""

    column: str
    numbers: tuple[int, ...]
    seed: int
    mode: str = "add"

    @property
    def word(self) -> str:
        return f"{self.mode}-columns"

    @property
    def values(self) -> dict[int, float]:
        return {n: float(1000 * self.seed + n) for n in self.numbers}

    def run(self, bank: tb.Bank, table: str) -> None:
        rows = pa.table(
            {
                "sample_id": pa.array([name_of(n) for n in self.values], pa.string()),
                self.column: pa.array(list(self.values.values()), pa.float64()),
            }
        )
        opened = bank.table(table)
        if self.mode == "update":
            opened.update_columns(rows)
        else:
            opened.add_columns(rows, replace=self.mode == "replace")

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        there = self.column in head.values
        if self.mode == "update" and not there:
            return [ErrorKind.NOT_FOUND]
        if self.mode == "add" and there:
            return [ErrorKind.BAD_NAME]
        if not {*self.numbers} <= {*head.samples}:
            return [ErrorKind.UNKNOWN_SAMPLE]
        kept = head.values[self.column] if self.mode == "update" else {}
        return [replace(head, values={**head.values, self.column: {**kept, **self.values}})]


@dataclass(frozen=True)
class DropColumn:
    """A column that goes."""

    column: str
    word = "drop-columns"

    def run(self, bank: tb.Bank, table: str) -> None:
        bank.table(table).drop_columns([self.column])

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        if self.column not in head.values:
            return [ErrorKind.NOT_FOUND]
        return [replace(head, values={c: v for c, v in head.values.items() if c != self.column})]


@dataclass(frozen=True)
class Delete:
    """A deletion of some samples."""

    numbers: tuple[int, ...]
    word = "delete"

    def run(self, bank: tb.Bank, table: str) -> None:
        names = ", ".join(f"'{name_of(n)}'" for n in self.numbers)
        bank.table(table).delete(f"sample_id IN ({names})")

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        gone = {*self.numbers} & {*head.samples}
        return [head.without(gone) if gone else NOTHING]


@dataclass(frozen=True)
class Restore:
    """A restoration of an earlier version, counted back from the newest one when it begins."""

    version: int
    word = "restore"

    def run(self, bank: tb.Bank, table: str) -> None:
        bank.table(table).restore(self.version)

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        wanted = versions[self.version]
        return [wanted, NOTHING] if wanted == head else [wanted]


def placed(head: State, first: int, n: int) -> set[int]:
    """Return which samples of an archive can be given a modality: those that have one, which tells their row of the tensors."""
    return {i for i in range(first, first + n) if i in head.samples and head.samples[i].editions}


@dataclass(frozen=True)
class ReplaceModality:
    """A modality of some samples by that of another edition."""

    modality: str
    first: int
    n: int
    edition: int
    word = "replace-modality"

    def run(self, bank: tb.Bank, table: str) -> None:
        source = TinySource(self.n, self.first, self.edition, (self.modality,))
        replace_modality(source, bank, table, self.modality, INLINE)

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        numbers = placed(head, self.first, self.n)
        if self.modality not in head.modalities or not numbers:
            return [ErrorKind.NOT_FOUND, ErrorKind.UNKNOWN_MODALITY, ErrorKind.UNKNOWN_SAMPLE]
        found: list[Outcome] = []
        for seen in (head, start):
            new = {
                n: Sample({**head.samples[n].editions, self.modality: self.edition})
                for n in sorted(numbers & {*head.samples} & {*seen.samples})
                if seen.samples[n].editions.get(self.modality) != self.edition
            }
            found.append(head.with_samples(new))  # another archive may hold the same
            found += [] if new else [NOTHING]
        return found


@dataclass(frozen=True)
class AddModality:
    """A modality for samples that lack it."""

    modality: str
    first: int
    n: int
    edition: int
    word = "add-modality"

    def run(self, bank: tb.Bank, table: str) -> None:
        source = TinySource(self.n, self.first, self.edition, (self.modality,))
        add_modality(source, bank, table, self.modality, INLINE)

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        numbers = placed(head, self.first, self.n)
        if not numbers:
            return [ErrorKind.NOT_FOUND, ErrorKind.UNKNOWN_SAMPLE, NOTHING]
        found: list[Outcome] = []
        for seen in (head, start):
            lacking = [
                n
                for n in sorted(numbers & {*head.samples} & {*seen.samples})
                if self.modality not in seen.samples[n].editions
                and self.modality not in head.samples[n].editions
            ]
            new = {n: Sample({**head.samples[n].editions, self.modality: self.edition}) for n in lacking}
            found.append(head.with_samples(new) if new else NOTHING)
        return found


@dataclass(frozen=True)
class DropModality:
    """A modality that goes."""

    modality: str
    word = "drop-modality"

    def run(self, bank: tb.Bank, table: str) -> None:
        bank.table(table).drop_modality(self.modality)

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        if self.modality not in head.modalities:
            return [NOTHING, ErrorKind.UNKNOWN_MODALITY]  # the first one if it was dropped before
        if len(head.modalities) == 1:
            return [ErrorKind.INVALID_INPUT]
        samples = {
            n: Sample({m: e for m, e in s.editions.items() if m != self.modality})
            for n, s in head.samples.items()
        }
        return [
            replace(head, samples=samples, modalities=tuple(m for m in head.modalities if m != self.modality))
        ]


@dataclass(frozen=True)
class Collect:
    """A collection of garbage: versions go but the newest and those with tags or leases.

    ``before`` is the time, since 1970, up to which everything is old; if not given, that is a while from now, so that nobody
    else may be writing.
    """

    before: float | None = None
    word = "gc"

    def run(self, bank: tb.Bank, table: str) -> None:
        if self.before is None:
            collect(bank.catalog, dry_run=False, now=datetime.now(UTC) + 2 * GRACE)
        else:
            now = datetime.fromtimestamp(self.before, UTC)
            collect(bank.catalog, dry_run=False, now=now, older_than=timedelta(0))

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        return [NOTHING]


@dataclass(frozen=True)
class Hold:
    """A lease on a version for longer than any life takes; one of the same name gives way to it."""

    name: str
    version: int
    word = "lease"

    def run(self, bank: tb.Bank, table: str) -> None:
        now = datetime.now(UTC)
        table_id = bank.catalog.version(table).samples.table_id
        lease = Lease(self.name, table_id, (self.version,), now, now + 9 * GRACE, Owner("", "", 0, "a test"))
        bank.catalog.store.put(lease_key(table, self.name), lease.to_bytes())

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        return [NOTHING]


@dataclass(frozen=True)
class Copy:
    """A copy of a version under another name."""

    version: int
    new: str
    word = "copy"

    def run(self, bank: tb.Bank, table: str) -> None:
        bank.copy(table, self.new, version=self.version)

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        return [NOTHING]


@dataclass(frozen=True)
class Rename:
    """Another name for the table."""

    new: str
    word = "rename"

    def run(self, bank: tb.Bank, table: str) -> None:
        if table != self.new:
            bank.rename(table, self.new)

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        return [head, NOTHING]


def small_copies() -> AbstractContextManager[object]:
    """Write sorted copies of a file a row, so that even the copy of four samples is read."""
    return mock.patch("tensorbank.maintenance.sorting.sorted_copies.FILE_ROWS", 1)


@dataclass(frozen=True)
class AddSortedCopy:
    """A copy of samples sorted by a column; after it all is as before."""

    column: str
    word = "sort"

    def run(self, bank: tb.Bank, table: str) -> None:
        with small_copies():
            bank.table(table).add_sorted_copy(self.column)

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        return [head, NOTHING]


@dataclass(frozen=True)
class DropSortedCopy:
    """A copy that goes; after it all is as before."""

    column: str
    word = "drop-sorted-copy"

    def run(self, bank: tb.Bank, table: str) -> None:
        bank.table(table).drop_sorted_copy(self.column)

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        return [head, ErrorKind.NOT_FOUND]


@dataclass(frozen=True)
class Compact:
    """A compaction, which may write shards anew, and then sorted copies by a commit each; after it all is as before."""

    rewrite_shards: bool = False
    word = "compact, sort"

    def run(self, bank: tb.Bank, table: str) -> None:
        with small_copies():
            bank.table(table).compact(rewrite_shards=self.rewrite_shards)

    def outcomes(self, start: State, head: State, versions: Sequence[State]) -> list[Outcome]:
        return [head, NOTHING]
