"""The simulation beside closed forms, and what holds of every simulation."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorbank.fetch import FetchOptions
from tensorbank_loader.batch import read_window
from tensorbank_simulation import Latency
from tensorbank_simulation.engine import BatchCost, NodesSetting, ReadCost, StoreSetting, train
from tensorbank_simulation.engine import training as training_module
from tensorbank_simulation.engine.clock import Clock
from tensorbank_simulation.engine.draws import draw
from tensorbank_simulation.engine.shared import BURST_BYTES, OneAtATime, SharedResource, Wire

NO_HEDGES = {"max_hedge_share": 0.0, "stall_s": math.inf}


def setting(latency="20", **more: Any) -> NodesSetting:
    options = more.pop("options", FetchOptions(n_threads=8, **NO_HEDGES))
    store = StoreSetting(Latency.parse(latency), **more.pop("store", {}))
    given = {"n_nodes": 1, "ranks_per_node": 1, "n_cores": 8, "store": store, "options": options, **more}
    return NodesSetting(**given)


def batches(n_reads, *, n=None, read=None, **more: Any):
    batch = BatchCost([read or ReadCost(100_000, 0.0, 0.0)] * n_reads, 1_000_000, **more)
    return itertools.repeat(batch) if n is None else iter([batch] * n)


def test_the_window_has_the_bounds_of_the_loader():
    assert training_module.MIN_BATCHES_AHEAD == read_window.MIN_BATCHES_AHEAD
    assert training_module.RAMP == read_window.RAMP


# ---- closed forms


def test_a_network_that_is_full_takes_bytes_over_bandwidth():
    trace = train(setting("1", bandwidth_bytes_s=1e6, n_cores=64), 10, [batches(20, n=10)])
    assert trace.ended_s[-1] == pytest.approx(10 * 20 * 0.1, rel=0.01)
    assert trace.read_bytes == 10 * 20 * 100_000


@pytest.mark.parametrize("n_threads", [1, 4, 16])
def test_reads_that_only_wait_come_by_the_number_of_threads(n_threads):
    options = FetchOptions(n_threads=n_threads, **NO_HEDGES)
    trace = train(setting("50", options=options), 8, [batches(32, n=8)])
    assert trace.ended_s[-1] == pytest.approx(8 * 32 * 0.050 / n_threads, rel=1e-6)


def test_decoding_is_shared_by_the_cores_and_one_read_is_decoded_by_one():
    read = ReadCost(1, 0.0, 0.010)
    many = FetchOptions(n_threads=16, **NO_HEDGES)
    full = train(setting("0", options=many, n_cores=4), 10, [batches(64, n=10, read=read)])
    assert full.ended_s[-1] == pytest.approx(10 * 64 * 0.010 / 4, rel=0.01)
    assert full.core_s == pytest.approx(10 * 64 * 0.010)
    two = FetchOptions(n_threads=2, **NO_HEDGES)
    few = train(setting("0", options=two, n_cores=4), 10, [batches(64, n=10, read=read)])
    assert few.ended_s[-1] == pytest.approx(10 * 64 * 0.010 / 2, rel=0.01)


def test_an_interpreter_does_one_thing_at_a_time():
    read = ReadCost(1, 0.0, 0.002, lock_s=0.002)
    trace = train(setting("1", n_cores=64), 10, [batches(50, n=10, read=read)])
    assert trace.ended_s[-1] == pytest.approx(10 * 50 * 0.002, rel=0.02)


def test_a_model_that_is_slower_than_the_loader_takes_its_steps_and_the_first_batch():
    trace = train(setting("20", step_s=0.5), 20, [batches(4)])
    assert trace.began_s[0] == pytest.approx(0.020)
    assert trace.ended_s[-1] == pytest.approx(0.020 + 20 * 0.5)


def test_without_a_window_two_batches_are_under_way():
    options = FetchOptions(n_threads=64, max_inflight_bytes=0, **NO_HEDGES)
    trace = train(setting("100", options=options), 40, [batches(8, n=40)])
    assert trace.ended_s[-1] == pytest.approx(40 / 2 * 0.100, rel=0.01)


def test_a_device_hides_the_copy_and_two_steps_of_the_host():
    host = train(setting("0", step_s=0.1, copy_s=0.02), 20, [batches(1)])
    device = train(setting("0", step_s=0.1, copy_s=0.02, steps_ahead=2), 20, [batches(1)])
    assert host.ended_s[-1] == pytest.approx(20 * 0.12)
    assert device.ended_s[-1] == pytest.approx(20 * 0.1 + 0.02)


def test_all_processes_take_each_step_together():
    """The second process has twice as much to read, and the first waits for it."""
    trace = train(
        setting("1", ranks_per_node=2, bandwidth_bytes_s=3e6), 10, [batches(10, n=10), batches(20, n=10)]
    )
    alone = train(setting("1", bandwidth_bytes_s=3e6), 10, [batches(20, n=10)])
    assert trace.ended_s[-1] == pytest.approx(10 * 30 * 100_000 / 3e6, rel=0.05)
    assert trace.ended_s[-1] > alone.ended_s[-1]
    assert all(began >= ended for began, ended in zip(trace.began_s[1:], trace.ended_s, strict=False))


def test_a_store_that_answers_so_many_requests_a_second_gets_no_more():
    limited = setting("5", store={"requests_per_s": 100.0})
    trace = train(limited, 20, [batches(50, n=20)])
    assert trace.n_refused > 0
    # each refusal is followed by a question for how long, which may be refused in its turn
    assert 1000 + trace.n_refused < trace.n_requests < 1000 + 2 * trace.n_refused
    answered_per_s = 1000 / trace.ended_s[-1]
    assert 70 < answered_per_s <= 112, "a second's worth may come at once in the beginning"


def test_reads_that_are_late_are_asked_for_again():
    """One in 50 takes a second. Asked again, it takes as long as the others."""
    latency = "p0=20,p98=20,p98.0001=1000,p100=1000"
    alone = train(setting(latency), 20, [batches(40, n=20)])
    hedged = train(setting(latency, options=FetchOptions(n_threads=8)), 20, [batches(40, n=20)])
    assert alone.n_hedges == 0
    assert 5 <= hedged.n_hedges <= 40
    assert hedged.ended_s[-1] < 0.75 * alone.ended_s[-1]
    assert hedged.n_requests == 800 + hedged.n_hedges


def test_what_the_cache_has_is_not_asked_of_the_store():
    options = FetchOptions(n_threads=8, cache_dir="cache", **NO_HEDGES)
    half = train(setting("1", options=options, hit_share=0.5), 40, [batches(50, n=40)])
    assert half.n_hits + half.n_requests == half.n_reads == 2000
    assert half.n_hits == pytest.approx(1000, rel=0.1)
    assert half.hit_bytes == half.n_hits * 100_000
    whole = train(setting("1", options=options, hit_share=1.0), 40, [batches(50, n=40)])
    assert (whole.n_requests, whole.read_bytes) == (0, 0)


def test_only_fresh_memory_costs():
    """Two batches are under way, and a third is begun when the consumer lets go of the first, whose memory it takes."""
    options = FetchOptions(n_threads=1, max_inflight_bytes=0, **NO_HEDGES)
    read = ReadCost(1, 0.0, 0.001)
    fresh = {"tensor_bytes": 1000, "fresh_s_per_byte": 1e-3}
    trace = train(setting("0", options=options, step_s=10.0), 12, [batches(1, n=12, read=read, **fresh)])
    assert trace.core_s == pytest.approx(12 * 0.001 + 2 * 1.0)


def test_too_few_batches_are_an_error():
    with pytest.raises(ValueError, match="fewer batches than 5 steps"):
        train(setting(), 5, [batches(4, n=3)])


# ---- late answers

READ = ReadCost(300_000, 0.0002, 0.001)
FEW_LATE, MANY_LATE = "p0=20,p95=20,p95.01=15000,p100=15000", "p0=20,p80=20,p80.01=15000,p100=15000"


def epoch_of(latency: str):
    """An epoch of 2,400 reads over a network of 100 MB/s."""
    ranks = [batches(100, n=24, read=READ)]
    chosen = setting(latency, n_cores=4, bandwidth_bytes_s=1e8, step_s=0.0, seed=1, options=FetchOptions())
    return train(chosen, 24, ranks)


@pytest.mark.parametrize(("latency", "most"), [(FEW_LATE, 1.2), (MANY_LATE, 1.5)])
def test_single_late_answers_cost_little(latency, most):
    late = epoch_of(latency)
    assert late.ended_s[-1] <= most * epoch_of("20").ended_s[-1]
    assert late.n_requests <= 1.4 * late.n_reads


@pytest.mark.parametrize("latency", ["500", "3000"])
def test_a_store_that_is_slow_as_a_whole_is_asked_for_little_twice(latency):
    slow = epoch_of(latency)
    assert slow.n_requests <= 1.02 * slow.n_reads


# ---- what holds of all


@dataclass(frozen=True)
class Case:
    n_steps: int
    n_reads: int
    read: ReadCost
    setting: NodesSetting


@st.composite
def cases(draw_):
    n_bytes = draw_(st.integers(1, 300_000))
    read = ReadCost(n_bytes, draw_(st.floats(0, 0.002)), draw_(st.floats(0, 0.005)))
    chosen = setting(
        draw_(st.sampled_from(["1", "20", "p0=5,p50=20,p99=100", "p0=5,p95=10,p99=300,p100=600"])),
        n_cores=draw_(st.integers(1, 8)),
        bandwidth_bytes_s=draw_(st.floats(1e7, 1e9)),
        step_s=draw_(st.sampled_from([0.0, 0.01, 0.1])),
        seed=draw_(st.integers(0, 5)),
        ranks_per_node=draw_(st.integers(1, 3)),
        options=FetchOptions(
            n_threads=draw_(st.sampled_from([None, 1, 8])),
            max_inflight_bytes=draw_(st.sampled_from([0, 3_000_000, 1 << 30])),
        ),
    )
    return Case(draw_(st.integers(1, 8)), draw_(st.integers(1, 12)), read, chosen)


def run(case: Case, **other: Any):
    chosen = replace(case.setting, **other)
    ranks = [batches(case.n_reads, n=case.n_steps, read=case.read) for _ in range(chosen.ranks_per_node)]
    return train(chosen, case.n_steps, ranks)


@settings(deadline=None, max_examples=40)
@given(cases())
def test_everything_comes_in_order_and_no_faster_than_it_can(case):
    trace = run(case)
    s = case.setting
    n = case.n_steps * case.n_reads * s.ranks_per_node
    assert len(trace.began_s) == len(trace.ended_s) == case.n_steps
    times = list(itertools.chain.from_iterable(zip(trace.began_s, trace.ended_s, strict=True)))
    assert times == sorted(times)
    assert trace.n_reads == n
    assert trace.n_requests >= n
    # Every byte comes once; what comes twice is a second request's.
    assert n * case.read.n_bytes <= trace.read_bytes <= trace.n_requests * case.read.n_bytes
    total_s = trace.ended_s[-1] * (1 + 1e-9)
    assert total_s >= n * case.read.n_bytes / s.bandwidth_bytes_s
    assert total_s >= n * (case.read.request_s + case.read.decode_s) / s.n_cores
    assert total_s >= case.n_steps * s.step_s
    assert total_s >= s.store.latency.quantile_s(0)


@settings(deadline=None, max_examples=15)
@given(cases())
def test_the_same_values_give_the_same_trace_and_another_seed_another(case):
    assert run(case) == run(case)
    varied = replace(case.setting.store, latency=Latency.parse("p0=5,p100=100"))
    assert run(case, store=varied, seed=1).ended_s != run(case, store=varied, seed=2).ended_s


@settings(deadline=None, max_examples=25)
@given(cases(), st.floats(1.1, 10))
def test_more_bandwidth_more_cores_and_a_shorter_step_are_never_slower(case, factor):
    """With depths that are fixed. Those that are found by measuring may be another by luck."""
    options = replace(case.setting.options, n_threads=case.setting.options.n_threads or 16, **NO_HEDGES)
    before = run(case, options=options).ended_s[-1]
    # An order of ends may change, and with it what begins first, and whose work is the last.
    slack_s = 1e-6 + 0.05 * before + 2 * (case.read.request_s + case.read.decode_s)
    assert (
        run(case, options=options, bandwidth_bytes_s=case.setting.bandwidth_bytes_s * factor).ended_s[-1]
        <= before + slack_s
    )
    assert run(case, options=options, n_cores=case.setting.n_cores * factor).ended_s[-1] <= before + slack_s
    assert run(case, options=options, step_s=case.setting.step_s / factor).ended_s[-1] <= before + slack_s


# ---- parts


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 5)), min_size=1, max_size=12), st.floats(0.2, 4))
def test_a_shared_resource_does_all_work_as_a_stepwise_one_does(works, rate):
    """Beside a loop that goes on by small steps of time and shares the rate anew in each."""
    clock, ended = Clock(), {}
    shared = SharedResource(clock, rate, 1.0)
    for number, (at_s, amount) in enumerate(works):

        def begin(number=number, amount=amount):
            shared.add(amount, lambda: ended.setdefault(number, clock.now_s))

        clock.at(at_s, begin)
    assert clock.run(lambda: len(ended) == len(works))
    left = {number: amount for number, (_, amount) in enumerate(works)}
    now_s, step_s, expected = 0.0, 0.02, {}
    while left:
        running = [n for n in left if works[n][0] <= now_s]
        for n in running:
            left[n] -= step_s * min(1.0, rate / len(running))
            if left[n] <= 0:
                expected[n] = now_s
        left = {n: a for n, a in left.items() if a > 0}
        now_s += step_s
    for n, seconds in expected.items():
        assert ended[n] == pytest.approx(seconds, abs=step_s * 2 * (len(works) + 1))


def test_a_wire_takes_turns():
    """Beside the fault server's rule: who sends, sends a piece, and queues again behind the others."""
    clock, ended = Clock(), {}
    wire = Wire(clock, float(BURST_BYTES))  # a piece a second
    for name, n_pieces in (("long", 3), ("short", 1), ("middle", 2)):
        wire.add(n_pieces * BURST_BYTES, lambda name=name: ended.setdefault(name, clock.now_s))
    clock.at(0.5, lambda: wire.add(BURST_BYTES / 2, lambda: ended.setdefault("late", clock.now_s)))
    assert clock.run(lambda: len(ended) == 4)
    # long, short, middle, half of late, long, middle, long
    assert ended == {"short": 2.0, "late": 3.5, "middle": 5.5, "long": 6.5}


