"""Worker processes that end where it hurts: in a task, and in the middle of a result."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from support.waiting import wait_until
from tensorbank.engines import PROCESSES, Executor, Workers, executor_for
from tensorbank.errors import ErrorKind, InvalidInputError, TensorBankError
from tensorbank.storage import Store

LIMIT_S = 60.0
pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True)
class Folder:
    """A setting: a folder in which tasks leave marks."""

    store: Store

    def require_shareable(self, address: str) -> None:
        raise InvalidInputError(address)

    def look(self) -> None:
        """All is here."""

    def look_for(self, task: object) -> None:
        """All is here."""

    def begin(self) -> None:
        """Nothing is to be prepared."""

    @property
    def path(self) -> Path:
        assert self.store.local_path is not None
        return self.store.local_path


@dataclass(frozen=True)
class Numbered:
    number: int

    @property
    def label(self) -> str:
        return f"task {self.number}"


@dataclass(frozen=True)
class Answer:
    number: int
    keys: Sequence[str] = ()


def answer(task: Numbered, setting: Folder) -> Answer:
    return Answer(task.number)


def half_an_answer(task: Numbered, setting: Folder) -> Answer:
    """Task 3 is killed in the middle of its first answer, as if that had 1000 bytes of which 4 are sent."""
    if task.number == 3 and not (setting.path / "once").exists():
        (setting.path / "once").touch()
        _send_half_and_die()
    return Answer(task.number)


def always_half_an_answer(task: Numbered, setting: Folder) -> Answer:
    if task.number == 3:
        with (setting.path / "tries").open("a") as file:
            file.write("x")
        _send_half_and_die()
    return Answer(task.number)


def _send_half_and_die() -> None:
    assert multiprocessing.parent_process() is not None
    (pipe,) = [o for o in gc.get_objects() if isinstance(o, Connection) and not o.closed and o.writable]
    os.write(pipe.fileno(), struct.pack("!i", 1000) + b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def failing(task: Numbered, setting: Folder) -> Answer:
    if task.number == 3:
        raise KeyError(threading.Lock)  # a class travels
    if task.number == 4:
        raise ValueError(threading.Lock())  # and this does not
    return Answer(task.number)


def waiting(task: Numbered, setting: Folder) -> Answer:
    """All tasks but the first wait for one that never comes."""
    if task.number:
        (setting.path / f"waits-{task.number}").touch()
        threading.Event().wait()
    return Answer(task.number)


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(Store(tmp_path.as_uri()))


@pytest.fixture
def executor(folder) -> Iterator[Executor]:
    """Two processes, of which none is left, and no thread."""
    before, threads = {*multiprocessing.active_children()}, {*threading.enumerate()}
    with closing(executor_for(Workers(PROCESSES, 2), folder)) as made:
        yield made
    assert {*multiprocessing.active_children()} <= before
    assert [t for t in {*threading.enumerate()} - threads if t.name == "tensorbank-worker"] == []


def test_a_worker_that_dies_in_the_middle_of_a_result_costs_its_task(executor, folder):
    done = executor.execute(map(Numbered, range(8)), half_an_answer)
    assert sorted(result.number for result in done) == list(range(8))
    assert (folder.path / "once").exists()


def test_a_task_whose_workers_always_die_is_named_and_ends_the_run(executor, folder):
    with pytest.raises(TensorBankError, match="worker processes were killed at task 3, 3 one after") as lost:
        list(executor.execute(map(Numbered, range(8)), always_half_an_answer))
    assert lost.value.kind == ErrorKind.WORKER_LOST
    assert (folder.path / "tries").read_text() == "xxx"


def test_an_error_of_a_task_is_raised_with_the_place_where_it_was_raised(executor):
    with pytest.raises(KeyError) as failed:
        list(executor.execute([Numbered(3), Numbered(0)], failing))
    assert "in failing" in "".join(failed.value.__notes__)
    with pytest.raises(RuntimeError, match="in failing"):
        list(executor.execute([Numbered(4), Numbered(0)], failing))


def test_few_tasks_are_taken_ahead(executor):
    taken = []

    def tasks() -> Iterator[Numbered]:
        for number in range(40):
            taken.append(number)
            yield Numbered(number)

    done = executor.execute(tasks(), answer)
    for n_done, _ in enumerate(done):
        assert len(taken) <= n_done + 4
    assert n_done == 39


def test_tasks_under_way_are_given_up_when_nobody_wants_the_rest(executor, folder):
    done = executor.execute(map(Numbered, range(5)), waiting)
    assert next(done).number == 0
    wait_until(lambda: len(list(folder.path.glob("waits-*"))) == 2, "two tasks wait")
    done.close()
    assert len(list(folder.path.glob("waits-*"))) == 2, "the others were not begun"


def test_one_task_runs_in_this_process(executor):
    threads = threading.active_count()
    (only,) = executor.execute([Numbered(7)], answer)
    assert (only.number, threading.active_count()) == (7, threads)
    assert list(executor.execute([], answer)) == []


@dataclass(frozen=True)
class Unprepared(Folder):
    """A setting for which a process cannot be prepared; each attempt leaves a mark."""

    def begin(self) -> None:
        with (self.path / "attempts").open("a") as file:
            file.write("x")
        raise ValueError("no pool of threads")


class Elsewhere(Folder):
    """A setting of which a process that starts anew knows nothing."""

    def __reduce__(self) -> tuple[object, ...]:
        return import_module, ("no_such_module",)


def test_why_a_worker_cannot_begin_is_said_and_it_is_not_tried_again(folder):
    executor = executor_for(Workers(PROCESSES, 2), Unprepared(folder.store))
    with pytest.raises(TensorBankError, match="could not start: ValueError: no pool of threads") as failed:
        list(executor.execute(map(Numbered, range(8)), answer))
    assert failed.value.kind == ErrorKind.WORKER_START
    assert (folder.path / "attempts").read_text() in ("x", "xx"), "one, or one beside it"


def test_what_a_worker_cannot_load_is_said(folder):
    executor = executor_for(Workers(PROCESSES, 2), Elsewhere(folder.store))
    with pytest.raises(
        TensorBankError, match=r"could not start: ModuleNotFoundError: .*no_such_module"
    ) as failed:
        list(executor.execute(map(Numbered, range(8)), answer))
    assert failed.value.kind == ErrorKind.WORKER_START


@dataclass(frozen=True)
class KilledOnce(Folder):
    """A setting whose first process is killed before it is ready."""

    def begin(self) -> None:
        try:
            (self.path / "killed").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_before_it_is_ready_is_replaced(folder):
    executor = executor_for(Workers(PROCESSES, 2), KilledOnce(folder.store))
    done = executor.execute(map(Numbered, range(8)), answer)
    assert sorted(result.number for result in done) == list(range(8))
    assert (folder.path / "killed").exists()


@pytest.mark.parametrize("engine", ["spark", "tcp://host", "http://host:8786", "tcp://me:secret@host:8786"])
def test_engines_that_there_are_not(engine):
    with pytest.raises(InvalidInputError, match="no engine"):
        Workers(engine)
    with pytest.raises(InvalidInputError, match="engine_wait_s"):
        Workers(wait_s=0)
    with pytest.raises(InvalidInputError, match="n_workers"):
        Workers(n_workers=0)
