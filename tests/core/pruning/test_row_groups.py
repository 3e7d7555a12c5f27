"""Row groups by their footers: none that may hold a row of the answer is left out."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tensorbank.pruning import ANYTHING, AllOf, Compare, Condition, kept_row_groups

CASES: dict[str, tuple[Condition, list[int]]] = {
    "all": (ANYTHING, [0, 1, 2, 3]),
    "some": (Compare(("a",), ">", 19), [2, 3]),
    "none": (Compare(("a",), ">", 400), []),
    "a field": (Compare(("s", "b"), "<", 5.0), [0]),
    "both": (AllOf((Compare(("a",), ">=", 10), Compare(("s", "b"), "<=", 29.0))), [1, 2]),
    "a column that is not there": (Compare(("c",), "=", 1), [0, 1, 2, 3]),
}


@pytest.mark.parametrize(("condition", "expected"), CASES.values(), ids=CASES)
def test_row_groups_that_may_hold_a_row(tmp_path, condition, expected):
    path = tmp_path / "file.parquet"
    rows = [{"A": i, "s": {"b": float(i)}} for i in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    asked: list[int] = []

    def footer() -> object:
        asked.append(1)
        return pq.read_metadata(path)

    found = [kept_row_groups(str(path), condition, footer) for _ in range(2)]
    assert found == [expected, expected]
    assert len(asked) == 1, "extremes are remembered: index files never change"
