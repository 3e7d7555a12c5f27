"""Lineages of runs: their samples at the snapshot they were read of, how often they were seen, and what became of them since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.bank import Bank
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.plans import Plan
from tensorbank_loader.lineages.bad_samples import BadSample, are_bad, read_bad_samples
from tensorbank_loader.lineages.checkpoint import states_in
from tensorbank_loader.lineages.fates import Fate, fates
from tensorbank_loader.lineages.replanned import epochs_of_state, streamed_of
from tensorbank_loader.lineages.sample_rows import SampleRows, seen_rows
from tensorbank_loader.lineages.seen import Seen, seen
from tensorbank_loader.streamed import Streamed, plans_of

__all__ = ["RunLineage", "TableLineage", "lineage"]

Snapshot = tuple[str, int]
"""The id and version of a table."""


@dataclass(frozen=True, slots=True, eq=False)
class TableLineage:
    """The samples of one table that a run has seen.

    Parameters
    ----------
    table
        Name of the table.
    version, newest
        Version that the run has read, and the one that it is compared with.
    samples
        One row a seen sample, in the order of the snapshot, with the columns ``split``, ``sample_id``, ``n_seen``, ``last_epoch``
        and ``last_batch`` (int64, counted from 0), ``fate`` (``kept``, ``replaced`` or ``deleted``), ``replaced`` (list of the
        modalities that are other ones now), and ``bad`` (bool).
    """

    table: str
    version: int
    newest: int
    samples: pa.Table

    @property
    def n_seen(self) -> int:
        """The number of samples that were seen."""
        return int(self.samples.num_rows)

    @property
    def n_more_often(self) -> int:
        """The number of samples that were seen more than once."""
        return _n_true(pc.greater(self.samples["n_seen"], 1))

    @property
    def n_deleted(self) -> int:
        """The number of seen samples that are not in the newest snapshot."""
        return _n_true(pc.equal(self.samples["fate"], Fate.deleted.value))

    @property
    def n_replaced(self) -> int:
        """The number of seen samples of which a modality is another one in the newest snapshot."""
        return _n_true(pc.equal(self.samples["fate"], Fate.replaced.value))

    @property
    def n_bad(self) -> int:
        """The number of seen samples that were found bad."""
        return _n_true(self.samples["bad"])


@dataclass(frozen=True, slots=True, eq=False)
class RunLineage:
    """The lineage of one run up to a saved state.

    Parameters
    ----------
    fingerprint
        Fingerprint of its plan or mix.
    epoch, batch, n_batches
        Global batch that comes next, and their number in an epoch.
    n_selected
        Samples of its plans.
    tables
        Tables that its tensors come from.
    """

    fingerprint: str
    epoch: int
    batch: int
    n_batches: int
    n_selected: int
    tables: tuple[TableLineage, ...]


def lineage(
    checkpoint: str | Path | Mapping[str, Any],
    bank: Bank,
    *,
    plans: Sequence[Plan] = (),
    reports: Sequence[Path] = (),
) -> list[RunLineage]:
    """Tell which samples the runs of a checkpoint have seen, and which were replaced, deleted or found bad since.

    Nothing was logged for it: plan and order are made again, and the state tells how far the run came, over any number of
    resumes.

    Parameters
    ----------
    checkpoint
        File with the state of a loader, the state itself, or what holds it; see :func:`states_in`.
    bank
        Bank that the run has read.
    plans
        Saved plans, for states that do not tell their statements, and for plans with tables of one's own.
    reports
        Files with what ``tensorbank verify --json`` printed: samples that were found bad.

    Returns
    -------
    One lineage for each run in the checkpoint.

    Raises
    ------
    NotFoundError, FormatError
        There is no checkpoint, or it is none.
    InvalidInputError
        It holds no state, one that does not tell what was seen (kind ``other-state``), or one of another bank or plan. Or the
        bank is read through a service (kind ``served``).
    """
    _ = bank.catalog  # refused behind a service, which plans no statements
    found = []
    bad = [sample for path in reports for sample in read_bad_samples(path)]
    for state in states_in(checkpoint):
        streamed = streamed_of(state, bank, plans)
        epochs, place = epochs_of_state(streamed, state)
        counts = seen(epochs, place, state)
        tables = tuple(
            _of_table(bank, table, snapshot, modalities, streamed, counts, bad)
            for (table, snapshot), modalities in sorted(_read_tables(streamed).items())
        )
        found.append(
            RunLineage(
                epochs.fingerprint, place.epoch, place.position, epochs.n_batches, epochs.n_samples, tables
            )
        )
    return found


def _read_tables(streamed: Streamed) -> dict[tuple[str, Snapshot], list[str]]:
    """Return the snapshots of tables that tensors are read of, and which modalities."""
    found: dict[tuple[str, Snapshot], dict[str, None]] = {}
    for plan in plans_of(streamed):
        for handle in plan.handles:
            for table in sorted({key.split("/", 1)[0] for key in plan.addresses[handle.name].shard_keys}):
                found.setdefault((table, _snapshot(plan, table)), {})[handle.modality.name] = None
    return {read: list(modalities) for read, modalities in found.items()}


def _snapshot(plan: Plan, table: str) -> Snapshot:
    """Return the one snapshot of a table that a plan reads."""
    read = [(r.table_id, r.version) for r in plan.source.read_snapshots if r.table == table]
    if len(read) != 1:
        raise InvalidInputError(
            f"the plan {plan.fingerprint} reads table {table!r} at the versions {[v for _, v in read]}, and samples are told of "
            "plans that read a table at one version",
            kind=ErrorKind.OTHER_PLAN,
        )
    return read[0]


def _of_table(
    bank: Bank,
    table: str,
    snapshot: Snapshot,
    modalities: Sequence[str],
    streamed: Streamed,
    counts: Seen,
    bad: Sequence[BadSample],
) -> TableLineage:
    then = SampleRows.read(bank, table, modalities, snapshot)
    found = Seen.none(then.rows.num_rows)
    start = 0
    for plan in plans_of(streamed):
        if any(r.table == table and (r.table_id, r.version) == snapshot for r in plan.source.read_snapshots):
            found.add(seen_rows(then, plan, counts.of(start, start + len(plan))))
        start += len(plan)
    rows = np.flatnonzero(found.n_times)
    mine = then.rows.take(pa.array(rows))
    now = SampleRows.read(bank, table, modalities, None)
    fate, changed = fates(mine, now.rows, modalities)
    samples = pa.table(
        {
            "split": mine["split"],
            "sample_id": mine["sample_id"],
            "n_seen": found.n_times[rows],
            "last_epoch": found.last_epoch[rows],
            "last_batch": found.last_batch[rows],
            "fate": pa.array(fate, pa.string()),
            "replaced": _listed(changed, len(rows)),
            "bad": are_bad(mine, table, modalities, bad),
        }
    )
    return TableLineage(table, then.version, now.version, samples)


def _listed(changed: Mapping[str, npt.NDArray[np.bool_]], n: int) -> pa.ListArray:
    """Return for each of ``n`` rows the list of the names whose flag is set."""
    flags = np.stack([np.zeros(n, bool), *changed.values()], axis=1)
    offsets = np.concatenate([[0], np.cumsum(flags.sum(axis=1))]).astype(np.int32)
    names = pa.array(["", *changed], pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), names.take(pa.array(np.nonzero(flags)[1])))


def _n_true(flags: pa.ChunkedArray) -> int:
    return int(pc.sum(flags).as_py() or 0)
