"""The rows that a version of a table has of some samples of a source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tensorbank.arrow_numpy import as_arrow
from tensorbank.catalog import Catalog, TableVersion, key_of, keys_of
from tensorbank.planning import Planner
from tensorbank.sql import literal
from tensorbank_indexer.source import SampleRef

__all__ = ["live_rows"]


def live_rows(catalog: Catalog, version: TableVersion, refs: Sequence[SampleRef]) -> pa.Table:
    """Return ``key``, ``stem_key`` and ``part`` of the rows that a version has of some samples, in no order."""
    keys = np.array([key_of(ref.split, ref.sample_id) for ref in refs], np.int64)
    ids = [ref.sample_id for ref in refs]
    given = "given_keys" if version.table.lower() != "given_keys" else "given_samples"
    low, high = (literal(bound) for bound in (min(ids, default=""), max(ids, default="")))
    planner = Planner(catalog, {version.table: version.version}, {given: pa.table({"key": as_arrow(keys)})})
    rows = planner.arrow(
        f'SELECT key, part, split, subset, stem FROM "{version.table}" '
        f"WHERE sample_id BETWEEN {low} AND {high} AND key IN (SELECT key FROM {given})"
    )
    return pa.table(
        {
            "key": rows["key"],
            "stem_key": as_arrow(keys_of(rows, "split", "subset", "stem")),
            "part": rows["part"],
        }
    )
