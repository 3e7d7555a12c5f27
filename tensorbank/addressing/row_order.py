"""The order of a plan whose query names none: that of the bytes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.layout import place_of_key
from tensorbank.plans import Handle

__all__ = ["by_address"]

Int64 = npt.NDArray[np.int64]


def by_address(table: pa.Table, handles: Sequence[Handle]) -> pa.Table:
    """Sort the rows in the order of the first handle's bytes, rows without it last.

    Ties are broken by the other handles and then by the plain columns: DuckDB's order of them depends on its threads. So it is
    where there is no handle.

    Parameters
    ----------
    table
        Table as :class:`tensorbank.plans.plan.Plan` has it.
    """
    if not table.num_rows:
        return table
    # Invariant: `order` sorts the rows by the keys of the handles so far, the first handle first. Handles are taken one by one,
    # since the first alone nearly always tells all rows apart: then the others need no keys, and rows that DuckDB gave in the
    # order of their bytes are not moved at all. Only where all handles leave ties do the plain columns decide.
    keys: list[Int64] = []
    order: npt.NDArray[np.intp] | None = None
    for handle in handles:
        keys += _sort_keys(table, handle)
        if order is None and _ascending(keys):
            return table
        order = np.lexsort(keys[::-1])  # which sorts by its last key first
        if not _ties(keys, order):
            break
    else:
        order = _by_every_column(table, handles, keys)
    table = table.take(as_arrow(order))
    for handle in handles:
        place = table.schema.get_field_index(handle.columns.key)
        table = table.set_column(place, handle.columns.key, _in_row_order(_dictionary(table, handle)))
    return table


def _ascending(keys: Sequence[Int64]) -> bool:
    """Tell whether the rows are in order as they are, and no two are equal."""
    undecided = np.ones(len(keys[0]) - 1, np.bool_)
    for key in keys:
        before, after = key[:-1], key[1:]
        if (undecided & (after < before)).any():
            return False
        undecided &= after == before
        if not undecided.any():
            return True
    return False


def _sort_keys(table: pa.Table, handle: Handle) -> list[Int64]:
    """Return the columns to sort by, the first one first:
    rank of the shard's key, first byte, corner of the window.
    """
    keys = _dictionary(table, handle)
    names = keys.dictionary.to_pylist()
    rank = np.empty(
        len(names) + 1, np.int64
    )  # the last entry is of code -1, a missing modality, and sorts behind all
    rank[sorted(range(len(names)), key=[place_of_key(n) for n in names].__getitem__)] = np.arange(len(names))
    rank[-1] = len(names)
    codes = as_numpy(keys.indices, -1)
    columns = [rank[codes], _element(table, handle.columns.starts, 0)]
    if handle.window is not None:
        columns += [_element(table, handle.columns.corner, i) for i in (0, 1)]
    return columns


def _dictionary(table: pa.Table, handle: Handle) -> pa.DictionaryArray:
    column = table[handle.columns.key].unify_dictionaries()
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _element(table: pa.Table, name: str, i: int) -> Int64:
    lists = table[name].combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    width = lists.type.list_size
    flat = as_numpy(lists.values)[lists.offset * width : (lists.offset + len(lists)) * width]
    values: Int64 = flat.reshape(-1, width)[:, i].astype(np.int64, copy=False)
    return values


def _ties(keys: Sequence[Int64], order: npt.NDArray[np.intp]) -> bool:
    same = np.ones(len(order) - 1, np.bool_)
    for key in keys:
        ordered = key[order]
        same &= ordered[1:] == ordered[:-1]
        if not same.any():
            return False
    return True


def _by_every_column(
    table: pa.Table, handles: Sequence[Handle], keys: Sequence[Int64]
) -> npt.NDArray[np.intp]:
    mine = {name for h in handles for name in h.columns.possible}
    plain = [n for n in table.column_names if n not in mine]
    sort: list[Any] = [as_arrow(key) for key in keys]
    sort += [table[n] for n in plain if _sortable(table.schema.field(n).type)]
    order = np.arange(table.num_rows)
    by = pa.table(sort, names=[str(i) for i in range(len(sort))])
    if sort:
        ascending = [(n, "ascending") for n in by.column_names]
        order = as_numpy(pc.sort_indices(by, ascending)).astype(np.intp)
    nested = [table[n] for n in plain if not _sortable(table.schema.field(n).type)]
    return _by_texts(by.take(as_arrow(order)), nested, order) if nested else order


def _by_texts(
    by: pa.Table, nested: Sequence[pa.ChunkedArray], order: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Return an order in which rows that are equal in all that Arrow can sort are sorted by the rest, as text."""
    same = np.ones(len(order) - 1, np.bool_)
    for column in by.columns:
        before, after = column.slice(0, len(order) - 1), column.slice(1)
        equal = pc.equal(before, after).fill_null(False)
        same &= as_numpy(pc.or_(equal, pc.and_(before.is_null(), after.is_null())))
    tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    if not len(tied):
        return order
    # rows are in runs that Arrow cannot tell apart: sort within a run, by the run's number first, and put back where it was
    group = np.insert(np.cumsum(~same), 0, 0)[tied]
    rows = order[tied]
    texts = [list(map(repr, column.take(as_arrow(rows)).to_pylist())) for column in nested]
    sorted_rows = sorted(range(len(rows)), key=lambda i: (group[i], *(t[i] for t in texts)))
    order = order.copy()
    order[tied] = rows[sorted_rows]
    return order


def _sortable(kind: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(kind) or pa.types.is_string(kind))


def _in_row_order(keys: pa.DictionaryArray) -> pa.DictionaryArray:
    """Order the dictionary by the rows' first use of its entries, and drop the entries that no row uses."""
    codes = as_numpy(keys.indices, -1)
    named = as_numpy(pc.unique(as_arrow(codes)))  # in the order in which they come
    named = named[named >= 0]
    place = np.full(len(keys.dictionary) + 1, -1, np.int32)
    place[named] = np.arange(len(named))
    indices = as_arrow(place[codes], codes < 0)
    return pa.DictionaryArray.from_arrays(indices, keys.dictionary.take(as_arrow(named.astype(np.int64))))
