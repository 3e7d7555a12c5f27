"""What worker processes are asked to do: values that pickle, each with a method that does it. No web framework is needed here."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from tensorbank.bank import Bank
from tensorbank.errors import InvalidInputError

__all__ = ["Describe", "Job", "MakePlan", "PlanMade", "Rows", "Summarize"]


class Job(Protocol):
    """Something to do with the banks of a worker."""

    def do(self, banks: Mapping[str, Bank]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a statement, as an Arrow IPC stream."""

    bank: str
    versions: Mapping[str, int]
    sql: str
    max_bytes: int

    def do(self, banks: Mapping[str, Bank]) -> bytes:
        rows = banks[self.bank].at(self.versions).sql(self.sql).arrow()
        if rows.nbytes > self.max_bytes:
            raise InvalidInputError(
                f"the answer has more than {self.max_bytes:,} bytes; ask for fewer rows or columns"
            )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        encoded: bytes = sink.getvalue().to_pybytes()
        return encoded


@dataclass(frozen=True, slots=True)
class PlanMade:
    """What there is to say of a plan without opening it."""

    fingerprint: str
    n_samples: int
    levels: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class MakePlan:
    """A plan, saved under its fingerprint in a folder. Saving it twice gives the same file."""

    bank: str
    versions: Mapping[str, int]
    sql: str
    folder: Path
    max_samples: int

    def do(self, banks: Mapping[str, Bank]) -> PlanMade:
        plan = banks[self.bank].at(self.versions).sql(self.sql).plan()
        if len(plan) > self.max_samples:
            raise InvalidInputError(f"the plan has {len(plan):,} samples, more than {self.max_samples:,}")
        path = self.folder / f"{plan.fingerprint}.arrow"
        if not path.exists():
            descriptor, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
            os.close(descriptor)
            plan.save(name)
            Path(name).replace(path)
        levels = {level.level: (level.considered, level.kept) for level in plan.source.levels}
        return PlanMade(plan.fingerprint, len(plan), levels)


@dataclass(frozen=True, slots=True)
class Describe:
    """Size and statistics of a table at a version, from its roll-ups, as JSON."""

    bank: str
    table: str
    version: int

    def do(self, banks: Mapping[str, Bank]) -> str:
        table = banks[self.bank].table(self.table).at(self.version)
        snapshot = table.snapshot()
        statistics = {name: asdict(s) for name, s in table.describe().items()}
        size = {name: getattr(snapshot, name) for name in snapshot.__dataclass_fields__}
        return json.dumps({"size": size, "statistics": statistics})


@dataclass(frozen=True, slots=True)
class Summarize:
    """Statistics of modalities over a selection, from the index, as JSON."""

    bank: str
    versions: Mapping[str, int]
    sql: str
    modalities: tuple[str, ...]

    def do(self, banks: Mapping[str, Bank]) -> str:
        query = banks[self.bank].at(self.versions).sql(self.sql)
        return json.dumps({name: asdict(query.statistics(name)) for name in self.modalities})
