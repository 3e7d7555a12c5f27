"""The thread that holds leases: it renews, lets go, ends with its owner, and troubles nobody."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tensorbank import StorageError
from tensorbank.errors import ErrorKind
from tensorbank.retention import LeaseHolder, Reading, list_leases, protected_versions
from tensorbank.retention.lease_holder import are_off
from tensorbank.storage import Store

WAIT_S = 60
NOW = datetime(2126, 3, 1, 12, 0, tzinfo=UTC)
"""A time at which nothing of this test has just been written by the clock of a store."""
ONE, TWO = Reading("t", "id", 1), Reading("t", "id", 2)


class Noting(Store):
    """A store that tells what was written and removed, and can be made to refuse."""

    def __init__(self, url, options=None) -> None:
        super().__init__(url, options)
        self.done = queue.Queue()
        self.refusal = None

    def put(self, key, data):
        if self.refusal is not None:
            self.done.put(("refused", key))
            raise self.refusal
        super().put(key, data)
        self.done.put(("put", key))

    def delete(self, key):
        super().delete(key)
        self.done.put(("delete", key))


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def noting(tmp_path):
    (tmp_path / "bank").mkdir()
    return Noting((tmp_path / "bank").as_uri())


def versions(store, now=NOW, table="t"):
    return sorted(protected_versions(store, table, now).by_version)


def test_a_lease_is_there_while_it_is_held_and_gone_afterwards(store):
    holder = LeaseHolder(store)
    holder.hold([ONE, TWO, Reading("u", "other", 9)])
    holder.stop(WAIT_S)  # the thread writes before it looks whether it is to end
    assert list_leases(store, "t") == ([], [])
    assert list_leases(store, "u") == ([], [])


def test_what_is_held_is_written_and_renewed(noting):
    clock = Clock()
    holder = LeaseHolder(noting, lease_id="a", renew_s=0.01, now=clock)
    holder.hold([ONE])
    for _ in range(3):
        assert noting.done.get(timeout=WAIT_S) == ("put", "t/leases/a.json")
    clock.at = NOW + timedelta(days=1)
    noting.done.get(timeout=WAIT_S)
    noting.done.get(timeout=WAIT_S)  # begun after the clock was set
    (lease,), _ = list_leases(noting, "t")
    assert lease.versions == (1,)
    assert (lease.since, lease.until) == (NOW, NOW + timedelta(days=1, minutes=15))
    assert versions(noting, clock.at) == [1]
    holder.stop(WAIT_S)
    assert list_leases(noting, "t") == ([], [])


def test_a_new_snapshot_is_written_at_once_and_a_known_one_not_again(noting):
    holder = LeaseHolder(noting, lease_id="a")
    holder.hold([ONE])
    assert noting.done.get(timeout=WAIT_S) == ("put", "t/leases/a.json")
    holder.hold([ONE])
    holder.hold([TWO])
    assert noting.done.get(timeout=WAIT_S) == ("put", "t/leases/a.json")
    assert versions(noting, datetime.now(UTC)) == [1, 2]
    holder.stop(WAIT_S)
    assert noting.done.get(timeout=WAIT_S) == ("delete", "t/leases/a.json")
    assert noting.done.empty()
    holder.hold([ONE])
    assert list_leases(noting, "t")[0] == [], "what has ended stays ended"


def test_a_snapshot_that_nobody_names_any_more_is_let_go(noting):
    holder = LeaseHolder(noting, lease_id="a", renew_s=0.01, idle_s=0.05)
    holder.hold([ONE])
    done = [noting.done.get(timeout=WAIT_S)]
    while done[-1][0] == "put":
        done.append(noting.done.get(timeout=WAIT_S))
    assert done[-1] == ("delete", "t/leases/a.json")
    assert len(done) > 1
    holder.stop(WAIT_S)


@pytest.mark.parametrize("kind", [ErrorKind.DENIED, ErrorKind.READ_ONLY])
def test_a_bank_that_cannot_be_written_gives_one_warning(noting, kind, caplog):
    noting.refusal = StorageError("you may not", kind=kind)
    with caplog.at_level(logging.WARNING, logger="tensorbank.retention.lease_holder"):
        for _ in range(3):
            holder = LeaseHolder(noting, renew_s=0.01)
            holder.hold([ONE])
            assert noting.done.get(timeout=WAIT_S)[0] == "refused"
            holder.stop(WAIT_S)
    assert noting.done.empty(), "who may not write is not asked again"
    (record,) = caplog.records
    assert "you may not" in record.getMessage()
    assert "lease=False" in record.getMessage()


def test_a_store_that_fails_for_a_while_is_tried_again(noting):
    noting.refusal = StorageError("later", kind=ErrorKind.UNREACHABLE)
    holder = LeaseHolder(noting, lease_id="a", renew_s=0.01)
    holder.hold([ONE])
    assert noting.done.get(timeout=WAIT_S)[0] == "refused"
    noting.refusal = None
    done = noting.done.get(timeout=WAIT_S)
    while done[0] == "refused":
        done = noting.done.get(timeout=WAIT_S)
    assert done == ("put", "t/leases/a.json")
    holder.stop(WAIT_S)


def test_a_failure_of_another_kind_ends_the_thread_and_nothing_else(noting, caplog):
    noting.refusal = RuntimeError("a bug")
    holder = LeaseHolder(noting)
    holder.hold([ONE])
    assert noting.done.get(timeout=WAIT_S)[0] == "refused"
    holder.stop(WAIT_S)
    assert "a bug" in caplog.text


def test_the_end_waits_no_longer_than_it_is_told(noting):
    """A store that hangs does not hold a program up."""
    go_on, began = threading.Event(), threading.Event()

    def hanging(key, data):
        began.set()
        go_on.wait(WAIT_S)

    noting.put = hanging
    holder = LeaseHolder(noting)
    holder.hold([ONE])
    assert began.wait(WAIT_S)
    holder.stop(0.01)
    assert not go_on.is_set()
    go_on.set()


def _stop(holder):
    holder.stop()
    holder.hold([TWO])


def test_a_forked_process_leaves_the_lease_of_its_parent_alone(noting):
    holder = LeaseHolder(noting, lease_id="a")
    holder.hold([ONE])
    noting.done.get(timeout=WAIT_S)
    child = multiprocessing.get_context("fork").Process(target=_stop, args=(holder,))
    child.start()
    child.join(WAIT_S)
    assert child.exitcode == 0
    assert versions(noting, datetime.now(UTC)) == [1]
    holder.stop(WAIT_S)


KILLED = """
import sys
from tensorbank.retention import LeaseHolder, Reading, list_leases
from tensorbank.storage import Store
store = Store(sys.argv[1])
holder = LeaseHolder(store)
holder.hold([Reading("t", "id", 3)])
while not list_leases(store, "t")[0]:
    pass
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lease_of_a_killed_holder_expires(noting):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, noting.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S)
    (lease,), _ = list_leases(noting, "t")
    assert lease.owner.pid == process.pid
    assert versions(noting, datetime.now(UTC)) == [3]
    assert versions(noting, lease.until + timedelta(minutes=6)) == []


