"""Fates of samples between two snapshots of a table. Pure, on two Arrow tables.

Rows of a snapshot have the columns ``split`` and ``sample_id``, which are a sample's key, and for each modality ``M``:

==================================  ===========================================================================
``M.key``, ``M.offset``, ``M.length``  address of its blocks: object, first byte, number of bytes; null where it lacks ``M``
``M.path``, ``M.at``, ``M.size``    the member that it was made of: file, first byte, number of bytes
``M.etag``                          ETag of that file, null where it is not known
==================================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_numpy

__all__ = ["Fate", "columns_of", "fates", "keys_of"]

Bool = npt.NDArray[np.bool_]

ADDRESS = {"key": "ref.key", "offset": "ref.offset", "length": "ref.length"}
MEMBER = {"path": "source.path", "at": "source.offset", "size": "source.length", "etag": "source.etag"}


class Fate(StrEnum):
    """The fate of a sample between two snapshots."""

    kept = "kept"
    replaced = "replaced"
    deleted = "deleted"


def columns_of(modality: str) -> dict[str, str]:
    """Return the columns of a modality, and for each the field of the samples table that it is."""
    return {f"{modality}.{name}": field for name, field in (ADDRESS | MEMBER).items()}


def fates(
    then: pa.Table, now: pa.Table, modalities: Sequence[str]
) -> tuple[npt.NDArray[np.str_], dict[str, Bool]]:
    """Compare the rows of some samples with those of a later snapshot.

    A modality is another one if it was made of another member or file, is no longer there, or is new. If only the address
    differs, it was moved, as maintenance does, and counts as the same; unless the ETag of its file is not known, or its number of
    bytes differs.

    Parameters
    ----------
    then, now
        (n,) and (m,) rows, as the module describes them. No two rows of ``now`` have one key.
    modalities
        Modalities to compare; all are in ``then``, and those that are not in ``now`` are gone from the table.

    Returns
    -------
    The fate of each row of ``then``, (n,), and for each modality whether it is another one, (n,) bool, False for deleted samples.
    """
    found = pc.index_in(keys_of(then), value_set=keys_of(now))
    there = as_numpy(found.is_valid())
    rows = now.take(pc.fill_null(found, 0)) if now.num_rows else now.slice(0, 0)
    changed: dict[str, Bool] = {}
    for modality in modalities:
        if not now.num_rows:
            changed[modality] = np.zeros(len(then), bool)
        elif f"{modality}.key" not in now.column_names:
            changed[modality] = there & as_numpy(then[f"{modality}.key"].is_valid())
        else:
            changed[modality] = there & _differs(then, rows, modality)
    other = np.logical_or.reduce([np.zeros(len(then), bool), *changed.values()])
    fate = np.where(there, np.where(other, Fate.replaced.value, Fate.kept.value), Fate.deleted.value)
    return fate, changed


def keys_of(rows: pa.Table) -> pa.Array:
    """Return the key of each row as one text: split, a zero, and id."""
    split = pc.fill_null(rows["split"].cast(pa.string()), "")
    keys = pc.binary_join_element_wise(split, rows["sample_id"].cast(pa.string()), "\0")
    return keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys


def _differs(then: pa.Table, now: pa.Table, modality: str) -> Bool:
    """Return for each row whether a modality is another one in the row beside it, (n,) bool."""
    other = {name: _unequal(then, now, f"{modality}.{name}") for name in (*ADDRESS, *MEMBER)}
    member = np.logical_or.reduce([other[name] for name in MEMBER])
    moved = np.logical_or.reduce([other[name] for name in ADDRESS])
    unknown = as_numpy(then[f"{modality}.etag"].is_null())
    presence = as_numpy(then[f"{modality}.key"].is_valid()) != as_numpy(now[f"{modality}.key"].is_valid())
    differs: Bool = presence | member | other["length"] | (moved & unknown)
    return differs


def _unequal(then: pa.Table, now: pa.Table, column: str) -> Bool:
    a, b = then[column], now[column]
    equal = pc.fill_null(pc.equal(a, b), False)
    both_null = pc.and_(pc.is_null(a), pc.is_null(b))
    return ~as_numpy(pc.or_(equal, both_null))
