"""Fates of samples between two snapshots, on rows that are written by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tensorbank_loader.lineages import fates
from tensorbank_loader.lineages.bad_samples import BadSample, are_bad

A: dict[str, Any] = {
    "key": "t/tensors/p/A/c/0",
    "offset": 100,
    "length": 40,
    "path": "one.tar",
    "at": 512,
    "size": 77,
    "etag": "e1",
}
TYPES = {
    "key": pa.string(),
    "offset": pa.int64(),
    "length": pa.int64(),
    "path": pa.string(),
    "at": pa.int64(),
    "size": pa.int64(),
    "etag": pa.string(),
}
LACKS: dict[str, Any] = dict.fromkeys(A)


def rows(*samples: tuple[str | None, str, dict[str, dict[str, Any]]], modalities: str = "A") -> pa.Table:
    """Return a table of (split, id, {modality: fields})."""
    columns: dict[str, pa.Array] = {
        "split": pa.array([split for split, _, _ in samples], pa.string()),
        "sample_id": pa.array([i for _, i, _ in samples], pa.string()),
    }
    for m in modalities:
        for name, kind in TYPES.items():
            columns[f"{m}.{name}"] = pa.array([given[m][name] for _, _, given in samples], kind)
    return pa.table(columns)


@pytest.mark.parametrize(
    ("then", "now", "fate"),
    [
        (A, A, "kept"),
        (A, A | {"key": "t/tensors/q/A/c/0", "offset": 0}, "kept"),  # moved by maintenance
        (A | {"etag": None}, A | {"etag": None}, "kept"),
        (
            A | {"etag": None},
            A | {"etag": None, "offset": 7},
            "replaced",
        ),  # nothing tells that it is the same
        (A, A | {"length": 41}, "replaced"),
        (A, A | {"etag": "e2"}, "replaced"),
        (A, A | {"etag": None}, "replaced"),
        (A, A | {"path": "two.tar"}, "replaced"),
        (A, A | {"at": 0}, "replaced"),
        (A, A | {"size": 78}, "replaced"),
        (A, LACKS, "replaced"),
        (LACKS, A, "replaced"),
        (LACKS, LACKS, "kept"),
    ],
    ids=str,
)
def test_one_sample(then, now, fate):
    found, changed = fates(
        rows(("train", "x", {"A": then})),
        rows(("val", "x", {"A": LACKS}), ("train", "x", {"A": now})),
        ["A"],
    )
    assert found.tolist() == [fate]
    assert changed["A"].tolist() == [fate == "replaced"]


def test_samples_are_told_by_split_and_id():
    then = rows(
        *((split, i, {"A": A}) for split, i in [("train", "x"), ("val", "x"), (None, "y"), ("tra", "inx")])
    )
    now = rows(("val", "x", {"A": A}), (None, "y", {"A": A | {"etag": "new"}}), ("train", "z", {"A": A}))
    found, changed = fates(then, now, ["A"])
    assert found.tolist() == ["deleted", "kept", "replaced", "deleted"]
    assert changed["A"].tolist() == [False, False, True, False]


def test_modalities_are_compared_one_by_one():
    new = A | {"etag": "e2"}
    then = rows(*(("s", i, {"A": A, "B": A}) for i in "vwxy"), modalities="AB")
    now = rows(
        ("s", "y", {"A": new, "B": new}),
        ("s", "v", {"A": A, "B": new}),
        ("s", "w", {"A": A, "B": A}),
        modalities="AB",
    )
    found, changed = fates(then, now, ["A", "B"])
    assert found.tolist() == ["replaced", "kept", "deleted", "replaced"]
    assert changed["A"].tolist() == [False, False, False, True]
    assert changed["B"].tolist() == [True, False, False, True]
    assert fates(then, now, ["A"])[0].tolist() == ["kept", "kept", "deleted", "replaced"]


def test_a_modality_that_the_table_has_no_more():
    then = rows(("s", "x", {"A": A, "B": A}), ("s", "y", {"A": A, "B": LACKS}), modalities="AB")
    now = rows(("s", "x", {"A": A}), ("s", "y", {"A": A}))
    found, changed = fates(then, now, ["A", "B"])
    assert found.tolist() == ["replaced", "kept"]
    assert changed["B"].tolist() == [True, False]


def test_nothing_is_left_and_nothing_was_seen():
    some = rows(("s", "x", {"A": A}))
    found, changed = fates(some, some.slice(0, 0), ["A"])
    assert (found.tolist(), changed["A"].tolist()) == (["deleted"], [False])
    assert fates(some.slice(0, 0), some, ["A"])[0].tolist() == []


def test_bad_samples():
    table = rows(
        ("s", "x", {"A": A}),
        ("t", "x", {"A": A | {"key": "k2"}}),
        ("s", "y", {"A": A}),
        ("s", "z", {"A": LACKS}),
    )

    def bad(**more: str) -> list[bool]:
        told = {"table": "t", "sample_id": "x", "modality": "A", "key": A["key"], "reason": ""} | more
        return are_bad(table, "t", ["A"], [BadSample(**told)]).tolist()

    assert bad() == [True, False, False, False]
    assert bad(key="k2") == [False, True, False, False]
    assert bad(sample_id="") == [True, False, True, False]
    assert bad(table="u") == bad(modality="B") == bad(sample_id="w") == [False] * 4
