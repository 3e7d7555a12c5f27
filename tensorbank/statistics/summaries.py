"""Statistics as answers: what a selection's pixels are like, from the index alone.

Mean and standard deviation merge the samples' exactly (to float64 rounding), bounds and class shares are exact. Quantiles are
bracketed: each sample's are stored, and the pixels between two of them may lie anywhere in between, so the quantile of the
selection lies in ``[low, high]``, and ``estimate`` takes them to lie in the middle.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.errors import ErrorKind, NotFoundError, nearest
from tensorbank.schema import Modality
from tensorbank.statistics.band_stats import QUANTILES, bin_edges

__all__ = [
    "BandSummary",
    "Quantile",
    "Statistics",
    "bracket_quantiles",
    "histogram_quantiles",
    "merge_moments",
    "of_samples",
    "of_shards",
]

MAX_SUMMED = 1e250
"""The magnitude beyond which means are weighted before they are added,
which rounds more but does not overflow."""
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of a selection: it lies in ``[low, high]``."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, repr=False)
class BandSummary:
    """One band over a selection. Without a valid pixel, everything but the counts is None or empty.

    A statistic that the index does not know of some of the samples (beyond the range of float64) is None, never NaN.
    """

    name: str
    count: int
    valid: int
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: Mapping[str, Quantile] | None = None

    def __repr__(self) -> str:
        share = self.valid / self.count if self.count else 0.0
        numbers = (
            f"{_number(self.min)} to {_number(self.max)}, mean {_number(self.mean)} ± {_number(self.std)}"
        )
        return f"BandSummary({self.name!r}, {share:.1%} valid{', ' + numbers if self.valid else ''})"


@dataclass(frozen=True, slots=True, repr=False)
class Statistics:
    """One modality over a selection.

    ``n_samples`` counts the samples that have the modality. Continuous modalities have ``bands``, categorical ones ``shares``
    by class name, of all pixels.
    """

    modality: str
    n_samples: int
    bands: tuple[BandSummary, ...] = ()
    shares: Mapping[str, float] | None = None

    def __getitem__(self, band: str) -> BandSummary:
        """Return one band by name; NotFoundError with the nearest names if there is none."""
        for summary in self.bands:
            if summary.name.lower() == band.lower():
                return summary
        raise NotFoundError(
            f"{self.modality} has no band {band!r}.{nearest(band, [b.name for b in self.bands])}",
            kind=ErrorKind.UNKNOWN_BAND,
        )

    @property
    def mean(self) -> tuple[float | None, ...]:
        """The means in the order of the bands, for normalisation."""
        return tuple(b.mean for b in self.bands)

    @property
    def std(self) -> tuple[float | None, ...]:
        """The standard deviations in the order of the bands, for normalisation."""
        return tuple(b.std for b in self.bands)

    def __repr__(self) -> str:
        """Return one line; ``str()`` gives the table, and a notebook shows it."""
        what = f"{len(self.bands)} bands" if self.shares is None else f"{len(self.shares)} classes"
        return f"Statistics({self.modality!r}, {self.n_samples:,} samples, {what})"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self) -> str:
        if self.shares is not None:
            rows = [f"{name:<20}{share:>8.2%}" for name, share in self.shares.items()]
            return "\n".join([f"{self.modality} over {self.n_samples:,} samples", *rows])
        header = f"{'band':<8}{'valid':>8}" + "".join(
            f"{n:>12}" for n in ("min", "mean", "std", "p50", "max")
        )
        rows = [header]
        for b in self.bands:
            share = b.valid / b.count if b.count else 0.0
            median = b.quantiles["p50"].estimate if b.quantiles else None
            numbers = "".join(f"{_number(v):>12}" for v in (b.min, b.mean, b.std, median, b.max))
            rows.append(f"{b.name:<8}{share:>8.1%}{numbers}")
        return "\n".join([f"{self.modality} over {self.n_samples:,} samples", *rows])


def _number(value: float | None) -> str:
    """Return a number of five digits, for people."""
    return "" if value is None else f"{value:.5g}"


def bracket_quantiles(knots: Float64, valid: Int64) -> dict[str, Quantile]:
    """Bracket the quantiles of a union of samples by each one's quantiles. Pure.

    Parameters
    ----------
    knots
        (n, 2 + q) ascending along axis 1: smallest value, the quantiles of
        :data:`tensorbank.statistics.band_stats.QUANTILES`, largest value.
    valid
        (n,) pixels that each sample's knots describe.

    Returns
    -------
    By quantile name. A stored quantile is a lower order statistic, so at least ``floor(p (n - 1)) + 1`` pixels are at or
    below it: the segments between knots hold at least that many, and at most as many strictly below it.
    """
    probabilities = np.array([p for _, p in QUANTILES])
    ranks = np.floor(probabilities[None, :] * (valid[:, None] - 1)) + 1
    upto = np.concatenate([np.ones((len(valid), 1)), ranks, valid[:, None].astype(np.float64)], axis=1)
    weights = np.diff(upto, axis=1).reshape(-1)
    first = np.ones(len(valid))  # the smallest pixel itself
    low = np.concatenate([knots[:, 0], knots[:, :-1].reshape(-1)])
    high = np.concatenate([knots[:, 0], knots[:, 1:].reshape(-1)])
    weight = np.concatenate([first, weights])
    total = int(valid.sum())
    wanted = np.floor(probabilities * (total - 1)) + 1
    lows, highs, middles = (_weighted(v, weight, wanted) for v in (low, high, (low + high) / 2))
    rows = zip(QUANTILES, middles, lows, highs, strict=True)
    return {name: Quantile(float(m), float(lo), float(hi)) for (name, _), m, lo, hi in rows}


def _weighted(values: Float64, weights: Float64, ranks: Float64) -> Float64:
    """Return the values at some ranks (from 1) of the sorted values, each repeated by its weight."""
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weights[order])
    at = np.minimum(np.searchsorted(upto, ranks, side="left"), len(values) - 1)
    found: Float64 = values[order][at]
    return found


def merge_moments(valid: Int64, mean: Float64, std: Float64) -> tuple[float, float]:
    """Return the mean and population standard deviation of the union of samples
    with at least one valid pixel. Pure.

    The deviations are summed about the common mean, so that nothing cancels (Chan, Golub, LeVeque 1979).
    """
    weight = valid.astype(np.float64)
    total = weight.sum()
    common = (
        float((weight / total * mean).sum())
        if np.abs(mean).max() > MAX_SUMMED
        else float((weight * mean).sum() / total)
    )
    m2 = float((weight * (std * std + (mean - common) ** 2)).sum())
    return common, float(np.sqrt(m2 / total))


def histogram_quantiles(counts: Int64, low: float, high: float) -> dict[str, Quantile]:
    """Return the quantiles of pixels from their histogram over
    :func:`tensorbank.statistics.band_stats.bin_edges` and their bounds. Pure.

    The bracket is the bin, cut by the bounds: 3.1 % of the value at most.
    """
    edges = np.append(bin_edges(), np.inf)
    upto = np.cumsum(counts)
    found = {}
    for name, p in QUANTILES:
        at = int(np.searchsorted(upto, np.floor(p * (upto[-1] - 1)) + 1))
        bracket = max(float(edges[at]), low), min(float(edges[at + 1]), high)
        found[name] = Quantile(sum(bracket) / 2, *bracket)
    return found


def of_samples(modality: Modality, rows: pa.Table) -> Statistics:
    """Summarize a selection by the modality's statistics fields, one row per sample. Pure."""
    return _summary(modality, rows, rows.num_rows, _of_sample_rows)


