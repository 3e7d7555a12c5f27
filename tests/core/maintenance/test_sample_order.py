"""The order of compacted rows: the same as that of plain tuples, however many parts they come in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tensorbank.maintenance.sample_order import SampleOrder, sorting


@pytest.mark.parametrize("n", [0, 1, 2, 500])
@pytest.mark.parametrize("n_different", [1, 3, 10**6])
def test_pairs_are_sorted_as_tuples_are(n, n_different):
    rng = np.random.default_rng(n)
    first, then = rng.integers(-n_different, n_different, n), rng.integers(-50, 50, n)
    pairs = list(zip(first.tolist(), then.tolist(), strict=True))
    assert [pairs[i] for i in sorting(first, then).tolist()] == sorted(pairs)


def test_samples_of_all_parts_lie_by_season_place_and_key():
    rng = np.random.default_rng(3)
    rows = [
        {
            "key": int(key),
            "part": "p",
            "season": [None, "winter", "autumn", "summer"][rng.integers(4)],
            "hilbert": int(rng.choice([0, 1, 7, 4**16 - 1])),
        }
        for key in rng.permutation(300) - 150
    ]
    schema = pa.schema(
        [("key", pa.int64()), ("part", pa.string()), ("season", pa.string()), ("hilbert", pa.int64())]
    )
    tables = [pa.Table.from_pylist(rows[i : i + 30], schema=schema) for i in range(0, 300, 30)]
    tables.append(pa.concat_tables([schema.empty_table(), tables.pop(), tables.pop()]))
    order = SampleOrder.of(tables)
    keys = sorted(r["key"] for r in rows)
    by_place = [keys[i] for i in np.argsort(order.places).tolist()]
    wanted = sorted(rows, key=lambda r: (r["season"] or "", r["hilbert"], r["key"]))
    assert by_place == [r["key"] for r in wanted]
    assert order.places_of(np.array([keys[3], keys[3], 10**6])).tolist() == [order.places[3]] * 2 + [300]
