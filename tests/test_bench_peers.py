"""The harness of the comparison on tiny data, and that its pages say what its results say."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tensorbank as tb
from tensorbank.testing import Faults
from tensorbank_demo.landscape.archive import write_archives
from tensorbank_indexer import IngestOptions, ingest, open_source

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
CACHE = BENCHMARKS.parent / ".cache" / "peers"
REQUIREMENTS = BENCHMARKS / "peers" / "requirements"
N_SAMPLES = 12
HERE = ("boto3_loop", "tensorstore")
"""Peers whose libraries are in the environment of the tests, too, where they run with the versions that are there."""
ELSEWHERE = (
    "hf_datasets",
    "icechunk",
    "lancedb",
    "litdata",
    "mosaic",
    "s3torchconnector",
    "streaming_community",
    "terramesh",
    "webdataset",
    "zarr",
    "zarrista",
    "zarrs",
)
"""Peers that have an environment of their own, or none."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Twelve samples exported from a bank of eight."""
    from peers.export import export
    from peers.stage import Stage

    folder = tmp_path_factory.mktemp("peers")
    root = write_archives(folder / "archives", n_samples=8, samples_per_tar=8, seed=3).root
    ingest(open_source(str(root)), tb.create(folder / "bank"), "t", IngestOptions(n_workers=1))
    export(str(folder / "bank"), folder / "export", N_SAMPLES)
    (folder / "stored").mkdir()
    environments = folder / "environments"
    for peer in HERE:
        venv = environments / peer / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (venv / "bin" / "python").chmod(0o755)
        stamp = hashlib.sha256((REQUIREMENTS / f"{peer}.txt").read_bytes()).hexdigest()
        (venv / ".installed").write_text(stamp)
    for peer in ELSEWHERE:
        (environments / peer).symlink_to(CACHE / peer)
    cores = sorted(os.sched_getaffinity(0))
    return Stage(folder / "export", folder / "stored", environments, cores, cores, limit_s=200, install=False)


@pytest.fixture(scope="module")
def server(stage):
    from peers.stage import ObjectServer

    with ObjectServer(stage.stored, stage.server_cores) as running:
        yield running


def measured(stage, server, peer, name):
    from peers.contract import Export
    from peers.workloads import workload

    work = workload(name, Export(stage.export))
    stage.prepare(peer, "raw", work)
    return stage.measure(stage.request(peer, "raw", work, server.endpoint, batch_size=4, verify=True), server)


def test_exported_samples_are_those_of_the_bank_and_no_two_are_equal(stage):
    from peers.contract import Export

    found = Export(stage.export)
    bank = tb.open(str(stage.export.parent / "bank"))
    plan = bank.sql(f"SELECT sample_id, {', '.join(found.modalities)} FROM t WHERE S1RTC IS NOT NULL").plan()
    n = len(plan)
    (batch,) = plan.dataloader(batch_size=n, shuffle=False)
    for name in found.modalities:
        pixels = found.pixels(name)
        assert np.array_equal(pixels[:n], batch[name].numpy(), equal_nan=pixels.dtype.kind == "f")
    assert len({p.tobytes() for p in found.pixels("S2L2A")}) == N_SAMPLES == len(set(found.ids))


@pytest.mark.parametrize("name", ["Q0", "Q1", "Q3", "Q4", "Q5"])
def test_our_loader_delivers_each_workload(stage, server, name):
    from peers.contract import Export, places
    from peers.workloads import workload

    server.set(Faults())
    run = measured(stage, server, "tensorbank", name)
    assert run["n_samples"] == len(places(workload(name, Export(stage.export)), N_SAMPLES)) > 0
    assert not any(run["content"].values()), run["content"]
    assert run["fetched_bytes"] > 0
    assert run["cpu_s"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["tensorstore_shards", *HERE, *ELSEWHERE])
