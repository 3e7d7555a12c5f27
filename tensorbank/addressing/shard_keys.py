"""Keys of shards by a hash of them. Pure.

A result of millions of rows names some thousand shards. Eight bytes a row travel, instead of a name, and become codes of a
dictionary by looking at the rows where they change. For 1,000,000 rows of 196 shards that takes 81 ms of CPU; the names as text,
encoded by Arrow, take 113 ms, and a cast to an ENUM of DuckDB 106 ms, and 80 ms more to make its type for each snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.errors import FormatError, InvalidInputError

__all__ = ["NO_SHARD", "ShardKeys"]

NO_SHARD = 0
"""The number that stands for the hash where there is no key."""

UInt64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class ShardKeys:
    """A list of all shards that handles may lead to.

    Parameters
    ----------
    hashes
        (m,) uint64, ascending.
    keys
        (m,) string, in the same order.
    """

    hashes: UInt64
    keys: pa.Array

    @classmethod
    def of(cls, pairs: Iterable[tuple[UInt64, pa.Array]]) -> ShardKeys:
        """Collect hashes and keys, in any order.

        Raises
        ------
        FormatError
            Two keys have one hash: expected once in 2^65 / n^2 queries of n shards.
        """
        given = list(pairs)
        hashes = np.concatenate([np.zeros(0, np.uint64), *(h for h, _ in given)])
        keys = pa.concat_arrays([pa.nulls(0, pa.string()), *(k for _, k in given)])
        hashes, place = np.unique(hashes, return_index=True)
        distinct = keys.take(as_arrow(place))
        if len(keys.unique()) != len(hashes) or (len(hashes) and hashes[0] == NO_SHARD):
            raise FormatError("two shard keys have the same hash; rename a table or ingest a part anew")
        return cls(hashes, distinct)

    def encode(self, hashes: UInt64, name: str) -> pa.DictionaryArray:
        """Return the keys of rows, with a dictionary in the order of the rows; null where there is none.

        Parameters
        ----------
        hashes
            (n,) uint64.
        name
            Name of the column, for the error.

        Raises
        ------
        InvalidInputError
            A hash is of no shard of these.
        """
        if not len(hashes):
            return pa.nulls(0, pa.string()).dictionary_encode()
        starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
        in_order = as_arrow(
            hashes[starts]
        ).dictionary_encode()  # by hashing: sorting two million takes nine times as long
        found = as_numpy(in_order.dictionary)
        is_shard = found != NO_SHARD
        code = np.where(is_shard, np.cumsum(is_shard) - 1, -1).astype(np.int32)
        shards = found[is_shard]
        place = np.minimum(np.searchsorted(self.hashes, shards), max(len(self.hashes) - 1, 0))
        if len(shards) and not (len(self.hashes) and (self.hashes[place] == shards).all()):
            raise InvalidInputError(
                f"column {name!r} leads to shards that this version of its table does not have: it comes from another snapshot; "
                "select the tensor from the table itself"
            )
        codes = np.repeat(code[as_numpy(in_order.indices)], np.diff(np.append(starts, len(hashes))))
        indices = as_arrow(codes, codes < 0 if len(shards) < len(found) else None)
        return pa.DictionaryArray.from_arrays(indices, self.keys.take(as_arrow(place.astype(np.int64))))
