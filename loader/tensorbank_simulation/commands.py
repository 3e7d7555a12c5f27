"""The commands ``tensorbank calibrate`` and ``tensorbank simulate``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tensorbank.cli.options import AwsProfile, Endpoint, Json, Region, bank_at
from tensorbank.cli.output import say, size
from tensorbank.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tensorbank.plans import Plan
    from tensorbank_simulation.calibration import Calibration
    from tensorbank_simulation.forecast import EpochForecast
    from tensorbank_simulation.setting import Setting
    from tensorbank_simulation.workload import Workload

__all__ = ["calibrate", "simulate"]

N_CALIBRATED = 512
"""The number of samples of a table that are read to measure its store and modalities."""
MAX_BATCHES, MAX_WORKED_OUT = 32, 8
"""The number of batches of a process, and of processes, that are worked out of a plan and stand for the others of many GPUs."""
DEFAULT_RTT_MS = 20.0
DEFAULT_GBIT = 25.0
DEFAULT_READS, DEFAULT_BLOCKS, DEFAULT_RATIO = 1, 12, 2.5
"""The reads and blocks of a made-up sample, which has the bands of Sentinel-2, and its bytes of tensors to stored ones."""

OptionalBank = Annotated[
    str | None,
    typer.Argument(
        metavar="BANK", help="Folder or URL of the bank: file://, s3://, gs://, az://.", show_default=False
    ),
]


def calibrate(
    bank: OptionalBank = None,
    table: Annotated[
        str | None, typer.Option(help="Table whose modalities are measured; the first by default.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="About how long each question to the store is asked.")
    ] = 2.0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the calibration to this file.")
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Measure what reading costs on this machine, and what the network to a bank does."""
    from tensorbank_simulation.measurement import calibrate as measure

    plan = None
    if bank is not None:
        opened = bank_at(bank, endpoint, region, aws_profile)
        names = opened.tables()
        if not names:
            raise InvalidInputError(f"{bank} has no table to measure; leave it out, or ingest one")
        plan = opened.sql(f'SELECT * FROM "{table or names[0]}" LIMIT {N_CALIBRATED}').plan()
    found = measure(plan, seconds=seconds)
    if out is not None:
        out.write_text(found.to_json() + "\n", encoding="utf-8")
    say(found.to_json() if as_json else _calibration_text(found))


