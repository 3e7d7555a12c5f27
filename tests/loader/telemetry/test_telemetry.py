"""Statistics as the real libraries print them."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields, replace
from itertools import islice
from operator import attrgetter

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from support.handmade import make
from tensorbank.cache.range_cache import CacheStats
from tensorbank.fetch.fetch_stats import FetchStats
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank_loader import DataLoader, LoaderStats
from tensorbank_loader.telemetry.durations import N_BINS, Durations, bin_of
from tensorbank_loader.telemetry.exporters import METRICS, export_opentelemetry, export_prometheus
from tensorbank_loader.telemetry.progress import rates, with_progress


def gaps_of(*seconds: float) -> Durations:
    counts = [0] * N_BINS
    for s in seconds:
        counts[bin_of(s)] += 1
    return Durations(tuple(counts), sum(seconds))


class Loader:
    def __init__(self, **numbers: object) -> None:
        self.numbers = numbers

    def stats(self) -> LoaderStats:
        return LoaderStats(**self.numbers)


TRAIN = Loader(batches=7, bytes_read=123, wait_s=1.5, n_ahead=3, gaps=gaps_of(0.3, 0.3, 0.9))
VALIDATION = Loader(batches=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("part"), 40)


def test_every_number_of_the_loader_is_a_metric_once():
    mine = {f.name for f in fields(LoaderStats)} - {f.name for f in fields(FetchStats)} - {"gaps"}
    exported = [m.field for m in METRICS]
    assert len(mine) > 5
    assert mine <= set(exported)
    assert all(isinstance(attrgetter(name)(LoaderStats()), int | float) for name in exported)
    for names in (exported, [m.prometheus for m in METRICS], [m.opentelemetry[0] for m in METRICS]):
        assert len(set(names)) == len(names)


# ---------------------------------------------------------------- Prometheus


def test_prometheus_text():
    registry = CollectorRegistry(auto_describe=True)
    export_prometheus({"train": TRAIN, "validation": VALIDATION}, registry)
    text = generate_latest(registry).decode()
    for line in (
        "# TYPE tensorbank_loader_batches_total counter",
        'tensorbank_loader_batches_total{loader="train"} 7.0',
        'tensorbank_loader_batches_total{loader="validation"} 2.0',
        'tensorbank_loader_read_bytes_total{loader="train"} 123.0',
        'tensorbank_loader_wait_seconds_total{loader="train"} 1.5',
        "# TYPE tensorbank_loader_ahead_batches gauge",
        'tensorbank_loader_ahead_batches{loader="train"} 3.0',
        "# TYPE tensorbank_loader_gap_seconds histogram",
        'tensorbank_loader_gap_seconds_bucket{le="0.25",loader="train"} 0.0',
        'tensorbank_loader_gap_seconds_bucket{le="0.5",loader="train"} 2.0',
        'tensorbank_loader_gap_seconds_bucket{le="1.0",loader="train"} 3.0',
        'tensorbank_loader_gap_seconds_bucket{le="+Inf",loader="train"} 3.0',
        'tensorbank_loader_gap_seconds_count{loader="train"} 3.0',
        'tensorbank_loader_gap_seconds_sum{loader="train"} 1.5',
    ):
        assert line in text.splitlines(), text


def test_a_second_epoch_comes_from_the_cache(made, tmp_path):
    registry = CollectorRegistry()
    options = FetchOptions(cache_dir=tmp_path)
    with DataLoader(made.plan, batch_size=8, options=options) as loader:
        export_prometheus({"train": loader}, registry)

        def value(noun: str) -> float:
            found = registry.get_sample_value(f"tensorbank_loader_{noun}_total", {"loader": "train"})
            assert found is not None
            return found

        list(loader)
        requests, misses = value("requests"), value("cache_misses")
        assert requests > 0
        assert misses > 0
        list(loader)
        assert (value("requests"), value("cache_misses")) == (requests, misses)
        assert value("cache_hits") >= misses
        assert value("cache_hit_bytes") > 0


def test_openmetrics_text_is_read_by_its_own_strict_parser():
    registry = CollectorRegistry()
    export_prometheus({"train": TRAIN}, registry)
    families = {f.name: f for f in text_string_to_metric_families(generate_openmetrics(registry).decode())}
    assert len(families) == len(METRICS) + 1
    assert all(f.documentation for f in families.values())


def test_a_scrape_sees_a_running_epoch_and_an_unregistered_loader_is_gone(made):
    registry = CollectorRegistry(auto_describe=True)
    with DataLoader(made.plan, batch_size=8) as loader:
        collector = export_prometheus({"train": loader}, registry)
        for n, _ in enumerate(loader, start=1):
            assert registry.get_sample_value("tensorbank_loader_samples_total", {"loader": "train"}) == 8 * n
        with pytest.raises(ValueError, match="Duplicated"):
            export_prometheus({"again": loader}, registry)
        registry.unregister(collector)
        assert generate_latest(registry) == b""


# ---------------------------------------------------------------- OpenTelemetry


def test_opentelemetry_exports_the_same_numbers():
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    export_opentelemetry({"train": TRAIN, "validation": VALIDATION}, provider.get_meter("test"))
    found = {
        m.name: m
        for r in reader.get_metrics_data().resource_metrics
        for s in r.scope_metrics
        for m in s.metrics
    }
    provider.shutdown()
    assert len(found) == len(METRICS) + 2
    points = {p.attributes["loader"]: p.value for p in found["tensorbank.loader.batches"].data.data_points}
    assert points == {"train": 7, "validation": 2}
    assert found["tensorbank.loader.batches"].data.is_monotonic
    wait = found["tensorbank.loader.wait"]
    assert (wait.unit, wait.data.data_points[0].value) == ("s", 1.5)
    assert found["tensorbank.loader.read"].unit == "By"
    gap = found["tensorbank.loader.gap_p50"]
    assert gap.data.data_points[0].value == pytest.approx(0.3, rel=0.05)
    assert not hasattr(gap.data, "is_monotonic"), "a gauge is no sum"


def test_without_the_libraries_the_message_says_what_to_install():
    code = (
        "import sys\n"
        "from tensorbank import InvalidInputError\n"
        "from tensorbank_loader import telemetry as t\n"
        "assert not {'prometheus_client', 'opentelemetry'} & set(sys.modules)\n"
        "sys.modules['prometheus_client'] = sys.modules['opentelemetry.metrics'] = None\n"
        "for export in (t.export_prometheus, t.export_opentelemetry):\n"
        "    try: export({})\n"
        "    except InvalidInputError as error: print(error.kind, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("missing-extra") == done.stdout.count("tensorbank[telemetry]") == 2


# ---------------------------------------------------------------- one line


def test_rates_are_of_the_time_in_between():
    before = LoaderStats(samples=1000, bytes_read=10**9, tensor_bytes=10**9, wait_s=1.0)
    now = LoaderStats(samples=5000, bytes_read=2 * 10**9, tensor_bytes=5 * 10**9, wait_s=1.5, n_ahead=9)
    expected = "2,000 samples/s, 500 MB/s fetched, 2,000 MB/s decoded, waiting 25%, 9 ahead"
    assert rates(before, now, 2.0) == expected
    cached = replace(now, cache=CacheStats(hit_bytes=3 * 10**9))
    assert rates(before, cached, 2.0) == expected.replace("fetched,", "fetched, 1,500 MB/s cached,")


def test_lines_where_there_is_no_terminal(made, capsys):
    with DataLoader(made.plan, batch_size=8, shuffle=False) as loader:
        shown = [batch["sample_id"] for batch in with_progress(loader)]
        assert shown == [batch["sample_id"] for batch in loader]
        assert loader.state_dict()["epoch"] == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"batch 5 of 5: [\d,]+ samples/s, .* waiting \d+%, \d+ ahead\n", err)


def test_a_resumed_epoch_goes_on_counting(made, capsys):
    with DataLoader(made.plan, batch_size=8) as loader:
        list(islice(loader, 3))
        loader.load_state_dict(loader.state_dict())
        assert len(list(with_progress(loader))) == 2
    assert capsys.readouterr().err.startswith("batch 5 of 5: ")


def test_a_bar_on_a_terminal(made, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    with DataLoader(made.plan, batch_size=8) as loader:
        assert len(list(with_progress(loader))) == 5
    err = capsys.readouterr().err
    assert "5/5" in err
    assert "samples/s" in err
