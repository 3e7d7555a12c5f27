"""The time of an ingest on many workers, from what one of them does. Pure.

Shards are tasks: a worker writes one at a time, so that the last round may leave workers idle. Workers share the network by which
archives come. The survey of the archives at the beginning, and the commit at the end, take as long whatever their number.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorbank.arguments import number, whole_number

__all__ = ["IngestForecast", "forecast_ingest"]


@dataclass(frozen=True, slots=True)
class IngestForecast:
    """Seconds of an ingest by cause; ``efficiency`` is the speed beside that of all workers with nothing to wait for."""

    seconds: float
    write_s: float
    network_s: float
    serial_s: float
    efficiency: float


def forecast_ingest(
    *,
    n_samples: int,
    archive_bytes: float,
    n_workers: int,
    samples_per_s: float,
    samples_per_shard: int = 512,
    network_bytes_s: float,
    serial_s: float = 0.0,
) -> IngestForecast:
    """Apply the model.

    Parameters
    ----------
    archive_bytes
        Bytes of all archives.
    samples_per_s
        Samples a second of one worker.
    network_bytes_s
        Bytes a second at which archives come, for all workers together.
    serial_s
        Seconds of the survey and of the commit.

    Raises
    ------
    InvalidInputError
        A number makes no sense; the message names it.
    """
    for name, value in (
        ("n_samples", n_samples),
        ("n_workers", n_workers),
        ("samples_per_shard", samples_per_shard),
    ):
        whole_number(name, value, at_least=1)
    number("archive_bytes", archive_bytes, at_least=0)
    number("samples_per_s", samples_per_s, above=0)
    number("network_bytes_s", network_bytes_s, above=0)
    number("serial_s", serial_s, at_least=0)
    n_shards = -(-n_samples // samples_per_shard)
    n_rounds = -(-n_shards // n_workers)
    last = n_samples - (n_shards - 1) * samples_per_shard
    longest = samples_per_shard if n_shards > (n_rounds - 1) * n_workers + 1 else last
    write_s = ((n_rounds - 1) * samples_per_shard + longest) / samples_per_s
    network_s = archive_bytes / network_bytes_s
    seconds = max(write_s, network_s) + serial_s
    return IngestForecast(
        seconds, write_s, network_s, serial_s, n_samples / samples_per_s / n_workers / seconds
    )
