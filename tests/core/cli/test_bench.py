"""``tensorbank bench``: what it measures is what a server counted, and it says so in text and JSON."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest

import tensorbank as tb
from support.handmade import make
from tensorbank.cli.app import main
from tensorbank.cli.bench import N_ROUNDS, StreamReport, measure_stream
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.plans import StoreAddress
from tensorbank.reading.raw import fetch_raw, ranges_of
from tensorbank.storage import Store
from tensorbank.testing import FaultServer
from tensorbank.testing.fault_server import Faults

N = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    return make(folder, N)


def test_raw_reads_bring_the_bytes_of_the_plan_and_nothing_else(made):
    with FaultServer(made.folder) as server:
        plan = replace(made.plan, origin=StoreAddress(server.url, server.storage))
        ranges = ranges_of(
            plan.addresses, [np.arange(0, 20), np.arange(20, N)], FetchOptions(max_gap_bytes=0)
        )
        raw = fetch_raw(Store(server.url, server.storage), ranges, n_threads=4)
        counts = server.stats()["counts"]
    lengths = {
        (a.shard_keys[a.shard_of[i]], int(start)): int(n)
        for a in plan.addresses.values()
        for i in np.flatnonzero(a.shard_of >= 0)
        for start, n in zip(a.starts[i], a.lengths[i], strict=True)
    }
    assert raw.n_bytes == counts["body_bytes"] == sum(r.n_bytes for r in ranges)
    assert raw.n_requests == counts["requests"] == len(ranges)
    covered = {r.key: np.zeros(1 << 20, bool) for r in ranges}
    for r in ranges:
        covered[r.key][r.start : r.end] = True
    for (key, start), n in lengths.items():
        assert covered[key][start : start + n].all(), (key, start)
    assert sum(c.sum() for c in covered.values()) == sum(r.n_bytes for r in ranges), "something is read twice"


def test_a_failed_raw_read_is_an_error(made, tmp_path):
    ranges = ranges_of(made.plan.addresses, [np.arange(3)], FetchOptions())
    with pytest.raises(tb.NotFoundError):
        fetch_raw(Store(tmp_path.as_uri()), ranges)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_report_counts_what_was_streamed(made, shuffle):
    report = measure_stream(made.plan, batch_size=8, seconds=0.7, shuffle=shuffle)
    assert report.n_rounds == N_ROUNDS
    assert report.n_samples == 8 * report.n_batches > 0
    sample_bytes = sum(h.n_bytes for h in made.plan.handles)
    assert report.decoded_mb_s / report.samples_per_s == pytest.approx(sample_bytes / 1e6, rel=0.01)
    assert report.share_of_raw > 0
    assert report.amplification >= 1
    assert report.first_batch_ms > 0
    assert 0 < report.gap_p50_ms <= report.gap_p99_ms


def test_the_ceiling_is_the_servers_limit(made):
    """A server of 1 MB/s: raw reads come near it, and never above."""
    with FaultServer(made.folder, Faults(bandwidth_bytes_s=1e6)) as server:
        plan = replace(made.plan, origin=StoreAddress(server.url, server.storage))
        report = measure_stream(plan, batch_size=4, seconds=7)
    assert 0.5 < report.raw_mb_s < 1.5
    assert report.stored_mb_s < 1.5


def test_sampling_weights_do_not_stand_in_the_way(made):
    weights = pa.array(np.arange(N, dtype=np.float64))
    plan = replace(made.plan, table=made.plan.table.append_column("weight", weights))
    assert measure_stream(plan, batch_size=8, seconds=0.1).n_samples > 0


@pytest.fixture(scope="module")
def ingested(make_archives, tmp_path_factory):
    source, _ = make_archives("terramesh", "--samples", "6", "--per-tar", "6")
    bank = tmp_path_factory.mktemp("ingested") / "bank"
    assert main(["ingest", str(source), str(bank), "--table", "t", "--workers", "1", "--json"]) == 0
    return str(bank)


def test_the_command(ingested, capsys):
    command = [
        "bench",
        "stream",
        ingested,
        "SELECT S2L2A, LULC FROM t",
        "--batch-size",
        "2",
        "--seconds",
        "0.5",
    ]
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said) == {f.name for f in fields(StreamReport)}
    assert said["n_samples"] % 2 == 0
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "samples/s: 3 rounds of" in out
    assert "reads bring raw" in out


@pytest.mark.parametrize(
    ("sql", "words"),
    [("SELECT S2L2A FROM t WHERE false", "no sample"), ("SELECT sample_id FROM t", "no modality")],
)
def test_nothing_to_stream(ingested, capsys, sql, words):
    capsys.readouterr()
    assert main(["bench", "stream", ingested, sql]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), words in err) == ("", 1, True)