def simulate(
    bank: OptionalBank = None,
    sql: Annotated[
        str | None,
        typer.Argument(metavar="SQL", help="Statement that selects modalities.", show_default=False),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Samples of the epoch, instead of a bank and a statement.")
    ] = None,
    sample_bytes: Annotated[
        float | None, typer.Option(min=1, help="Bytes of a sample's tensors, as decoded.")
    ] = None,
    reads_per_sample: Annotated[
        int | None,
        typer.Option(
            min=1, help="Requests for a sample: one for each modality; 1 by default.", show_default=False
        ),
    ] = None,
    blocks_per_sample: Annotated[
        int | None,
        typer.Option(
            min=1, help="Blocks of a sample: one for each band and date; 12 by default.", show_default=False
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(help="Bytes of tensors to stored ones; 2.5 by default.", show_default=False),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(help="Codec profile: balanced, the default, small, hot or raw.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of a batch of each GPU.")] = 32,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs of each node, one process each.")] = 1,
    samples_per_s_per_gpu: Annotated[
        float | None,
        typer.Option(
            help="Samples that the model takes, a second and GPU. Without it, as fast as they come."
        ),
    ] = None,
    cores: Annotated[
        int | None, typer.Option(min=1, help="Cores of a node; those of the calibration by default.")
    ] = None,
    network_gbit: Annotated[
        float | None,
        typer.Option(help="Gbit/s of a node's network; as calibrated, or 25.", show_default=False),
    ] = None,
    connection_mb_s: Annotated[
        float | None,
        typer.Option(help="MB/s of one connection; as calibrated, or no limit.", show_default=False),
    ] = None,
    store_gbit: Annotated[
        float | None,
        typer.Option(help="Gbit/s of the store for all nodes; no limit by default.", show_default=False),
    ] = None,
    rtt: Annotated[
        str | None,
        typer.Option(
            help="Milliseconds to the first byte: 20, or p50=20,p99=200,p100=900; as calibrated, or 20.",
            show_default=False,
        ),
    ] = None,
    throttle: Annotated[
        float | None,
        typer.Option(help="Requests a second that the store answers, for all nodes.", show_default=False),
    ] = None,
    request_price: Annotated[float, typer.Option(help="Price of 1,000 requests.")] = 0.0004,
    egress_price: Annotated[float, typer.Option(help="Price of a GB that leaves the store.")] = 0.0,
    cache_bytes: Annotated[float, typer.Option(help="Bytes of a cache on each node's disk.")] = 0.0,
    epoch: Annotated[int, typer.Option(min=1, help="Number of the epoch: a cache knows those before.")] = 1,
    shuffle: Annotated[
        bool | None,
        typer.Option(
            help="Read a bank in a random order, the default, or in that of the query.", show_default=False
        ),
    ] = None,
    window_bytes: Annotated[int, typer.Option(min=0, help="Memory of batches ahead, of each process.")] = 1
    << 30,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Reads under way in a process; found by themselves by default.", show_default=False
        ),
    ] = None,
    copy_gb_s: Annotated[float, typer.Option(help="GB/s of copies to a GPU.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the order and of all draws.")] = 0,
    simulated_nodes: Annotated[
        int, typer.Option(min=1, help="Most nodes that are simulated; they stand for all.")
    ] = 2,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="What `tensorbank calibrate -o FILE` wrote; else typical costs.", show_default=False
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Draw how the training scales over nodes.", show_default=False),
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Forecast an epoch of a training: its time, the GPUs' wait, what the store is asked for and costs, and what binds."""
    from tensorbank.fetch import FetchOptions
    from tensorbank.reading import DEFAULT_PROFILE
    from tensorbank_simulation.calibration import DEFAULT_CALIBRATION, Calibration
    from tensorbank_simulation.forecast import simulate as run
    from tensorbank_simulation.latency import Latency
    from tensorbank_simulation.setting import Setting
    from tensorbank_simulation.workload import made_up_workload, workload_of

    known = DEFAULT_CALIBRATION if calibration is None else Calibration.load(calibration)
    measured = known.latency or Latency.constant(DEFAULT_RTT_MS / 1e3)
    bandwidth_bytes_s = known.bandwidth_bytes_s if known.latency is not None else DEFAULT_GBIT / 8 * 1e9
    if samples_per_s_per_gpu is not None and not samples_per_s_per_gpu > 0:
        raise InvalidInputError(f"samples-per-s-per-gpu is {samples_per_s_per_gpu}; it must be above 0")
    setting = Setting(
        n_nodes=nodes,
        gpus_per_node=gpus_per_node,
        step_s=batch_size / samples_per_s_per_gpu if samples_per_s_per_gpu else 0.0,
        n_cores=known.n_cores if cores is None else cores,
        bandwidth_bytes_s=bandwidth_bytes_s if network_gbit is None else network_gbit / 8 * 1e9,
        connection_bytes_s=known.connection_bytes_s if connection_mb_s is None else connection_mb_s * 1e6,
        store_bytes_s=float("inf") if store_gbit is None else store_gbit / 8 * 1e9,
        requests_per_s=float("inf") if throttle is None else throttle,
        latency=measured if rtt is None else Latency.parse(rtt),
        price_per_1000_requests=request_price,
        price_per_gb=egress_price,
        cache_bytes=cache_bytes,
        epoch=epoch,
        copy_bytes_s=copy_gb_s * 1e9,
        steps_ahead=2,
        options=FetchOptions(max_inflight_bytes=window_bytes, n_threads=threads),
        is_local=known.is_local and rtt is None,
        seed=seed,
        simulated_nodes=simulated_nodes,
    )
    own = {
        "--reads-per-sample": reads_per_sample,
        "--blocks-per-sample": blocks_per_sample,
        "--ratio": ratio,
        "--codec": codec,
    }
    _check_use(
        bank, [name for name, value in own.items() if value is not None], has_order=shuffle is not None
    )
    plan = _plan(bank, sql, samples, sample_bytes, endpoint, region, aws_profile)

    def workload(n_nodes: int) -> Workload:
        n_ranks = n_nodes * gpus_per_node
        if plan is not None:
            simulated = min(simulated_nodes, n_nodes) * gpus_per_node
            return workload_of(
                plan,
                batch_size=batch_size,
                n_ranks=n_ranks,
                simulated_ranks=min(simulated, MAX_WORKED_OUT),
                shuffle=shuffle is not False,
                seed=seed,
                options=setting.options,
                max_batches=None if n_ranks == 1 else MAX_BATCHES,
            )
        return made_up_workload(
            n_samples=samples or 0,
            sample_bytes=sample_bytes or 0.0,
            batch_size=batch_size,
            n_ranks=n_ranks,
            reads_per_sample=DEFAULT_READS if reads_per_sample is None else reads_per_sample,
            blocks_per_sample=DEFAULT_BLOCKS if blocks_per_sample is None else blocks_per_sample,
            ratio=DEFAULT_RATIO if ratio is None else ratio,
            profile=DEFAULT_PROFILE if codec is None else codec,
        )

    forecast = run(workload(nodes), setting, known)
    if plot is not None:
        _draw(plot, setting, known, workload)
    say(json.dumps(forecast.to_dict()) if as_json else _forecast_text(forecast))