def test_a_program_that_ends_by_itself_leaves_no_thread_that_holds_it_up(tmp_path):
    """A daemon thread ends with its program, whether or not somebody stopped it."""
    (tmp_path / "bank").mkdir()
    url = (tmp_path / "bank").as_uri()
    code = KILLED.replace("sys.stdin.read()", "")
    done = subprocess.run(
        [sys.executable, "-c", code, url], capture_output=True, text=True, timeout=WAIT_S, check=True
    )
    assert done.stdout == "held\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("value", "off"),
    [(None, False), ("", False), ("on", False), ("off", True), (" OFF ", True), ("0", True), ("false", True)],
)
def test_the_environment_turns_leases_off(value, off):
    assert are_off({} if value is None else {"TENSORBANK_LEASES": value}) == off


def test_two_holders_have_leases_of_their_own(noting):
    holders = [LeaseHolder(noting) for _ in range(2)]
    for holder in holders:
        holder.hold([ONE])
        noting.done.get(timeout=WAIT_S)
    assert len(list_leases(noting, "t")[0]) == 2
    assert all(uuid.UUID(holder.lease_id) for holder in holders)
    holders[0].stop(WAIT_S)
    assert versions(noting, datetime.now(UTC)) == [1]
    holders[1].stop(WAIT_S)
    assert versions(noting, datetime.now(UTC)) == []
    assert Path(noting.local_path).is_dir()
