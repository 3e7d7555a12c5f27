"""The account of reads that were asked for together."""

from __future__ import annotations

import itertools
import threading

import pytest

import tensorbank.fetch.read_group as pending_module
from tensorbank import StorageError
from tensorbank.fetch.read_group import ReadGroup


def test_each_number_comes_once_and_the_end_is_told():
    pending = ReadGroup(5)
    assert not pending.over
    numbers = list(pending.numbers())
    assert numbers == [0, 1, 2, 3, 4]
    for number in numbers[:-1]:
        pending.end(number)
    assert not pending.over
    pending.end(4)
    assert pending.over
    assert pending.succeeded
    assert pending.wait(for_all=True) == {}


def test_none_at_all_is_over():
    assert ReadGroup(0).succeeded


def test_the_first_error_wakes_whoever_does_not_want_all():
    pending, found = ReadGroup(3), []
    numbers = pending.numbers()
    next(numbers)
    waiter = threading.Thread(target=lambda: found.append(pending.wait(for_all=False)))
    waiter.start()
    error = ValueError("no")
    pending.end(0, error)
    waiter.join(10)
    assert found == [{0: error}]
    assert not pending.over


def test_cancelled_reads_do_not_start_and_those_that_run_are_waited_for():
    pending, found = ReadGroup(3), []
    numbers = pending.numbers()
    assert next(numbers) == 0
    pending.cancel()
    assert list(numbers) == []
    assert not pending.over
    waiter = threading.Thread(target=lambda: found.append(pending.wait(for_all=True)))
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive()
    pending.end(0)
    waiter.join(10)
    assert found == [{}]
    assert not pending.succeeded


def test_a_silence_that_no_time_limit_explains_ends_the_wait(monkeypatch):
    monkeypatch.setattr(pending_module, "LOOK_S", 0.05)
    pending = ReadGroup(2, stall_s=0.2)
    next(pending.numbers())
    with pytest.raises(StorageError, match="a thread has been lost") as caught:
        pending.wait(for_all=True)
    assert caught.value.kind == "stalled"


def test_reads_that_end_elsewhere_are_no_silence(monkeypatch):
    monkeypatch.setattr(pending_module, "LOOK_S", 0.02)
    beats = itertools.count()
    pending = ReadGroup(1, stall_s=0.1, beats=lambda: next(beats))
    next(pending.numbers())
    waiter = threading.Thread(target=lambda: pending.wait(for_all=True))
    waiter.start()
    waiter.join(0.5)
    assert waiter.is_alive()
    pending.end(0)
    waiter.join(10)
    assert not waiter.is_alive()
