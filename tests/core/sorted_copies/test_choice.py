"""The choice between samples and a sorted copy: whatever is read has every row that a condition may hold of, once."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from support.differential.planted import planted
from tensorbank.delta import VersionState
from tensorbank.errors import InvalidInputError
from tensorbank.index_files import IndexFile, LevelFiles, NewFile
from tensorbank.index_schema import samples_schema
from tensorbank.pruning import ANYTHING, AllOf, AnyOf, Compare, Condition
from tensorbank.schema import Band, Modality, TableSchema
from tensorbank.sorted_copies import (
    UsableCopy,
    choice,
    copy_name,
    leaf_of,
    mentioned,
    settings_of,
    usable_copy,
    with_fewest_rows,
)

Row = dict[str, int | None]
COLUMNS = ("a", "b")
MOST = 9
SEEDS = range(600)


def level_of(files: Sequence[Sequence[Row]], folder: str) -> LevelFiles:
    """Return files with these rows, and what a log says of them: nothing of a column without values."""
    sides = {
        side: [
            {c: take((r[c] for r in rows if r[c] is not None), default=None) for c in COLUMNS}
            for rows in files
        ]
        for side, take in (("min", min), ("max", max))
    }
    kind = pa.struct([(c, pa.int64()) for c in COLUMNS])
    known = pa.table({side: pa.array(values, kind) for side, values in sides.items()})
    named = tuple(IndexFile(f"t/index/{folder}/{i}", 1, len(rows)) for i, rows in enumerate(files))
    return LevelFiles(folder, "id", 0, named, known)


def holds(condition: Condition, row: Row) -> bool:
    """Tell whether a condition holds of a row, as SQL has it."""
    match condition:
        case Compare(leaf, op, value):
            found = row[leaf[0]]
            return found is not None and {"<": found < value, ">": found > value, "=": found == value}[op]
        case AllOf(parts):
            return all(holds(part, row) for part in parts)
        case AnyOf(parts):
            return any(holds(part, row) for part in parts)
    raise AssertionError(condition)


def any_condition(rng: random.Random, depth: int = 2) -> Condition:
    """Return a condition on the columns, often of several parts."""
    if not depth or rng.random() < 0.4:
        return Compare((rng.choice(COLUMNS),), rng.choice("<>="), rng.randrange(MOST))
    parts = tuple(any_condition(rng, depth - 1) for _ in range(rng.randrange(1, 4)))
    return AllOf(parts) if rng.random() < 0.5 else AnyOf(parts)


def any_row(rng: random.Random) -> Row:
    return {c: None if rng.random() < 0.2 else rng.randrange(MOST) for c in COLUMNS}


def check(seed: int) -> bool:
    """Check one choice; tell whether a copy was chosen."""
    rng = random.Random(seed)
    files = [[any_row(rng) for _ in range(rng.randrange(1, 12))] for _ in range(rng.randrange(1, 6))]
    n_copied, condition = rng.randrange(len(files) + 1), any_condition(rng)
    sorted_by = rng.sample(COLUMNS, rng.randrange(3))
    samples = level_of(files, "samples")
    copies, content = [], {f.key: files[i] for i, f in enumerate(samples.files)}
    for column in sorted_by:
        copied = [row for rows in files[:n_copied] for row in rows]
        copied.sort(key=lambda row: (row[column] is None, row[column] or 0))
        own = [copied[i : i + 2] for i in range(0, len(copied), 2)]
        level = level_of(own, f"sorted/{column}")
        content |= {f.key: own[i] for i, f in enumerate(level.files)}
        empty = [f for f, some in zip(level.files, own, strict=True) if all(r[column] is None for r in some)]
        state = state_of((column,), level, samples.files[:n_copied], empty)
        copies.append(usable_copy(state, samples))
    kept = samples.matching(condition)
    chosen = with_fewest_rows(kept, condition, copies)
    read = [row for file in chosen.files for row in content[file.key]]
    wanted = [row for some in files for row in some if holds(condition, row)]
    found = [row for row in read if holds(condition, row)]
    assert sorted(map(repr, found)) == sorted(map(repr, wanted))
    assert chosen.n_rows == len(read) <= kept.n_rows
    return any("/sorted/" in file.key for file in chosen.files)


def test_every_row_that_may_satisfy_a_condition_is_read_once():
    assert sum(map(check, SEEDS)) > len(SEEDS) / 20


@pytest.fixture(autouse=True)
def copies_of_few_rows(monkeypatch):
    monkeypatch.setattr(choice, "WORTH", 2)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("kept.with_files((*own.files, *others.files), alike", "kept.with_files(own.files, alike"),
        ("(~self.empty | self.files.mask(_without(condition, self.leaf)))", "~self.empty"),
        ("AnyOf(()) if condition.leaf == leaf", "AnyOf(()) if condition.leaf != leaf"),
    ],
)
def test_mistakes_are_noticed(right, wrong):
    with planted(choice, right, wrong), pytest.raises(AssertionError):
        list(map(check, SEEDS))


def state_of(column, level, sources, empty=()) -> VersionState:
    settings = settings_of(column, sources, [NewFile(f.key, 1, 1, "") for f in empty])
    return VersionState("id", 0, pa.schema([]), {}, settings, lambda: level)


def test_the_copy_is_taken_where_it_has_far_fewer_rows():
    files = [[{"a": i % 7, "b": None} for i in range(20)] for _ in range(3)]
    samples = level_of(files, "samples")
    copied = [[{"a": a, "b": None}] * 9 for a in range(7)]
    copy = usable_copy(state_of(("a",), level_of(copied, "sorted/a"), samples.files), samples)
    few, most = Compare(("a",), "=", 3), Compare(("a",), "<", 5)
    assert [f.key for f in with_fewest_rows(samples, few, [copy]).files] == ["t/index/sorted/a/3"]
    assert with_fewest_rows(samples, most, [copy]) is samples
    assert with_fewest_rows(samples, ANYTHING, [copy]) is samples
    assert with_fewest_rows(samples, Compare(("b",), "=", 3), [copy]) is samples


def test_a_copy_of_files_that_are_gone_is_not_usable():
    samples = level_of([[{"a": 1, "b": 1}], [{"a": 2, "b": 2}]], "samples")
    fewer = samples.keeping(np.array([True, False]))
    state = state_of(("A",), level_of([[{"a": 1, "b": 1}]], "sorted/a"), samples.files)
    assert usable_copy(state, fewer) is None
    found = usable_copy(state, samples)
    assert isinstance(found, UsableCopy)
    assert (found.leaf, found.beside) == (("a",), frozenset())
    without = VersionState("id", 0, pa.schema([]), {}, {}, lambda: samples)
    assert usable_copy(without, samples) is None


def test_which_copies_a_statement_may_ask_for():
    names = ("NDVI.mean", "S2L2A.B08.mean", "lon", "LULC.share.tree_cover")
    assert mentioned(names, {"ndvi", "mean"}) == ("NDVI.mean", "S2L2A.B08.mean")
    assert mentioned(names, {"LON"}) == ("lon",)
    assert mentioned(names, {"Tree cover"}) == ("LULC.share.tree_cover",)
    assert mentioned(names, {"lat"}) == ()


SCHEMA = samples_schema(
    TableSchema(
        (
            Modality("S2", "int16", (Band("B04"), Band("B08")), 1, 8, 8),
            Modality("LULC", "uint8", (Band("LULC"),), 1, 8, 8, classes=((0, "no data"), (1, "Tree cover"))),
        )
    )
)


@pytest.mark.parametrize(
    ("given_name", "path"),
    [
        ("lon", ("lon",)),
        ("s2.b08.MEAN", ("S2", "B08", "mean")),
        ("LULC.share.tree cover", ("LULC", "share", "Tree cover")),
        ("s2_time", ("S2_time",)),
    ],
)
def test_columns_are_named_as_sql_names_them(given_name, path):
    assert leaf_of(given_name, SCHEMA) == path
    assert copy_name(path) == ".".join(path).replace(" ", "_")


@pytest.mark.parametrize("name", ["S2", "S2.B05.mean", "bbox", "S2.ref.block_bytes", "lo", "S2.B08.mean.x"])
def test_what_is_no_column_with_an_order_is_refused(name):
    with pytest.raises(InvalidInputError):
        leaf_of(name, SCHEMA)