@pytest.mark.timeout(500)
def test_peers_deliver_what_is_asked_for(stage, server, peer):
    """Peers of elsewhere are tried if ``make bench-peers`` has installed them."""
    from peers.environments import InstallError

    server.set(Faults())
    try:
        run = measured(stage, server, peer, "Q5")
    except InstallError as error:
        if peer in HERE:
            raise
        pytest.skip(str(error))
    assert run["n_samples"] > 0
    assert not any(run["content"].values()), run["content"]


def test_the_ceiling_fetches_the_ideal_bytes(stage, server):
    server.set(Faults())
    assert measured(stage, server, "ceiling", "Q2")["bytes_to_ideal"] == 1


def test_wrong_lost_and_repeated_items_are_counted(stage):
    from peers.stage import content

    epochs = [{"prints": {"a": [{"m": 1}, {"m": 2}], "x": [{"m": 1}]}}]
    assert content(epochs, {"a": {"m": 1}, "b": {"m": 3}}) == {
        "wrong": 1,
        "lost": 1,
        "repeated": 1,
        "unasked": 1,
    }


def test_flipped_bits_are_errors_rather_than_samples(stage, server):
    from peers.stage import PeerError

    server.set(Faults(flipped=1.0, only="S2RGB/c/"))
    with pytest.raises(PeerError, match="is damaged in bytes"):
        measured(stage, server, "tensorbank", "Q0")
    assert server.log()["faults"]["flipped"] > 0
    server.set(Faults())


