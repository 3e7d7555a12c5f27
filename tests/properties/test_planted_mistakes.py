"""The tests of pruning, bounds, roll-ups and pixel predicates notice mistakes: each of these is planted, and must be caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest

import tensorbank.fetch.concurrency
import tensorbank.planning.pinned_table
import tensorbank.planning.pixel_judge
import tensorbank.pruning.conditions
import tensorbank.pruning.necessary
import tensorbank.pruning.table_conditions
import tensorbank.statements.own_predicates
import tensorbank.statements.pixel_bounds
import tensorbank.statements.pixel_predicates
import tensorbank.statistics.band_stats
import tensorbank_indexer.rows.shards
from support.differential.bed import Bed
from support.differential.check import compare
from support.differential.examples import KEPT, OLD, PRUNED, filled
from support.differential.planted import planted
from support.differential.rows import SCHEMA
from tensorbank.fetch.concurrency import FIRST_DEPTH, Concurrency
from tensorbank.index_schema import samples_schema
from tensorbank.planning import pinned_table, pixel_judge
from tensorbank.pruning import conditions, known_bounds, necessary, table_conditions
from tensorbank.pruning.conditions import Compare, may_match
from tensorbank.sql import expressions
from tensorbank.statements import own_predicates, pixel_bounds, pixel_predicates
from tensorbank.statistics.band_stats import BandStats, merge_all
from tensorbank_indexer.measures import measure
from tensorbank_indexer.rows import StoredModality, StoredSample
from tensorbank_indexer.rows.samples import sample_rows
from tensorbank_indexer.rows.shards import shard_row

EXAMPLES = {**PRUNED, **KEPT}
Check = Callable[[], None]


@dataclass(frozen=True)
class Mistake:
    """A piece of source and what replaces it; ``caught_by`` names examples, or is a check that must fail."""

    module: ModuleType
    right: str
    wrong: str
    caught_by: tuple[str, ...] | Check


def kept(op: str, value: object, low: object, high: object, kind: pa.DataType) -> bool:
    """Tell whether a block with these bounds is kept."""
    found = pa.array([low], kind), pa.array([high], kind)
    return bool(may_match(Compare(("x",), op, value), lambda _: found, 1)[0])


def check_constants() -> None:
    """Check that constants are compared as SQL may have rounded them, and no wider."""
    third = float(np.float32(0.1))  # greater than 0.1
    assert kept("=", 0.1, third, third, pa.float32())
    assert kept("<=", 0.1, third, third, pa.float32())
    assert kept("!=", 0.1, third, third, pa.float32())
    assert kept("<=", 3, 3, 3, pa.int64())
    assert kept(">=", 3, 3, 3, pa.int64())
    assert kept("=", 3, 3, 3, pa.int64())
    assert kept("<", 2**70, 0, 1, pa.int64())
    assert kept(">", 2.5, 0, 3, pa.int64())
    assert kept("=", float(2**53), 2**53 + 1, 2**53 + 1, pa.int64())
    assert not kept("<", 3, 3, 9, pa.int64())


def check_times() -> None:
    """Check that times of the log are cut to milliseconds."""
    moment = 1_600_000_000_123_000
    cut = pa.array([moment], pa.timestamp("us", "UTC"))
    asked = Compare(("x",), ">=", "2020-09-13T12:26:40.123456+00:00")
    assert may_match(asked, lambda _: (cut, cut), 1)[0]
    without_zone = Compare(("x",), ">=", "2020-09-13 12:26:40.123456")
    assert may_match(without_zone, lambda _: (cut, cut), 1)[0]
    later = Compare(("x",), ">=", "2020-09-13 12:27:00")
    assert not may_match(later, lambda _: (cut, cut), 1)[0]


def check_unknown() -> None:
    """Check that unknown and impossible bounds rule nothing out."""
    for low, high in ((None, None), (np.nan, 1.0), (0.0, np.nan), (np.inf, -np.inf), (np.inf, np.inf)):
        for op in ("<", "<=", ">", ">=", "="):
            assert kept(op, 0.5, low, high, pa.float64()), (op, low, high)


def check_merging() -> None:
    """Check that statistics of two sets of pixels are those of all of them."""
    rng = np.random.default_rng(3)
    parts = [rng.normal(size, 3, size) for size in (4, 60, 7)]
    merged = merge_all(
        BandStats(len(p), len(p), float(p.min()), float(p.max()), float(p.mean()), float(p.var() * len(p)))
        for p in parts
    )
    every = np.concatenate(parts)
    assert (merged.count, merged.valid) == (71, 71)
    assert (merged.min, merged.max) == (every.min(), every.max())
    assert merged.mean == pytest.approx(every.mean())
    assert merged.std == pytest.approx(every.std())
    empty = merge_all([BandStats(5), merged, BandStats(5)])
    assert empty.mean == merged.mean


def check_rollups() -> None:
    """A shard's row bounds the rows of its samples."""
    rng = np.random.default_rng(4)
    modality = SCHEMA["S1GRD"]
    samples = []
    for i in range(6):
        given = rng.normal(10 * i, 2, (1, 2, 8, 8)).astype(np.float32)
        given[0, 0, 0, : i % 3] = np.nan
        ref = {"key": "k", "row": i, "offset": 0, "length": 4, "block_bytes": [2, 2]}
        measured = StoredModality(ref, {}, (), None, measure(given, modality, 2))
        lon = 178.0 + i if i < 2 else None if i == 2 else -180.0 + i
        box = {"west": 179.0, "east": -179.5, "south": -1.0, "north": 1.0} if i == 1 else None
        columns = {"lon": np.nan if i == 0 else lon, "cloud_cover": i / 10, "season": "summer", "bbox": box}
        samples.append(StoredSample(i, columns, {"S1GRD": measured}))
    (shard,) = shard_row(samples, SCHEMA, "p", 0).to_pylist()
    rows = sample_rows(samples, SCHEMA).to_pylist()
    assert sample_rows(samples, SCHEMA).schema == samples_schema(SCHEMA)
    for name in ("lon", "cloud_cover"):
        values = [r[name] for r in rows if r[name] is not None]
        assert (shard[f"min_{name}"], shard[f"max_{name}"]) == (min(values), max(values))
    assert shard["bbox"]["west"] <= -179.5 < 179.0 <= shard["bbox"]["east"]
    for band in ("vv", "vh"):
        each = [r["S1GRD"][band] for r in rows]
        found = shard["S1GRD"][band]
        assert found["min"] == min(b["min"] for b in each)
        assert found["max"] == max(b["max"] for b in each)
        assert found["min_mean"] == min(b["mean"] for b in each)
        assert found["max_mean"] == max(b["mean"] for b in each)
        assert found["valid"] == sum(b["valid"] for b in each)