def of_shards(modality: Modality, rows: pa.Table) -> Statistics:
    """Summarize whole shards by their roll-ups, one row per shard, with ``n_samples``. Pure."""
    return _summary(modality, rows, int(_column(rows, "n_samples").sum()), _of_shard_rows)


def _summary(
    modality: Modality, rows: pa.Table, n_samples: int, summarize: Callable[[str, pa.Table], BandSummary]
) -> Statistics:
    if modality.categorical:
        share = pa.Table.from_struct_array(rows["share"]) if rows.num_rows else None
        count = _column(rows, "count")
        total = float(count.sum())
        shares = {
            name: float((_column(share, name) * count).sum()) / total if share is not None and total else 0.0
            for _, name in modality.classes
        }
        return Statistics(modality.name, n_samples, shares=shares)
    if len(modality.bands) == 1:
        return Statistics(modality.name, n_samples, (summarize(modality.band_names[0], rows),))
    bands = (
        summarize(name, pa.Table.from_struct_array(rows[name]) if rows.num_rows else rows.select([]))
        for name in modality.band_names
    )
    return Statistics(modality.name, n_samples, tuple(bands))


def _of_sample_rows(name: str, rows: pa.Table) -> BandSummary:
    if not rows.num_rows:
        return BandSummary(name, 0, 0)
    count, valid = int(_column(rows, "count").sum()), _column(rows, "valid").astype(np.int64)
    some = valid > 0
    if not some.any():
        return BandSummary(name, count, 0)
    low, high, mean, std = (_column(rows, field)[some] for field in ("min", "max", "mean", "std"))
    knots = np.stack([low, *(_column(rows, q)[some] for q, _ in QUANTILES), high], axis=1)
    known = bool(np.isfinite(knots).all())
    return BandSummary(
        name,
        count,
        int(valid.sum()),
        _known(low.min()),
        _known(high.max()),
        *_moments(valid[some], mean, std),
        bracket_quantiles(np.maximum.accumulate(knots, axis=1), valid[some]) if known else None,
    )


def _of_shard_rows(name: str, rows: pa.Table) -> BandSummary:
    if not rows.num_rows:
        return BandSummary(name, 0, 0)
    count, valid = int(_column(rows, "count").sum()), _column(rows, "valid").astype(np.int64)
    some = valid > 0
    if not some.any():
        return BandSummary(name, count, 0)
    low, high, mean, m2 = (_column(rows, field)[some] for field in ("min", "max", "mean", "m2"))
    counts = np.zeros(len(bin_edges()), np.int64)
    bins, numbers = (rows[field].combine_chunks().flatten().to_numpy() for field in ("bins", "bin_counts"))
    np.add.at(counts, bins, numbers)
    least, most = _known(low.min()), _known(high.max())
    unknown = rows["bins"].filter(pa.array(some)).null_count  # of shards that lost samples
    quantiles = None if unknown or least is None or most is None else histogram_quantiles(counts, least, most)
    moments = _moments(valid[some], mean, np.sqrt(m2 / valid[some]))
    return BandSummary(name, count, int(valid.sum()), least, most, *moments, quantiles)


def _moments(valid: Int64, mean: Float64, std: Float64) -> tuple[float | None, float | None]:
    """Return the mean and standard deviation of a union;
    None where that of one of its members is not known.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        common, spread = merge_moments(valid, mean, std)
    return _known(common), _known(spread)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _column(rows: pa.Table, name: str) -> Float64:
    """Return a column of numbers, null as NaN."""
    numbers: Float64 = rows[name].to_numpy().astype(np.float64)
    return numbers
