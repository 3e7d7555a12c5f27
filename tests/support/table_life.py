"""Operations on a small bank, as crash points and others run them in processes of their own: each a function of a bank.

A new operation is a function here, and a line in :data:`OPERATIONS`. What it is given must decide what it does, so that it can
be run again after it was interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import tensorbank as tb
from support import folder_trouble
from support.object_server import Trouble, access_key
from support.tiny_source import TinySource
from tensorbank import removal
from tensorbank.errors import NotFoundError, TensorBankError
from tensorbank.reading.sample_reader import SampleReader
from tensorbank.retention import Lease, Owner, lease_key, list_leases
from tensorbank.verification import verify
from tensorbank_indexer import IngestOptions, add_modality, ingest, replace_modality
from tensorbank_indexer.repairs import repair

__all__ = ["MISTAKES", "MODULES", "OPERATIONS", "TABLE", "Operation", "examine", "recover", "run"]

TABLE = "t"
SCORE = "loss"
MODULES = ("support.table_life", "tensorbank_indexer.commands", "tensorbank.planning.planner")
"""Modules that a warm process imports for these operations."""


@dataclass(frozen=True)
class Operation:
    """An operation: the name of a function of this module, what it is given, and the operations that come before it.

    ``changes`` is False for an operation after which all samples are as before, such as ``compact``.
    """

    name: str
    function: str
    given: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    changes: bool = True


INGESTED = (("add", {"first": 0}),)
TWICE_INGESTED = (*INGESTED, ("add", {"first": 4}))
BOTH_INGESTED = (("add", {"first": 0, "modalities": ["DEM", "S1RTC"]}),)
DELETED = (*INGESTED, ("delete", {"where": "lon > 10.25"}))
LEASED = (*DELETED, ("add", {"first": 4}), ("lease", {"version": 1}))
RENAMED = (*LEASED, ("rename", {"old": "t", "new": "u"}))
COPIED = (*TWICE_INGESTED, ("copy", {"new": "u"}), ("delete", {"where": "lon > 10.35"}), ("compact", {}))
"""A copy needs shards that its source needs no more."""
SORTED = (*TWICE_INGESTED, ("sort", {"column": "lon"}))
SCORED = (*INGESTED, ("score", {"factor": 1.0}))

OPERATIONS = (
    Operation("first ingest", "add", {"first": 0}),
    Operation("second ingest", "add", {"first": 4}, INGESTED),
    Operation("compact", "compact", {}, TWICE_INGESTED, changes=False),
    Operation("rewrite shards", "rewrite_shards", {}, DELETED),
    Operation("delete", "delete", {"where": "lon > 10.15"}, INGESTED),
    Operation("restore", "restore", {"version": 1}, TWICE_INGESTED),
    Operation("tag", "tag", {"name": "paper-v1"}, INGESTED, changes=False),
    Operation("add columns", "score", {"factor": 1.0}, INGESTED),
    Operation("update columns", "score_again", {"factor": 2.0}, SCORED),
    Operation("drop columns", "drop_scores", {}, SCORED),
    Operation("refresh", "refresh", {"edition": 2}, TWICE_INGESTED),
    Operation("refresh one modality", "refresh", {"edition": 2}, BOTH_INGESTED),
    Operation("replace modality", "replace_one", {"modality": "DEM", "edition": 2}, INGESTED),
    Operation("add modality", "bring", {"modality": "S1RTC"}, INGESTED),
    Operation("drop modality", "drop_modality", {"modality": "S1RTC"}, BOTH_INGESTED),
    Operation("copy", "copy", {"new": "u"}, DELETED),
    Operation("rename", "rename", {"old": "t", "new": "u"}, LEASED),
    Operation("rename back", "rename", {"old": "u", "new": "t"}, RENAMED),
    Operation("repair", "put_right", {}, (*INGESTED, ("break_shard", {}))),
    Operation("sort", "sort", {"column": "lon"}, TWICE_INGESTED, changes=False),
    Operation("drop sorted copy", "drop_sorted", {"column": "lon"}, SORTED, changes=False),
    Operation("compact sorted", "compact", {}, (*SORTED, ("add", {"first": 8})), changes=False),
    Operation("gc", "collect", {}, (*TWICE_INGESTED, ("compact", {})), changes=False),
    Operation("gc under a lease", "collect", {}, (*LEASED, ("compact", {})), changes=False),
    Operation("gc of a copy", "collect", {}, COPIED, changes=False),
)
"""All operations whose crash points are looked at."""

MISTAKES = (
    Operation("two commits", "add_in_two_commits", {"first": 4}, INGESTED),
    Operation("an error that is kept", "add_or_be_silent", {"first": 4}, INGESTED),
    Operation("twice is too much", "add_from_where_it_ends", {}, INGESTED),
    Operation("documents that are lost", "add_and_remove_documents", {"first": 4}, INGESTED),
)
"""Operations with a mistake each, which crash points must find."""


# ---------------------------------------------------------------- operations


OPTIONS = IngestOptions(n_workers=1, samples_per_shard=2, n_tiles=2)


def add(bank: tb.Bank, first: int, n: int = 4, modalities: Sequence[str] = ("DEM",)) -> None:
    """Ingest some samples, two in each shard."""
    ingest(TinySource(n, first, modalities=modalities), bank, TABLE, OPTIONS)


def refresh(bank: tb.Bank, edition: int) -> None:
    """Ingest another edition of the first archive."""
    ingest(TinySource(4, 0, edition), bank, TABLE, replace(OPTIONS, refresh=True))


def replace_one(bank: tb.Bank, modality: str, edition: int) -> None:
    """Replace a modality by that of another edition."""
    replace_modality(TinySource(4, 0, edition), bank, TABLE, modality, OPTIONS)


def bring(bank: tb.Bank, modality: str) -> None:
    """Add a modality."""
    add_modality(TinySource(4, 0, modalities=(modality,)), bank, TABLE, modality, OPTIONS)


def drop_modality(bank: tb.Bank, modality: str) -> None:
    """Drop a modality."""
    bank.table(TABLE).drop_modality(modality)


def compact(bank: tb.Bank) -> None:
    """Merge the index files."""
    bank.table(TABLE).compact()


def rewrite_shards(bank: tb.Bank) -> None:
    """Write shards anew without the samples that were deleted."""
    bank.table(TABLE).compact(rewrite_shards=True)


def delete(bank: tb.Bank, where: str) -> None:
    """Delete the samples of a condition."""
    bank.table(TABLE).delete(where, reason="a test")


def restore(bank: tb.Bank, version: int) -> None:
    """Bring a version back."""
    bank.table(TABLE).restore(version)


def tag(bank: tb.Bank, name: str) -> None:
    """Give the newest version a name, unless it is given."""
    if name not in [t.name for t in bank.table(TABLE).tags()]:
        bank.table(TABLE).tag(name)


def _scores(bank: tb.Bank, factor: float) -> pa.Table:
    ids = bank.sql(f"SELECT sample_id FROM {TABLE} ORDER BY sample_id").arrow()["sample_id"].to_pylist()
    return pa.table({"sample_id": ids, SCORE: [factor * number for number in range(len(ids))]})


def score(bank: tb.Bank, factor: float) -> None:
    """Add a column of scores, unless it is there."""
    if SCORE not in bank.table(TABLE).columns:
        bank.table(TABLE).add_columns(_scores(bank, factor))


def score_again(bank: tb.Bank, factor: float) -> None:
    """Give the column other values."""
    bank.table(TABLE).update_columns(_scores(bank, factor))


def drop_scores(bank: tb.Bank) -> None:
    """Drop the column, unless it is gone."""
    if SCORE in bank.table(TABLE).columns:
        bank.table(TABLE).drop_columns([SCORE])


def sort(bank: tb.Bank, column: str) -> None:
    """Write a sorted copy."""
    bank.table(TABLE).add_sorted_copy(column)


def drop_sorted(bank: tb.Bank, column: str) -> None:
    """Drop a sorted copy, unless it is gone."""
    if column in bank.table(TABLE).sorted_copies:
        bank.table(TABLE).drop_sorted_copy(column)


def copy(bank: tb.Bank, new: str) -> None:
    """Make another table with the same tensors."""
    bank.copy(TABLE, new)


def rename(bank: tb.Bank, old: str, new: str) -> None:
    """Give a table another name."""
    bank.rename(old, new)


def lease(bank: tb.Bank, version: int) -> None:
    """Protect a version for longer than anything here takes."""
    now = datetime.now(UTC)
    owner = Owner("", "", 0, "a test")
    table_id = bank.catalog.version(TABLE).samples.table_id
    made = Lease("reader", table_id, (version,), now, now + timedelta(days=1), owner)
    bank.catalog.store.put(lease_key(TABLE, made.id), made.to_bytes())


def break_shard(bank: tb.Bank) -> None:
    """Flip a byte of a block."""
    store = bank.catalog.store
    key = min(o.key for o in store.objects(f"{TABLE}/tensors") if "/c/" in o.key)
    data = bytearray(store.get(key))
    data[20] ^= 1
    store.put(key, bytes(data))


def put_right(bank: tb.Bank) -> None:
    """Repair the table from its archive."""
    report = repair(TinySource(4, 0), bank, TABLE)
    assert report.complete, report.left


def collect(bank: tb.Bank) -> None:
    """Remove what the newest versions do not need, and leases do not protect that were written an hour ago."""
    now = datetime.now(UTC) + timedelta(hours=1)
    removal.collect(bank.catalog, older_than=timedelta(0), dry_run=False, now=now)


def add_in_two_commits(bank: tb.Bank, first: int) -> None:
    """Be half done between the commits."""
    add(bank, first, 2)
    add(bank, first + 2, 2)


def add_or_be_silent(bank: tb.Bank, first: int) -> None:
    """Keep an error to itself."""
    with suppress(tb.TensorBankError):
        add(bank, first)


def add_from_where_it_ends(bank: tb.Bank) -> None:
    """Do something else when it is run again."""
    add(bank, len(bank.sql(f"SELECT sample_id FROM {TABLE}").plan()))


def add_and_remove_documents(bank: tb.Bank, first: int) -> None:
    """Take away, and put back, what a snapshot needs."""
    store = bank.catalog.store
    keys = [o.key for o in store.objects(f"{TABLE}/tensors") if o.key.endswith("/DEM/zarr.json")]
    documents = {key: store.get(key) for key in keys}
    for key in keys:
        store.delete(key)
    for key in keys:
        store.put(key, documents[key])
    add(bank, first)


# ---------------------------------------------------------------- runs


def opened(place: Mapping[str, Any]) -> tb.Bank:
    """Open the bank at a place of :mod:`support.stages`, with the trouble that goes with it."""
    if "endpoint" not in place:
        if "trouble" in place:
            kind, at = place["trouble"]
            folder_trouble.install(Path(place["url"]), Trouble(kind, at))
        return tb.open(place["url"], cache=place["cache"])
    return tb.open(
        place["url"],
        endpoint=place["endpoint"],
        region="us-east-1",
        access_key=access_key(),
        secret_key="any",
        cache=place["cache"],
    )


def run(place: Mapping[str, Any], function: str, given: Mapping[str, Any]) -> None:
    """Run one operation on the bank at a place."""
    globals()[function](opened(place), **given)


def examine(place: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the bank holds by TensorBank's own word: samples of each table, and of each version under a lease, with hashes
    of their pixels, and what ``verify`` found.
    """
    bank = opened(place)
    tables: dict[str, dict[str, Any]] = {}
    damage: list[str] = []
    leased: dict[str, dict[str, Any]] = {}
    for table in bank.tables():
        try:
            head = bank.catalog.version(table)
        except NotFoundError:
            continue  # it has another name by now
        try:
            tables[table] = _samples(bank, table)
            report = verify(bank, table, deep=True)
            damage += [
                f"{table} {f.kind} {f.sample_ids} {f.modality} {f.key}: {f.reason}" for f in report.findings
            ]
        except TensorBankError as error:
            tables[table] = {"error": str(error)}
            damage.append(f"{table} {error.kind} {error}")
        for name in bank.catalog.names_of(head):
            for one in list_leases(bank.catalog.store, name)[0]:
                if one.id == "reader" and one.table_id == head.samples.table_id:
                    leased |= {str(v): _samples(bank.at({table: v}), table) for v in one.versions}
    return {"tables": tables, "damage": damage, "leased": leased}


def _samples(bank: tb.Bank, table: str) -> dict[str, dict[str, str]]:
    names = ", ".join(f'"{name}"' for name in bank.table(table).schema.names)
    plan = bank.sql(f'SELECT split, sample_id, {names} FROM "{table}"').plan()
    samples: dict[str, dict[str, str]] = {}
    if len(plan):
        with closing(SampleReader.of(plan)) as reader:
            tensors = reader.read(np.arange(len(plan)))
        for position, row in enumerate(plan.table.select(["split", "sample_id"]).to_pylist()):
            name = f"{row['split']}/{row['sample_id']}"
            assert name not in samples, f"{name} is there twice"
            samples[name] = {m: hashlib.sha256(t[position].tobytes()).hexdigest() for m, t in tensors.items()}
    return samples


def recover(
    places: Sequence[Mapping[str, Any]], function: str, given: Mapping[str, Any], *, collects: bool
) -> list[list[dict[str, Any]]]:
    """Examine tables on which an operation was interrupted, run it again, and examine them once more, and after ``gc``."""
    found = []
    for place in places:
        before = examine(place)
        run(place, function, given)
        found.append([before, examine(place)])
        if collects:
            collect(opened(place))
            found[-1].append(examine(place))
    return found
