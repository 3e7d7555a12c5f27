"""The forecasts of loader/FORECAST.md: pictures beside the page, and tables between its markers.

    make forecasts
    python benchmarks/forecasts.py [--only petabyte,...]

All are computed from typical costs and the published speed of ingest, not from costs of this machine, so that every machine
writes the same page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pages.markdown import placed, table
from tensorbank_simulation import (
    DEFAULT_CALIBRATION,
    EpochForecast,
    Latency,
    Setting,
    Workload,
    forecast_ingest,
    made_up_workload,
    simulate,
)
from tensorbank_simulation.pictures import draw_curves

FOLDER = Path(__file__).resolve().parents[1] / "loader"
S3 = Latency.parse("p0=10,p50=25,p90=50,p99=150,p100=800")
"""The latency of an object store in the same region, in reads of some MB."""
CONNECTION_BYTES_S = 90e6
GET_PRICE, EGRESS_PRICE = 0.0004, 0.09
"""The prices of 1,000 GETs, and of a GB to the internet, in US dollars as of 2026."""
CORES = 96
BATCH_SIZE = 32
PETABYTE, SAMPLE_BYTES, RATIO = 1e15, 5e6, 2.5
"""The stored bytes of the large archive, the tensors of a sample, and their bytes to stored ones."""
TERRAMESH = 9_000_000
TERRAMESH_BYTES, TERRAMESH_READS = 4.4e6, 7
RECIPE_BYTES, RECIPE_READS = 2.2e6, 2
"""A sample of TerraMesh in all seven modalities, and in the two of a recipe."""
MEASURED_INGEST = Path(__file__).parent / "results" / "ingest.json"
"""The figures of ``make bench-ingest``, whose samples a second are those of the ingest's workers."""


def node(gbit: float, rate: float, **more: Any) -> Setting:
    """Return nodes of 8 GPUs whose models take so many samples a second."""
    given: dict[str, Any] = {
        "gpus_per_node": 8,
        "n_cores": CORES,
        "step_s": BATCH_SIZE / rate,
        "bandwidth_bytes_s": gbit / 8 * 1e9,
        "connection_bytes_s": CONNECTION_BYTES_S,
        "latency": S3,
        "copy_bytes_s": 20e9,
        "steps_ahead": 2,
        "price_per_1000_requests": GET_PRICE,
        "max_reads": 10_000,
        "simulated_nodes": 1,
        **more,
    }
    return Setting(**given)


def large(reads_per_sample: int) -> Workload:
    """Return a petabyte, stored, for 512 GPUs."""
    return made_up_workload(
        n_samples=round(PETABYTE / SAMPLE_BYTES * RATIO),
        sample_bytes=SAMPLE_BYTES,
        ratio=RATIO,
        batch_size=BATCH_SIZE,
        n_ranks=512,
        reads_per_sample=reads_per_sample,
        blocks_per_sample=24,
    )


def terramesh(*, whole: bool) -> Workload:
    """Return TerraMesh for 8 GPUs: all modalities, or the two of a recipe."""
    return made_up_workload(
        n_samples=TERRAMESH,
        sample_bytes=TERRAMESH_BYTES if whole else RECIPE_BYTES,
        ratio=RATIO,
        batch_size=BATCH_SIZE,
        n_ranks=8,
        reads_per_sample=TERRAMESH_READS if whole else RECIPE_READS,
        blocks_per_sample=31 if whole else 14,
    )


def petabyte() -> str:
    """Draw the wait of 512 GPUs over the network and over the store's limit; return a table."""
    by_network: dict[str, list[tuple[float, float]]] = {}
    rows = []
    for rate in (300, 1000):
        for gbit in (12.5, 25, 50, 100):
            found = simulate(large(2), node(gbit, rate, n_nodes=64), DEFAULT_CALIBRATION)
            by_network.setdefault(f"{rate} samples/s a GPU", []).append((gbit, 100 * found.wait_share))
            if gbit in (25, 50, 100):
                rows.append([f"{rate}", f"{gbit:g}", "no limit", *cells(found)])
    by_store: dict[str, list[tuple[float, float]]] = {}
    for reads in (1, 2):
        for thousands in (50, 100, 200, 400):
            setting = node(100, 300, n_nodes=64, requests_per_s=1e3 * thousands)
            found = simulate(large(reads), setting, DEFAULT_CALIBRATION)
            by_store.setdefault(f"{reads} read{'s' * (reads > 1)} a sample", []).append(
                (thousands, 100 * found.wait_share)
            )
            if reads == 2 and thousands in (100, 200, 400):
                rows.append(["300", "100", f"{thousands},000", *cells(found)])
    waits = "% of the time that GPUs wait"
    panels = [("Gbit/s of a node", waits, by_network), ("thousand requests/s of the store", waits, by_store)]
    draw_curves(panels, FOLDER / "forecast-petabyte.png")
    head = ["samples/s a GPU", "Gbit/s a node", "requests/s", "epoch", "GPUs wait", "binds", "requests"]
    return table(head, rows)


