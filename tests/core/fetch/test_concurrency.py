"""The number of reads under way is found from what reads take, on a link that is simulated event by event."""

from __future__ import annotations

import heapq

import pytest

from tensorbank.fetch.concurrency import FIRST_DEPTH, GAIN, MAX_DEPTH, MIN_DEPTH, Concurrency


def run(
    latency_s: float,
    bytes_per_s: float,
    read_bytes: int,
    n_reads: int,
    depth: Concurrency | None = None,
    begin_s: float = 0.0,
) -> tuple[Concurrency, float]:
    """Run reads over a link: each waits for the latency and then for its turn on the wire. Returns depth and
    share of the wire used over the second half."""
    depth = depth or Concurrency()
    now = wire_free = half = begin_s
    coming: list[tuple[float, float]] = []
    for number in range(n_reads):
        while len(coming) >= depth.n:
            now, asked = heapq.heappop(coming)
            depth.add(now - asked, now)
        wire_free = max(wire_free, now + latency_s) + read_bytes / bytes_per_s
        heapq.heappush(coming, (wire_free, now))
        if number == n_reads // 2:
            half = now
    return depth, (n_reads / 2) * read_bytes / bytes_per_s / (wire_free - half)


@pytest.mark.parametrize("latency_s", [0.001, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("bytes_per_s", [100e6, 400e6, 2e9])
@pytest.mark.parametrize("read_bytes", [128 << 10, 1 << 20, 8 << 20])
def test_the_wire_is_full_wherever_enough_threads_can_fill_it(latency_s, bytes_per_s, read_bytes):
    needed = latency_s * bytes_per_s / read_bytes + 1
    depth, used = run(latency_s, bytes_per_s, read_bytes, 4000)
    assert MIN_DEPTH <= depth.n <= MAX_DEPTH
    assert used > 0.9 * min(1, MAX_DEPTH / needed)


@pytest.mark.parametrize("held_s", [0.0, 0.3])
def test_threads_that_late_requests_hold_are_made_up_for(held_s):
    """Let every fifth read hold its thread for ten latencies before its second request begins."""
    latency_s, wire_s, n_reads = 0.03, 0.003, 5000
    depth, now, wire_free = Concurrency(), 0.0, 0.0
    coming: list[tuple[float, float, float]] = []
    for number in range(n_reads):
        while len(coming) >= depth.n:
            now, seconds, late_s = heapq.heappop(coming)
            depth.add(seconds, now, late_s=late_s)
        late_s = held_s * (number % 5 == 0)
        sent_s = now + late_s
        if late_s:  # its turn on the wire is nobody else's: few reads are late
            ended_s = sent_s + latency_s + wire_s
        else:
            ended_s = wire_free = max(wire_free, sent_s + latency_s) + wire_s
        heapq.heappush(coming, (ended_s, ended_s - sent_s, late_s))
    n_on_wire = n_reads * (0.8 if held_s else 1.0)
    assert n_on_wire * wire_s / now > 0.9
    assert depth.n < MAX_DEPTH


@pytest.mark.parametrize("bytes_per_s", [20e6, 100e6, 1e9])
def test_no_more_reads_are_under_way_than_twice_what_fills_the_wire(bytes_per_s):
    for n_reads in (500, 5_000, 50_000):
        depth, used = run(0.03, bytes_per_s, 1 << 20, n_reads)
        needed = 0.03 * bytes_per_s / (1 << 20) + 1
        assert depth.n <= max(2 * FIRST_DEPTH, 2.5 * needed)
        assert used > 0.9 or n_reads < 5_000


@pytest.mark.parametrize(("latency_s", "bytes_per_s"), [(0.1, 30e6), (0.03, 100e6), (0.2, 200e6)])
def test_the_rate_of_a_burst_is_not_that_of_the_network(latency_s, bytes_per_s):
    """Reads that begin together share the wire equally, so that all of them end within milliseconds."""
    depth, now, read_bytes = Concurrency(), 0.0, 700_000
    for _ in range(12):
        n = depth.n
        took_s = latency_s + n * read_bytes / bytes_per_s
        for place in range(n):
            depth.add(took_s, now + took_s + 0.07 * place / n)
        now += took_s + 0.07
    first_s = latency_s + FIRST_DEPTH * read_bytes / bytes_per_s
    most_per_s = bytes_per_s / read_bytes
    assert depth.n <= 1.1 * GAIN * most_per_s * first_s + 1


def test_a_network_that_changes_is_followed():
    depth, _ = run(0.001, 1e9, 1 << 20, 2000)
    assert depth.n <= 2 * FIRST_DEPTH
    depth, used = run(0.06, 1e9, 1 << 20, 40_000, depth, 100)
    assert depth.n > 60
    assert used > 0.9
    depth, used = run(0.001, 1e9, 1 << 20, 40_000, depth, 1000)
    assert depth.n <= 2 * FIRST_DEPTH


def test_a_fixed_depth_stays_whatever_is_measured():
    depth, _ = run(0.05, 1e9, 1 << 20, 1000, Concurrency(3))
    assert depth.n == 3


def test_it_begins_in_the_middle():
    assert MIN_DEPTH < Concurrency().n == FIRST_DEPTH < MAX_DEPTH
