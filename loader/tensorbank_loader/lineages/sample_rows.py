"""The rows of a table's samples at a snapshot, and which of them the samples of a plan are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_numpy
from tensorbank.bank import Bank
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.plans import Plan
from tensorbank_loader.lineages.fates import columns_of
from tensorbank_loader.lineages.seen import Seen

__all__ = ["SampleRows", "seen_rows"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SampleRows:
    """The rows of a table at one snapshot, as :mod:`tensorbank_loader.lineages.fates` describes them.

    Parameters
    ----------
    table, table_id, version
        Name, and id and version of the snapshot.
    rows
        One row a sample.
    """

    table: str
    table_id: str
    version: int
    rows: pa.Table

    @classmethod
    def read(
        cls, bank: Bank, table: str, modalities: Sequence[str], snapshot: tuple[str, int] | None
    ) -> SampleRows:
        """Read the rows of a snapshot, or of the newest one for None. Modalities that it lacks are left out.

        Raises
        ------
        InvalidInputError
            The bank's table is another one than that of the snapshot (kind ``other-table``).
        NotFoundError
            The bank has no such table, or no longer has the version.
        """
        pinned = bank.table(table) if snapshot is None else bank.table(table).at(snapshot[1])
        there = [name for name in modalities if name in pinned.schema.names]
        columns = [
            f"{_name(m)}.{field} AS {_name(column)}" for m in there for column, field in columns_of(m).items()
        ]
        versions = {} if snapshot is None else {table: snapshot[1]}
        sql = f"SELECT {', '.join(['split', 'sample_id', *columns])} FROM {_name(table)}"
        plan = bank.at(versions).sql(sql).plan()
        table_id, version = plan.source.snapshots[table]
        if snapshot is not None and table_id != snapshot[0]:
            raise InvalidInputError(
                f"the run has read table {table!r} with the id {snapshot[0]}, and that of {bank.url} has the id {table_id}: it "
                "was made anew, or this is another bank; give the bank of the run",
                kind=ErrorKind.OTHER_TABLE,
            )
        return cls(table, table_id, version, plan.table)

    def of_addresses(self, modality: str, keys: pa.ChunkedArray, starts: Int64) -> Int64:
        """Return the rows whose blocks of a modality hold the bytes at some addresses.

        Parameters
        ----------
        keys, starts
            (n,) object and first byte; a key is null where nothing is read.

        Returns
        -------
        (n,) int64; -1 where there is none.
        """
        mine = self.rows[f"{modality}.key"].combine_chunks().dictionary_encode()
        codes = as_numpy(mine.indices.fill_null(-1)).astype(np.int64)
        offsets = as_numpy(self.rows[f"{modality}.offset"].fill_null(0)).astype(np.int64)
        ends = offsets + as_numpy(self.rows[f"{modality}.length"].fill_null(0))
        order = np.lexsort((offsets, codes))
        wanted = as_numpy(
            pc.fill_null(pc.index_in(keys.cast(pa.string()), value_set=mine.dictionary), -1)
        ).astype(np.int64)
        # One number for object and byte, so that both are searched at once.
        n_bytes = int(max(ends.max(initial=0), starts.max(initial=0))) + 1
        if (len(mine.dictionary) + 1) * n_bytes >= 2**63:
            raise InvalidInputError(
                f"table {self.table!r} has more objects of {modality!r} than are told apart"
            )
        at = np.searchsorted((codes * n_bytes + offsets)[order], wanted * n_bytes + starts, side="right") - 1
        found = order[np.maximum(at, 0)] if len(order) else np.full(len(at), -1)
        sound = (at >= 0) & (wanted >= 0)
        if len(order):
            sound &= (codes[found] == wanted) & (starts < ends[found])
        return np.where(sound, found, -1)


def seen_rows(rows: SampleRows, plan: Plan, counts: Seen) -> Seen:
    """Return how often each row of a table was seen, from how often each sample of a plan was.

    A sample counts wherever one of its tensors was read, once for each place in the plan: a sample of which several tiles
    are selected counts once for each. Samples without any of the selected modalities do not count, as nothing of them is read.

    Parameters
    ----------
    counts
        Counts of the samples of the plan.

    Returns
    -------
    Counts of the ``len(rows.rows)`` samples of the table.

    Raises
    ------
    InvalidInputError
        The plan has an address that is none of the table's at this snapshot; the kind is ``other-plan``.
    """
    found = Seen.none(rows.rows.num_rows)
    matched: list[Int64] = []
    for handle in plan.handles:
        keys = plan.table[handle.columns.key]
        starts = np.asarray(plan.addresses[handle.name].starts[:, 0], np.int64)
        mine = as_numpy(pc.fill_null(pc.starts_with(keys.cast(pa.string()), f"{rows.table}/"), False))
        if not mine.any():
            continue
        at = rows.of_addresses(handle.modality.name, keys, starts)
        if (at[mine] < 0).any():
            raise InvalidInputError(
                f"the plan reads {handle.name!r} at addresses that table {rows.table!r} does not have at version {rows.version}; "
                "give the bank of the run",
                kind=ErrorKind.OTHER_PLAN,
            )
        at = np.where(mine, at, -1)
        new = at >= 0
        for other in matched:
            new &= at != other
        matched.append(at)
        _add(found, at[new], counts, np.flatnonzero(new))
    return found


def _add(found: Seen, rows: Int64, counts: Seen, positions: Int64) -> None:
    """Add the counts at some positions of a plan to those of rows, both (m,)."""
    np.add.at(found.n_times, rows, counts.n_times[positions])
    newest = np.lexsort((counts.last_batch[positions], counts.last_epoch[positions]))
    rows, positions = rows[newest], positions[newest]
    epoch, batch = counts.last_epoch[positions], counts.last_batch[positions]
    later = (epoch > found.last_epoch[rows]) | (
        (epoch == found.last_epoch[rows]) & (batch > found.last_batch[rows])
    )
    found.last_epoch[rows[later]] = epoch[later]
    found.last_batch[rows[later]] = batch[later]


def _name(name: str) -> str:
    """Return a name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'
