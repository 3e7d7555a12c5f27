"""Finished tasks of array jobs: which of them have ended well, so that a commit can tell which have not.

A job is known by its source and its number of tasks. A task takes back its word when it begins, and gives it when it ends; the
words stay when all is committed, and go with the garbage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from tensorbank.storage import Store
from tensorbank_indexer.array_jobs.finished_part import sealed, unsealed
from tensorbank_indexer.options import ArrayTask
from tensorbank_indexer.parts import checkpoint

__all__ = ["FinishedTask", "Job", "unfinished"]

PREFIX = "tasks-"
"""The beginning of the names of jobs' folders, which lie beside the checkpoints of parts."""


@dataclass(frozen=True, slots=True, order=True)
class Job:
    """An array job: the root of its source, and the number of its tasks."""

    source: str
    n_tasks: int

    def folder(self, table: str) -> str:
        """Return the folder of what its tasks say."""
        digest = hashlib.sha256(f"{self.source}\0{self.n_tasks}".encode()).hexdigest()[:16]
        return checkpoint.folder_of(table, f"{PREFIX}{digest}")


@dataclass(frozen=True, slots=True)
class FinishedTask:
    """The word of a task that it has written all parts of its archives."""

    source: str
    number: int
    n_tasks: int

    @classmethod
    def of(cls, source: str, task: ArrayTask) -> FinishedTask:
        """Return the word of a task on a source."""
        return cls(source, task.number, task.n_tasks)

    def give(self, store: Store, table: str) -> None:
        """Say that the task is finished."""
        store.put(self._key(table), sealed(asdict(self)))

    def take_back(self, store: Store, table: str) -> None:
        """Say that it is not: it has begun anew."""
        store.delete(self._key(table))

    def _key(self, table: str) -> str:
        return f"{Job(self.source, self.n_tasks).folder(table)}/{self.number}.json"


def unfinished(store: Store, table: str) -> dict[Job, list[int]]:
    """Return the numbers of the tasks that have not finished, by job, of jobs of which some have."""
    given: dict[Job, set[int]] = {}
    for name in checkpoint.parts_with(store, table):
        if name.startswith(PREFIX):
            for word in _words(store, table, name):
                given.setdefault(Job(word.source, word.n_tasks), set()).add(word.number % word.n_tasks)
    missing = {job: sorted({*range(job.n_tasks)} - numbers) for job, numbers in sorted(given.items())}
    return {job: numbers for job, numbers in missing.items() if numbers}


def _words(store: Store, table: str, name: str) -> Iterable[FinishedTask]:
    for found in store.objects(checkpoint.folder_of(table, name)):
        record = unsealed(store.get(found.key))
        if record is not None:
            yield FinishedTask(**record)