def test_a_connection_gets_no_more_than_its_own_rate():
    clock, ended = Clock(), []
    wire = Wire(clock, math.inf, 1e6)
    wire.add(3e6, lambda: ended.append(clock.now_s))
    both = Wire(clock, 4e6, 1e6)
    both.add(3e6, lambda: ended.append(clock.now_s))
    assert clock.run(lambda: len(ended) == 2)
    assert ended == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize(("hit_share", "n_threads"), [(0.0, 32), (0.0, 8), (0.5, 32)])
def test_a_cache_takes_no_requests_from_what_it_lacks(hit_share, n_threads):
    """Threads that look are beside those that ask: half of the reads take half of the time."""
    options = FetchOptions(n_threads=n_threads, cache_dir="cache", **NO_HEDGES)
    trace = train(setting("50", options=options, hit_share=hit_share), 20, [batches(64, n=20)])
    n_misses = trace.n_reads - trace.n_hits
    assert trace.ended_s[-1] == pytest.approx(n_misses * 0.050 / n_threads, rel=0.15)


def test_a_lock_takes_one_after_the_other():
    clock, ended = Clock(), []
    lock = OneAtATime(clock)
    clock.at(1.0, lambda: [lock.add(2.0, lambda: ended.append(clock.now_s)) for _ in range(3)])
    assert clock.run(lambda: len(ended) == 3)
    assert ended == [3.0, 5.0, 7.0]
    assert not clock.run(lambda: False), "nothing is left to happen"


def test_draws_are_even_and_hang_on_every_part_of_their_key():
    found = [draw(1, 2, n) for n in range(4000)]
    assert all(0 <= x < 1 for x in found)
    assert len(set(found)) == 4000
    tenths = [sum(int(x * 10) == k for x in found) for k in range(10)]
    assert max(abs(n - 400) for n in tenths) < 90
    assert len({draw(1, 2, 3), draw(2, 1, 3), draw(1, 2, 4), draw(1, 3, 3), draw(1, 2)}) == 5