def check_rounds() -> None:
    """Check that reads that end within one moment say nothing of the rate."""
    depth = Concurrency()
    for i in range(4 * FIRST_DEPTH):
        depth.add(0.001, i * 1e-5)
    assert depth.n == FIRST_DEPTH


MISTAKES = {
    # what an expression asks
    "NOT (a AND b) as NOT a AND NOT b": Mistake(
        necessary,
        "AllOf(conditions) if is_and != negated else",
        "AllOf(conditions) if is_and else",
        ("not and",),
    ),
    "a OR b as a AND b": Mistake(
        necessary,
        "AllOf(conditions) if is_and != negated else",
        "AllOf(conditions) if not negated else",
        ("or",),
    ),
    "NOT BETWEEN as BETWEEN": Mistake(
        necessary,
        "return AnyOf(tuple(_comparison(side.negated(), resolve) for side in sides))",
        "return AllOf(tuple(_comparison(side, resolve) for side in sides))",
        ("not between",),
    ),
    "NOT left out": Mistake(necessary, "negated=not negated", "negated=negated", ("not and",)),
    "a comparison negated by half": Mistake(
        expressions, '_NEGATED = {">": "<=", ">=": "<",', '_NEGATED = {">": "<", ">=": "<=",', ("not or",)
    ),
    "a comparison mirrored by half": Mistake(
        expressions, '_MIRRORED = {">": "<", ">=": "<=",', '_MIRRORED = {">": "<", ">=": ">=",', ("mirrored",)
    ),
    "NOT IN as IN": Mistake(
        necessary,
        "case In(value, listed) if not negated:",
        "case In(value, listed):",
        ("not in",),
    ),
    "the first of a list only": Mistake(
        necessary, "for one in listed if not", "for one in listed[:1] if not", ("first of a list",)
    ),
    "NOT within a box as within": Mistake(
        necessary, "as call if not negated and not", "as call if not", ("not in a box",)
    ),
    "a box across the date line as empty": Mistake(
        necessary,
        "AllOf(sides) if west < east else AnyOf(sides)",
        "AllOf(sides)",
        ("box across the date line",),
    ),
    "named arguments by position": Mistake(
        necessary,
        "ANYTHING if by_name else _within_bbox(arguments, resolve)",
        "_within_bbox([*arguments, *by_name.values()], resolve)",
        ("box with named arguments",),
    ),
    # what a join lets be asked
    "the right side of ASOF": Mistake(
        table_conditions,
        '(found.how == "ASOF", False)',
        '(found.how == "ASOF", found.how == "ASOF")',
        ("right of an asof join of a registered table", "right of an asof join"),
    ),
    "both sides of POSITIONAL": Mistake(
        table_conditions, '"CROSS", "NATURAL")', '"CROSS", "NATURAL", "POSITIONAL")', ("positional",)
    ),
    "ON of the left side of LEFT": Mistake(
        table_conditions, '"LEFT": (False, True)', '"LEFT": (True, True)', ("other side of an on",)
    ),
    "ON of the right side of RIGHT": Mistake(
        table_conditions, '"RIGHT": (True, False)', '"RIGHT": (True, True)', ("on of a right join",)
    ),
    "ON of the left side of ANTI": Mistake(
        table_conditions,
        '"ANTI": (False, True)',
        '"ANTI": (True, True)',
        ("other side of an on of an anti join",),
    ),
    "WHERE of the right side of SEMI": Mistake(
        table_conditions,
        '"SEMI": (True, False)',
        '"SEMI": (True, True)',
        ("unqualified name of two tables before a semi join",),
    ),
    "a condition asked of every table": Mistake(
        table_conditions, "condition.owner in (None, number)", "True", ("inner", "left")
    ),
    "all mentions of a table at once": Mistake(
        table_conditions,
        "else AnyOf(tuple(parts)) for mention",
        "else AllOf(tuple(parts)) for mention",
        ("set",),
    ),
    "names that a join makes one": Mistake(
        table_conditions,
        "if not self.same and (self.shared is None or lower[0] in self.shared):",
        "if False:",
        ("using of another type",),
    ),
    "mentions outside of any FROM clause": Mistake(
        table_conditions,
        "if mention is not None and id(node) not in handled:",
        "if False:",
        ("table of a pivot",),
    ),
    "conditions of samples asked of tiles": Mistake(
        pinned_table,
        "conditions.get(level, ANYTHING)",
        'conditions.get("samples", ANYTHING)',
        ("two levels",),
    ),
    # what constants and bounds mean
    "no margin of one float": Mistake(
        conditions,
        "return float(np.nextafter(near, as_kind(-np.inf))), float(np.nextafter(near, as_kind(np.inf)))",
        "return float(value), float(value)",
        check_constants,
    ),
    "no limit of 2^62": Mistake(conditions, " or not abs(value) < 2**62", "", check_constants),
    "integers compared as floats": Mistake(
        conditions, "and abs(value) >= MAX_EXACT", "and False", check_constants
    ),
    "<= as <": Mistake(conditions, 'pc.less if op == "<" else pc.less_equal', "pc.less", check_constants),
    ">= as >": Mistake(
        conditions, 'pc.greater if op == ">" else pc.greater_equal', "pc.greater", check_constants
    ),
    "a block that ends with the constant": Mistake(
        conditions, "pc.greater_equal(high, least))", "pc.greater(high, least))", check_constants
    ),
    "!= of a constant that is rounded": Mistake(
        conditions,
        "elif least.equals(most):",
        "elif True:",
        lambda: _must(kept("!=", 0.5, 0, 0, pa.int64())),
    ),
    "times to the microsecond": Mistake(
        conditions, "LOG_PRECISION = timedelta(milliseconds=1)", "LOG_PRECISION = timedelta(0)", check_times
    ),
    "unknown bounds rule out": Mistake(
        conditions, "as_numpy(mask, True)", "as_numpy(mask, False)", check_unknown
    ),
    "NaN is a bound": Mistake(conditions, "if unknown.any() else", "if False else", check_unknown),
    "the bounds of no value are bounds": Mistake(
        conditions, "& (least < np.inf) & (most > -np.inf)", "", check_unknown
    ),
    # which bounds a column has
    "boxes bound centres": Mistake(
        known_bounds,
        '("lat",): ("min_lat", "max_lat")',
        '("lat",): ("bbox.south", "bbox.north")',
        ("centre of no footprint",),
    ),
    "means of samples bound those of tiles": Mistake(
        known_bounds,
        'if field == ("mean",) and level != "tiles":',
        'if field == ("mean",):',
        ("mean of a tile",),
    ),
    "shares of samples bound those of tiles": Mistake(
        known_bounds,
        'if name is None or leaf[1] != "share" or level == "tiles":',
        'if name is None or leaf[1] != "share":',
        ("share of a tile",),
    ),
    "one season of a shard": Mistake(
        known_bounds,
        '("list_min(seasons)", "list_max(seasons)")',
        '("list_min(seasons)", "list_min(seasons)")',
        lambda: _must(known_bounds._OF_COLUMNS[("season",)][1] == "list_max(seasons)"),
    ),
    # what statistics say of pixels
    "any pixel by the wrong extreme": Mistake(
        pixel_bounds,
        'if predicate.quantifier == "all":\n        low, high = high, low',
        "low, high = high, low",
        ("pixels",),
    ),
    "none may match as none matches": Mistake(
        pixel_bounds,
        'yes, no = f"{low} > 0", f"{high} = 0"',
        'yes, no = f"{low} > 0", f"{low} = 0"',
        ("one value in between",),
    ),
    "some may match as some match": Mistake(
        pixel_bounds,
        'yes, no = f"{low} > 0", f"{high} = 0"',
        'yes, no = f"{high} > 0", f"{high} = 0"',
        ("one value in between",),
    ),
    "all by the pixels that may match": Mistake(
        pixel_bounds, 'f"{high} < {count}"', 'f"{low} < {count}"', ("no pixel of a value",)
    ),
    "every share asks for some": Mistake(
        pixel_bounds,
        'return (comparison == ">" and share >= 0)',
        "return True or (False)",
        ("a small share",),
    ),
    "pixels of no class match": Mistake(
        pixel_bounds,
        'if predicate.comparison == "!=" and is_named else named',
        "if True else named",
        ("codes up to four",),
    ),
    "infinities decide": Mistake(
        pixel_bounds, 'if np.dtype(modality.dtype).kind != "f":', "if True:", ("old: any pixel",)
    ),
    "infinities match": Mistake(
        pixel_predicates,
        "np.count_nonzero(matches & np.isfinite(values))",
        "np.count_nonzero(matches)",
        ("old: any pixel",),
    ),
    "one answer for all samples of a shard": Mistake(
        pixel_judge, '_IDENTITY = ("key", "offset", ', '_IDENTITY = ("key", ', ("pixels in between",)
    ),
    "footprints across the date line": Mistake(
        own_predicates, " OR ({box}.west >= 0 AND {box}.east <= 0)", "", ("polygons at the date line",)
    ),
    # roll-ups
    "means without weights": Mistake(
        tensorbank.statistics.band_stats, "self.mean + delta * share", "self.mean + delta / 2", check_merging
    ),
    "no scatter between parts": Mistake(
        tensorbank.statistics.band_stats, "+ delta * delta * self.valid * share", "", check_merging
    ),
    "the first maximum": Mistake(
        tensorbank.statistics.band_stats, "max=max(self.max, other.max)", "max=self.max", check_merging
    ),
    "an empty part takes the mean": Mistake(
        tensorbank.statistics.band_stats,
        "mean=between if self.valid else other.mean",
        "mean=between if other.valid else other.mean",
        check_merging,
    ),
    "NaN in extremes": Mistake(tensorbank_indexer.rows.shards, "and math.isfinite(v)]", "]", check_rollups),
    "a box across the date line in a roll-up": Mistake(
        tensorbank_indexer.rows.shards,
        'crossing = any(b["west"] > b["east"] for b in boxes)',
        "crossing = False",
        check_rollups,
    ),
    "the mean of the first sample": Mistake(
        tensorbank_indexer.rows.shards,
        '"max_mean": max(means, default=None)',
        '"max_mean": means[0]',
        check_rollups,
    ),
    # what is measured of reads
    "a round as short as its reads": Mistake(
        tensorbank.fetch.concurrency, '(elapsed_s >= ROUND_S or self._phase != "keep")', "True", check_rounds
    ),
}