def _check_use(bank: str | None, of_made_up: list[str], *, has_order: bool) -> None:
    """Refuse options that would change nothing: of made-up samples where a bank is given, and the other way round."""
    if bank is not None and of_made_up:
        raise InvalidInputError(
            f"{', '.join(of_made_up)} cannot be chosen for samples of a bank, which have their own; leave them out, or give "
            "--samples and --sample-bytes instead of the bank"
        )
    if bank is None and has_order:
        raise InvalidInputError(
            "--shuffle and --no-shuffle are for a bank and a statement; samples that are made up are all alike"
        )


def _plan(
    bank: str | None,
    sql: str | None,
    samples: int | None,
    sample_bytes: float | None,
    endpoint: str | None,
    region: str | None,
    profile: str | None,
) -> Plan | None:
    """Return the plan of a bank and a statement; None where samples are given by number and size."""
    if bank is not None and sql is not None and samples is None and sample_bytes is None:
        return bank_at(bank, endpoint, region, profile).sql(sql).plan()
    if bank is None and sql is None and samples is not None and sample_bytes is not None:
        return None
    raise InvalidInputError("give a bank and a statement, or --samples and --sample-bytes")


def _draw(plot: Path, setting: Setting, known: Calibration, workload: Callable[[int], Workload]) -> None:
    """Draw forecasts for powers of two of nodes, up to twice those of the setting."""
    from tensorbank_simulation.forecast import simulate as run
    from tensorbank_simulation.pictures import draw_scaling

    numbers = [2**power for power in range((2 * setting.n_nodes).bit_length())]
    small = replace(setting, max_reads=setting.max_reads // 4)
    draw_scaling([(n, run(workload(n), replace(small, n_nodes=n), known)) for n in numbers], plot)


def _forecast_text(f: EpochForecast) -> str:
    """Return a forecast for people."""
    busy = ", ".join(f"{name} {share:.0%}" for name, share in f.busy.items())
    part = "" if f.n_simulated_steps == f.n_steps else f" ({f.n_simulated_steps:,} simulated)"
    return (
        f"an epoch of {f.n_steps:,} steps{part} takes {_duration(f.epoch_s)}: {f.samples_per_s:,.0f} samples/s; the first batch "
        f"after {f.first_batch_s:.2f} s\n"
        f"GPUs wait {f.wait_share:.1%} of it, {_duration(f.wait_s)}; what binds: {f.bound_by}\n"
        f"store    {size(int(f.egress_bytes))} in {f.n_requests:,.0f} requests, {f.n_refused:,.0f} refused, {f.n_hedges:,.0f} "
        f"asked again as late; {f.hit_share:.0%} of reads in the cache; cost {f.cost:,.2f}\n"
        f"busy     {busy}; {f.core_s:,.0f} CPU s\n"
        f"process  {size(f.window_bytes)} of batches ahead, {f.depth} reads under way"
    )


def _calibration_text(c: Calibration) -> str:
    """Return a calibration for people."""
    decoding = ", ".join(f"{name} {s:.2f}" for name, s in c.decode_s_per_gb.items())
    lines = [
        f"{c.machine}: {c.n_cores} cores",
        f"decode   CPU s/GB of tensors: {decoding}",
        f"loader   {c.read_s * 1e6:.0f} us a read, {c.block_s * 1e6:.0f} us a block, {c.batch_s * 1e3:.1f} ms a batch",
        f"request  {c.request_s * 1e6:.0f} us, and {c.request_s_per_gb:.2f} s/GB that it brings",
        (
            f"cache    a hit {c.hit_s * 1e6:.0f} us and {c.hit_s_per_gb:.2f} s/GB, a miss {c.miss_s * 1e6:.0f} us and "
            f"{c.miss_s_per_gb:.2f} s/GB"
        ),
    ]
    if c.is_local:
        lines.append("store    a disk of this machine")
    elif c.latency is not None:
        q = [f"p{share * 100:g} {c.latency.quantile_s(share) * 1e3:.1f}" for share in (0.5, 0.9, 0.99)]
        lines.append(
            f"store    first byte after ms: {', '.join(q)}; {c.bandwidth_bytes_s / 1e6:,.0f} MB/s, "
            f"{c.connection_bytes_s / 1e6:,.0f} MB/s a connection"
        )
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    """Return a duration in the units that suit it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
