"""Samples that lie in another shard than before, and the rows of the index that lead to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_arrow, as_numpy

__all__ = ["MovedSamples", "MovedShard"]

OFFSET_BITS = 44
"""The bits of an offset in a shard, beside which the number of the shard stands."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MovedShard:
    """A shard of a modality whose samples lie in another one now: both keys, and where samples begin in both, (n,) each."""

    modality: str
    key: str
    new_key: str
    old_offsets: Numbers
    new_offsets: Numbers

    @property
    def keys(self) -> tuple[str, ...]:
        """See ``Result.keys``."""
        return (self.new_key,)


@dataclass(frozen=True)
class MovedSamples:
    """The samples that lie elsewhere now, by their old shard and offset.

    Parameters
    ----------
    modalities
        Names of the modalities that have some.
    old_keys, new_keys
        Keys of the shards, (n,) each.
    places, offsets
        Number of the shard and old offset as one number, sorted, and the new offset, (m,) each.
    """

    modalities: frozenset[str] = frozenset()
    old_keys: pa.Array = field(default_factory=lambda: pa.nulls(0, pa.string()))
    new_keys: pa.Array = field(default_factory=lambda: pa.nulls(0, pa.string()))
    places: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    offsets: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, shards: Sequence[MovedShard]) -> MovedSamples:
        """Return the samples of some shards."""
        if not shards:
            return cls()
        places = np.concatenate([n << OFFSET_BITS | shard.old_offsets for n, shard in enumerate(shards)])
        order = np.argsort(places)
        return cls(
            frozenset(shard.modality for shard in shards),
            pa.array([shard.key for shard in shards], pa.string()),
            pa.array([shard.new_key for shard in shards], pa.string()),
            places[order],
            np.concatenate([shard.new_offsets for shard in shards])[order],
        )

    def redirect(self, rows: pa.Table) -> pa.Table:
        """Return rows of samples or tiles with the addresses that their samples have now."""
        return self._with_modalities(rows, self._redirected)

    def redirect_roll_ups(self, rows: pa.Table) -> pa.Table:
        """Return rows of shards with the keys that these have now."""
        return self._with_modalities(rows, self._renamed)

    def _with_modalities(
        self, rows: pa.Table, change: Callable[[pa.StructArray], pa.StructArray]
    ) -> pa.Table:
        for name in self.modalities:
            place = rows.schema.get_field_index(name)
            if place < 0 or not rows.num_rows:
                continue
            column = rows.column(place)
            values = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
            changed = change(values)
            rows = rows.set_column(place, pa.field(name, changed.type), changed)
        return rows

    def _redirected(self, values: pa.StructArray) -> pa.StructArray:
        ref = values.field("ref")
        key, offset = _texts(ref.field("key")), as_numpy(ref.field("offset"), 0).astype(np.int64)
        shard = as_numpy(pc.index_in(key, value_set=self.old_keys), -1).astype(np.int64)
        place = np.maximum(shard, 0) << OFFSET_BITS | offset
        at = np.minimum(np.searchsorted(self.places, place), len(self.places) - 1)
        hit = (shard >= 0) & (self.places[at] == place)
        if not hit.any():
            return values
        moved = {
            "key": pc.if_else(as_arrow(hit), self.new_keys.take(as_arrow(shard, shard < 0)), key),
            "offset": as_arrow(np.where(hit, self.offsets[at], offset)),
        }
        return _with_fields(values, {"ref": _with_fields(ref, moved)})

    def _renamed(self, values: pa.StructArray) -> pa.StructArray:
        key = _texts(values.field("key"))
        shard = pc.index_in(key, value_set=self.old_keys)
        return _with_fields(values, {"key": pc.coalesce(self.new_keys.take(shard), key)})


def _texts(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _with_fields(values: pa.StructArray, changed: Mapping[str, pa.Array]) -> pa.StructArray:
    """Return structs with other values in some fields; those that are null stay so."""
    arrays = [changed.get(f.name, values.field(f.name)) for f in values.type]
    fields = [f.with_type(array.type) for f, array in zip(values.type, arrays, strict=True)]
    return pa.StructArray.from_arrays(arrays, fields=fields, mask=values.is_null())
