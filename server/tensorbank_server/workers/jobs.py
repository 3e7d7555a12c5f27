"""Jobs of worker processes: values that pickle, each with a method that does it. They need no web framework."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa

from tensorbank.bank import Bank
from tensorbank.errors import InvalidInputError, StorageError
from tensorbank.plans import Plan
from tensorbank.storage import of_system

__all__ = ["Describe", "Job", "MakePlan", "PlanMade", "Rows", "Summarize"]

Answer_co = TypeVar("Answer_co", covariant=True)


class Job(Protocol[Answer_co]):
    """A job that a worker does with one of its banks."""

    @property
    def bank(self) -> str: ...

    def do(self, banks: Mapping[str, Bank]) -> Answer_co: ...


@dataclass(frozen=True, slots=True)
class Rows:
    """A job that returns the rows of a statement, as an Arrow IPC stream."""

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
    """The facts about a plan that are known without opening it.

    Parameters
    ----------
    fingerprint
        The planner's fingerprint: the same as of the same query of a bank that was opened directly.
    n_requests
        Reads of one shuffled epoch.
    sample_sha256
        SHA-256 of the sample ids in the plan's order, each closed by a line break;
        None if ids are not among its columns.
    levels
        Numbers considered and kept, by level of the index.
    """

    fingerprint: str
    n_samples: int
    n_shards: int
    read_bytes: int
    tensor_bytes: int
    n_requests: int
    sample_sha256: str | None
    levels: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class MakePlan:
    """A job that makes a plan and saves it to a file, which appears at once or not at all."""

    bank: str
    versions: Mapping[str, int]
    sql: str
    path: Path
    max_samples: int
    by_date: bool = False

    def do(self, banks: Mapping[str, Bank]) -> PlanMade:
        plan = banks[self.bank].at(self.versions).sql(self.sql).plan(by_date=self.by_date)
        if len(plan) > self.max_samples:
            raise InvalidInputError(f"the plan has {len(plan):,} samples, more than {self.max_samples:,}")
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, suffix=".part")
        os.close(descriptor)
        try:
            plan.save(name)
            Path(name).replace(self.path)
        except BaseException as error:
            Path(name).unlink(missing_ok=True)
            # a full disk is told from an object store that fails
            if isinstance(error, StorageError) and error.__cause__ is not None:
                raise of_system(error.__cause__, "the plan cannot be kept") or error from error.__cause__
            raise
        return PlanMade(
            fingerprint=plan.fingerprint,
            n_samples=len(plan),
            n_shards=len({key for h in plan.handles for key in plan.addresses[h.name].shard_keys}),
            read_bytes=plan.read_bytes,
            tensor_bytes=plan.tensor_bytes,
            n_requests=plan.n_reads,
            sample_sha256=_sha256_of_ids(plan),
            levels={level.level: (level.considered, level.kept) for level in plan.source.levels},
        )


def _sha256_of_ids(plan: Plan) -> str | None:
    if "sample_id" not in plan.metadata_columns:
        return None
    digest = hashlib.sha256()
    for chunk in plan.table["sample_id"].chunks:
        digest.update("".join(f"{i}\n" for i in chunk.to_pylist()).encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Describe:
    """A job that returns the size and statistics of a table at a version, from its roll-ups, as JSON."""

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
    """A job that returns the statistics of modalities over a selection, from the index, as JSON."""

    bank: str
    versions: Mapping[str, int]
    sql: str
    modalities: tuple[str, ...]

    def do(self, banks: Mapping[str, Bank]) -> str:
        query = banks[self.bank].at(self.versions).sql(self.sql)
        return json.dumps({name: asdict(query.statistics(name)) for name in self.modalities})
