"""Columns in two parts: what is put together again is what was taken apart, bit by bit."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
from hypothesis import given

from tensorbank.maintenance.spilling.column_parts import ColumnParts

LEAVES = (pa.float32(), pa.float64(), pa.int16(), pa.string(), pa.bool_(), pa.list_(pa.float32()))
KINDS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(
        lambda kinds: pa.struct([(f"c{i}", kind) for i, kind in enumerate(kinds)])
    ),
    max_leaves=6,
)


def values_of(kind: pa.DataType, n: int, rng: np.random.Generator) -> pa.Array:
    """Return random values with nulls; below the null of a struct there are values, too."""
    is_null = rng.random(n) < 0.3
    if pa.types.is_struct(kind):
        children = [values_of(child.type, n, rng) for child in kind]
        mask = pa.array(is_null) if rng.random() < 0.5 else None
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=mask)
    if pa.types.is_list(kind):
        return pa.array([None if null else rng.random(2).tolist() for null in is_null], kind)
    numbers = rng.integers(0, 100, n)
    plain = [str(i) for i in numbers] if pa.types.is_string(kind) else numbers.astype(np.float64).tolist()
    if pa.types.is_boolean(kind):
        plain = (numbers > 50).tolist()
    if pa.types.is_integer(kind):
        plain = numbers.tolist()
    return pa.array([None if null else value for value, null in zip(plain, is_null, strict=True)], kind)


def floats_in(kind: pa.DataType) -> set[bool]:
    """Return whether the leaves of a type are floats: True, False, or both."""
    if pa.types.is_struct(kind):
        return set().union(*(floats_in(child.type) for child in kind))
    return {kind in (pa.float32(), pa.float64())}


@given(st.lists(KINDS, min_size=1, max_size=4), st.integers(0, 20), st.integers(0, 2**32))
def test_parts_together_are_the_rows(kinds, n, seed):
    rng = np.random.default_rng(seed)
    names = [f"x{i}" for i in range(len(kinds))]
    rows = pa.Table.from_arrays([values_of(kind, n, rng) for kind in kinds], names=names)
    parts = ColumnParts(rows.schema)
    apart = parts.apart(rows)
    for part, is_float in zip(apart, (True, False), strict=True):
        assert all(floats_in(field.type) == {is_float} for field in part.schema)
    again = parts.together(*apart)
    again.validate(full=True)
    assert again.equals(rows)
    for name in names:  # what lies below a null of a struct is kept as well
        assert _below(again[name]) == _below(rows[name])


def _below(column: pa.ChunkedArray) -> list:
    values = column.combine_chunks()
    if not pa.types.is_struct(values.type):
        return [values.to_pylist()]
    return [
        found for i in range(values.type.num_fields) for found in _below(pa.chunked_array([values.field(i)]))
    ]