def eight_gpus() -> str:
    """Draw the epoch of TerraMesh on 8 GPUs over the network; return a table."""
    curves: dict[str, list[tuple[float, float]]] = {}
    rows = []
    for name, whole in (("all 7 modalities", True), ("2 of 7", False)):
        for gbit in (5, 10, 25, 50):
            found = simulate(terramesh(whole=whole), node(gbit, 300), DEFAULT_CALIBRATION)
            curves.setdefault(name, []).append((gbit, found.epoch_s / 3600))
            rows.append([name, f"{gbit}", *cells(found), f"{found.egress_bytes / 1e12:.1f} TB"])
    draw_curves([("Gbit/s of the node", "hours of an epoch", curves)], FOLDER / "forecast-8-gpus.png")
    return table(["", "Gbit/s", "epoch", "GPUs wait", "binds", "requests", "read"], rows)


def costs() -> str:
    """Draw what ten epochs on 8 GPUs cost with and without a cache; return a table."""
    work = terramesh(whole=True)
    curves: dict[str, list[tuple[float, float]]] = {}
    rows = []
    for name, cache_bytes in (("no cache", 0.0), ("cache of 4 TB", 4e12), ("cache of 20 TB", 20e12)):
        spent, requests_only, hours = 0.0, 0.0, 0.0
        first, later = (
            simulate(
                work,
                node(25, 300, cache_bytes=cache_bytes, epoch=epoch, price_per_gb=EGRESS_PRICE),
                DEFAULT_CALIBRATION,
            )
            for epoch in (1, 2)
        )
        for epoch in range(1, 11):
            found = first if epoch == 1 else later  # one node has seen everything after one epoch
            spent += found.cost
            requests_only += found.n_requests / 1000 * GET_PRICE
            hours += found.epoch_s / 3600
            curves.setdefault(name, []).append((epoch, spent / 1000))
        rows.append(
            [name, f"{later.hit_share:.0%}", f"{requests_only:,.0f}", f"{spent:,.0f}", f"{hours:.1f}"]
        )
    panel = ("epochs", "thousand dollars, by the internet", curves)
    draw_curves([panel], FOLDER / "forecast-cost.png", log_x=False)
    head = [
        "10 epochs",
        "hits from the second on",
        "dollars, same region",
        "dollars, by the internet",
        "hours",
    ]
    return table(head, rows)


def ingest() -> str:
    """Draw the time of an ingest of TerraMesh over its workers; return a table."""
    measured = json.loads(MEASURED_INGEST.read_text())
    per_worker = measured["figures"]["samples_per_s"]["median"] / measured["setup"]["workers"]
    curves: dict[str, list[tuple[float, float]]] = {}
    rows = []
    numbers = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    for gbit in (10, 25, 100):
        for n in numbers:
            found = forecast_ingest(
                n_samples=TERRAMESH,
                archive_bytes=17e12,
                n_workers=n,
                samples_per_s=per_worker,
                network_bytes_s=gbit / 8 * 1e9,
                serial_s=120.0,
            )
            speed = TERRAMESH / found.seconds / 1000
            curves.setdefault(f"{gbit} Gbit/s for all", []).append((n, speed))
            if n in (16, 64, 256):
                rows.append([f"{n}", f"{gbit}", f"{found.seconds / 3600:.2f} h", f"{found.efficiency:.0%}"])
    draw_curves([("workers", "thousand samples/s", curves)], FOLDER / "forecast-ingest.png")
    told = (
        f"One worker ingests {per_worker:.1f} samples a second ([measured](../benchmarks/README.md#what-does-ingest-cost) with "
        f"{measured['setup']['workers']}); a shard of 512 samples is a task, and the survey and the commit take two minutes "
        "whatever the number of workers. 17 TB of archives come by a network that all share."
    )
    found_rows = table(["workers", "Gbit/s for all", "9 M samples", "of all workers' speed"], rows)
    return f"{told}\n\n{found_rows}"


def cells(found: EpochForecast) -> Sequence[str]:
    """Return what a table shows of a forecast."""
    hours = found.epoch_s / 3600
    epoch = f"{hours:.2f} h" if hours < 10 else f"{hours:.0f} h"
    n = found.n_requests
    requests = f"{n / 1e9:.2f} G" if n >= 1e9 else f"{n / 1e6:.0f} M"
    return [epoch, f"{found.wait_share:.0%}", found.bound_by, requests]


SECTIONS: Mapping[str, Callable[[], str]] = {
    "petabyte": petabyte,
    "8-gpus": eight_gpus,
    "costs": costs,
    "ingest": ingest,
}


def main() -> int:
    """Write the page anew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    names = parser.parse_args().only.split(",")
    if unknown := set(names) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    page = FOLDER / "FORECAST.md"
    for name in names:
        text = SECTIONS[name]()
        page.write_text(placed(page.read_text(), text, name))
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