def test_latency_is_added_by_the_server(stage, server):
    import time
    import urllib.request

    server.set(Faults(latency_ms=80))
    key = next(p for p in (stage.stored / "tensorbank").rglob("zarr.json")).relative_to(stage.stored)
    started = time.monotonic()
    request = urllib.request.Request(f"{server.endpoint}/bench/{key}", headers={"Range": "bytes=-4"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 206
        assert answer.read() == (stage.stored / key).read_bytes()[-4:]
    assert time.monotonic() - started >= 0.08
    server.set(Faults())


def test_a_request_survives_its_way_to_the_peer(stage):
    from peers.contract import Export, Request
    from peers.workloads import NAMES, workload

    for name in NAMES:
        asked = stage.request("tensorbank", "raw", workload(name, Export(stage.export)), n_workers=3)
        back = Request.from_json(asked.to_json())
        assert back.to_json() == asked.to_json()
        assert replace(back, workload=asked.workload) == asked


def test_every_peer_says_what_it_needs():
    from peers import PEERS
    from peers.environments import OWN, REQUIREMENTS

    folder = BENCHMARKS / "peers"
    for peer in PEERS:
        assert (folder / f"{peer}.py").is_file()
        assert peer in OWN or "==" in (REQUIREMENTS / f"{peer}.txt").read_text()


def test_the_pages_say_what_the_results_say():
    """``python benchmarks/results_page.py`` writes them."""
    from results_page import pages

    written = pages()
    assert len(written) == 2
    for path, wanted in written.items():
        assert path.read_text() == wanted, f"{path} is not what benchmarks/results_page.py writes"


def run_of(peer: str, rate: float) -> dict:
    key = {
        "part": "speed",
        "peer": peer,
        "track": "zstd",
        "workload": "Q0",
        "latency_ms": 0,
        "repeat": 0,
    }
    return {
        "key": key,
        "samples_s": rate,
        "steady_samples_s": rate,
        "first_batch_s": 0.5,
        "bytes_to_ideal": 1.0,
        "median_get_bytes": 1e6,
        "n_batches": 40,
        "n_epochs": 1,
        "requests": {"GET": 4},
        "cpu_s_per_gb": 2.0,
        "server_cpu_s": 1.0,
        "peak_pss_bytes": 1e9,
        "gap_ms": None,
        "shuffle_score": None,
        "versions": {peer: "1"},
    }


def test_a_page_names_who_is_faster_and_who_failed(tmp_path):
    from results_page import section

    from pages.picture import draw
    from pages.speed import headline

    found = {
        "machine": {"processor": "cpu", "cores": [[0], [1]], "python": "3"},
        "data": {"n_samples": 4},
        "peers": {"ray": {"raw": {"kind": "PeerError", "error": "no wheel"}}},
        "failed": [
            {"key": {"part": "speed", "peer": "mosaic"}, "kind": "TimeoutExpired", "error": "a\nhung"}
        ],
        "runs": [run_of("ceiling", 100.0), run_of("tensorbank", 40.0), run_of("litdata", 50.0)],
    }
    text = section(found, {"Q0": "It decodes."})
    assert "Not first: LitData 1.25 x at 0 ms. It decodes." in text
    assert "ceiling 40%" in text
    assert re.search(r"Ray Data, raw, could not be prepared: `no wheel`", text)
    assert "TimeoutExpired: `hung`" in text
    assert "0.8 x LitData" in headline(found)
    draw(json.loads(json.dumps(found)), tmp_path / "peers.png")
    assert (tmp_path / "peers.png").stat().st_size > 5000


def test_the_headline_compares_the_default_profile_with_the_best_codec_of_each(tmp_path):
    from pages.picture import draw
    from pages.speed import headline

    def on(track, run):
        return {**run, "key": {**run["key"], "track": track}}

    runs = [on(t, run_of("ceiling", 100.0)) for t in ("zstd", "fast")]
    runs += [on("zstd", run_of("tensorbank", 20.0)), on("fast", run_of("tensorbank", 60.0))]
    runs += [
        on("zstd", run_of("lancedb", 30.0)),
        on("fast", run_of("lancedb", 10.0)),
        on("zstd", run_of("litdata", 5.0)),
    ]
    text = headline({"runs": runs})
    assert "| 60 |" in text
    assert "2.0 x LanceDB" in text
    assert "60%" in text
    draw({"runs": runs}, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").stat().st_size > 5000


@pytest.mark.parametrize("kind", ["wrong", "lost", "repeated", "unasked"])
def test_who_does_not_bring_what_was_asked_for_has_no_rate(kind):
    from bench_peers import timed

    from peers.stage import PeerError

    right = {
        "samples_s": 900.0,
        "seconds": 1.0,
        "content": dict.fromkeys(("wrong", "lost", "repeated", "unasked"), 0),
    }
    assert timed(right) == right
    with pytest.raises(PeerError, match=f"1,943 {kind}"):
        timed(right | {"content": {**right["content"], kind: 1943}})


def epoch_of(began: float, *arrivals: float) -> dict:
    return {
        "began": began,
        "arrivals": arrivals,
        "ended": arrivals[-1],
        "batches": [["a", "b"]] * len(arrivals),
    }


def test_what_was_gathered_before_the_first_batch_is_no_steady_rate():
    from peers.stage import steady_rate

    assert steady_rate([epoch_of(0, 1, 2, 3)], 6) == pytest.approx(2.0), "four items in two seconds"
    assert steady_rate([epoch_of(0, 20, 20.1, 20.2)], 6) is None
    assert steady_rate([epoch_of(0, 20)], 2) is None, "one batch"
    late, soon = epoch_of(0, 20, 20.1), epoch_of(20.1, 20.6, 21.1)
    assert steady_rate([late, soon], 4) == pytest.approx(4.0), "later epochs count whole"


def test_a_table_of_plans_says_who_gives_other_rows():
    from pages.planning import planning

    found = {
        "versions": {"duckdb": "2"},
        "rows": [
            {
                "name": "greenest",
                "n": 7,
                "tensorbank_s": [0.2, 0.1, 0.3],
                "others": {
                    "DuckDB": {"s": [0.4], "equal": True},
                    "LanceDB": {"s": [0.1], "equal": False},
                },
            }
        ],
        "failed": {"Deep Lake": "Traceback\nRuntimeError: no TQL"},
    }
    text = planning(found)
    assert "| greenest | 7 | 0.2 s | 0.4 s, 2.00 x | 0.1 s, 0.50 x, **other rows** |" in text
    assert "Deep Lake failed: `RuntimeError: no TQL`" in text