def _must(holds: bool) -> None:
    assert holds


@pytest.fixture(scope="module")
def beds(bed, old_bed) -> tuple[Bed, Bed]:
    return bed, old_bed


def wrong_answers(beds: tuple[Bed, Bed], names: tuple[str, ...]) -> list[str]:
    """Return what the examples of some names get wrong; an error is wrong, too."""
    bed, old = (b.reopened() for b in beds)
    found = []
    for name in names:
        of = old if name.startswith("old: ") else bed
        asked = filled(of, OLD[name.removeprefix("old: ")] if of is old else EXAMPLES[name])
        try:
            wrong = compare(of, asked).wrong
        except Exception as e:
            wrong = f"{type(e).__name__}: {e}"
        if wrong is not None:
            found.append(f"{name}: {wrong}")
    return found


def test_there_are_many_mistakes_and_nothing_is_wrong_without_them(beds):
    assert len(MISTAKES) > 40
    names = sorted({n for m in MISTAKES.values() if isinstance(m.caught_by, tuple) for n in m.caught_by})
    assert wrong_answers(beds, tuple(names)) == []
    for check in {m.caught_by for m in MISTAKES.values() if not isinstance(m.caught_by, tuple)}:
        check()


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_planted_mistake_is_caught(beds, mistake):
    with planted(mistake.module, mistake.right, mistake.wrong):
        if isinstance(mistake.caught_by, tuple):
            assert wrong_answers(beds, mistake.caught_by)
        else:
            with pytest.raises((AssertionError, OverflowError, pa.ArrowException)):
                mistake.caught_by()
