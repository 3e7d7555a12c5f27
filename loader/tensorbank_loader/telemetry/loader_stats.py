"""The statistics of a loader: what a run has cost, and who waited for whom."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from tensorbank.fetch import FetchStats
from tensorbank_loader.telemetry.durations import N_BINS, Durations, bin_of

__all__ = ["LoaderStats", "Meter"]


@dataclass(frozen=True, slots=True)
class LoaderStats(FetchStats):
    """The counts and times since the loader was made, beside those of its fetcher, which run ahead of the batches.

    ``wait_s``, ``step_s`` and ``transform_s`` are times of the consumer's thread, and add up to the time of its loop. ``wait_s``
    near 0 means that the loader keeps up, ``step_s`` near 0 that the consumer does. ``loader/README.md`` has a table of what to
    change.

    Parameters
    ----------
    batches, samples, tensor_bytes
        Batches and samples that were handed to the consumer, and their decoded bytes, fill values included.
    wait_s
        Seconds that the consumer waited for batches. On a GPU they include waits for the device, which the host is never more
        than two steps ahead of, and with ``transform_ahead`` waits for the transform.
    step_s
        Seconds that the loader waited for the consumer, between one batch and the demand for the next.
    transform_s
        Seconds in the transform; on a GPU, only in starting its work. With ``transform_ahead`` it has a thread of its own, and
        they are 0.
    decode_s
        Seconds in verifying and decoding, summed over threads.
    skipped
        Modalities of samples that were left out, with ``on_error="skip"``.
    gaps
        Waits for batches one by one, each the gap between two steps.
    n_ahead, inflight_bytes
        Batches that are under way or wait for the consumer, and their memory, at this moment.
    """

    batches: int = 0
    samples: int = 0
    tensor_bytes: int = 0
    wait_s: float = 0.0
    step_s: float = 0.0
    transform_s: float = 0.0
    decode_s: float = 0.0
    skipped: int = 0
    gaps: Durations = field(default_factory=Durations, repr=False)
    n_ahead: int = 0
    inflight_bytes: int = 0

    @property
    def gap_p50_s(self) -> float:
        """The median gap between two steps, to 5 %."""
        return self.gaps.quantile_s(0.5)

    @property
    def gap_p99_s(self) -> float:
        """The 99th percentile of the gaps between two steps, to 5 %."""
        return self.gaps.quantile_s(0.99)


class Meter:
    """A meter of the consumer's side of a loader. The consumer's thread writes to it, and any thread may read it."""

    def __init__(self) -> None:
        self._batches = self._samples = self._tensor_bytes = 0
        self._wait_s = self._step_s = self._transform_s = 0.0
        self._counts = [0] * N_BINS

    def waited(self, seconds: float) -> None:
        """Count a wait of the consumer for a batch."""
        self._wait_s += seconds
        self._counts[bin_of(seconds)] += 1

    def handed(self, n_samples: int, tensor_bytes: int, transform_s: float) -> None:
        """Count a batch that is handed to the consumer."""
        self._batches += 1
        self._samples += n_samples
        self._tensor_bytes += tensor_bytes
        self._transform_s += transform_s

    def stepped(self, seconds: float) -> None:
        """Count the time between a batch and the consumer's demand for the next."""
        self._step_s += seconds

    def stats(
        self, fetched: FetchStats, *, decode_s: float, skipped: int, n_ahead: int, inflight_bytes: int
    ) -> LoaderStats:
        """Return the statistics of everything so far."""
        return LoaderStats(
            **{f.name: getattr(fetched, f.name) for f in fields(fetched)},
            batches=self._batches,
            samples=self._samples,
            tensor_bytes=self._tensor_bytes,
            wait_s=self._wait_s,
            step_s=self._step_s,
            transform_s=self._transform_s,
            decode_s=decode_s,
            skipped=skipped,
            gaps=Durations(tuple(self._counts), self._wait_s),
            n_ahead=n_ahead,
            inflight_bytes=inflight_bytes,
        )
